"""Which side of a picture is the drawing."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageOps
import pytest

from images_that_sound.pipelines.images_that_sound_picture_reading import as_drawing


SIZE = (480, 600)
SKINS = [(240, 208, 180), (198, 134, 92), (96, 60, 40)]


def ground(lightest: int, uneven: int) -> PIL.Image.Image:
    """A wall or paper in uneven light."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    gray = lightest - uneven * (rows / SIZE[1] + columns / SIZE[0]) / 2
    return PIL.Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def grainy(picture: PIL.Image.Image) -> PIL.Image.Image:
    noise = np.random.default_rng(0).normal(0, 5, (*picture.size[::-1], 1))
    softened = np.asarray(picture.filter(PIL.ImageFilter.GaussianBlur(1)), float)
    return PIL.Image.fromarray((softened + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("clothes", [(60, 80, 130), (165, 145, 120)])
def test_a_portrait_before_a_light_wall_stays(skin, clothes):
    picture = ground(235, 40)
    pen = PIL.ImageDraw.Draw(picture)
    pen.ellipse((40, 400, 440, 800), fill=clothes)
    pen.ellipse((140, 100, 340, 420), fill=(60, 40, 30))
    pen.ellipse((160, 130, 320, 390), fill=skin)
    for light in (picture, picture.convert("L").convert("RGB")):
        assert not as_drawing(grainy(light))[1]


@pytest.mark.parametrize("silence", [0, 1])
@pytest.mark.parametrize("kind", ["sketch", "logo", "shadow"])
def test_drawings_on_uneven_paper_are_swapped(kind, silence):
    picture = ground(225, 50)
    pen = PIL.ImageDraw.Draw(picture)
    if kind == "logo":
        pen.ellipse((120, 180, 360, 420), fill=(20, 20, 30))
    else:
        pen.ellipse((120, 150, 360, 450), outline=(80, 80, 85), width=3)
        pen.line((0, 560, 200, 480, 480, 590), fill=(80, 80, 85), width=3)
    if kind == "shadow":
        shade = PIL.Image.new("L", SIZE, 255)
        PIL.ImageDraw.Draw(shade).polygon([(0, 600), (0, 300), (300, 320), (340, 600)], fill=200)
        shade = np.asarray(shade.filter(PIL.ImageFilter.GaussianBlur(20)), float)[..., None] / 255
        picture = PIL.Image.fromarray((np.asarray(picture) * shade).astype(np.uint8))
    picture = grainy(picture)
    if silence:
        picture = PIL.ImageOps.invert(picture)
    drawn, swapped = as_drawing(picture, silence)
    # The middle of the paper is silent now.
    assert swapped and abs(np.asarray(drawn.convert("L"))[250:330, 60:100].mean() / 255 - silence) < 0.45


def test_chalk_on_a_board_stays():
    picture = PIL.Image.new("RGB", SIZE, (130, 135, 130))
    PIL.ImageDraw.Draw(picture).line((60, 100, 400, 300, 80, 500), fill=(245, 245, 240), width=8)
    assert not as_drawing(grainy(picture))[1]
