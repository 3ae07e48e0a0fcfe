"""Lines of pictures, as a ControlNet is told them."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from images_that_sound.scripts.common.control_lines import lines_of


def cat(ground, stroke, width, mode="RGB"):
    """A head in strokes, as somebody draws it by mouse on a page of 512 x 256."""
    picture = PIL.Image.new(mode, (512, 256), ground)
    pen = PIL.ImageDraw.Draw(picture)
    pen.line([(80, 220), (100, 40), (180, 110), (320, 110), (410, 40), (430, 220), (80, 220)], stroke, width)
    pen.ellipse((160, 140, 200, 180), outline=stroke, width=width)
    return picture


@pytest.mark.parametrize("contrast", [12, 180])
def test_edges_of_a_disc_are_its_circle(contrast):
    rows, columns = np.mgrid[:128, :512]
    disc = np.hypot(rows - 60, columns - 200) < 40
    picture = PIL.Image.fromarray((60 + contrast * disc).astype(np.uint8))

    lines = np.asarray(lines_of(picture))
    assert set(np.unique(lines)) == {0, 255}
    found = np.argwhere(lines) - (60, 200)
    assert abs(np.hypot(*found.T) - 40).max() < 1.5
    degrees = np.degrees(np.arctan2(*found.T)) % 360 // 10
    assert len(set(degrees)) == 36 and len(found) < 2 * 2 * np.pi * 40


def test_small_things_on_an_uneven_ground_are_no_drawing():
    photograph = np.tile(np.linspace(0, 90, 512), (128, 1))
    photograph[40:80, 100:104] = photograph[70:74, 300:360] = 220
    assert set(np.unique(lines_of(PIL.Image.fromarray(photograph.astype(np.uint8))))) == {0, 255}


@pytest.mark.parametrize(
    "ground, stroke, mode",
    [
        ("white", "black", "RGB"),
        ("#102030", "#f0f0ff", "RGB"),
        ((0, 0, 0, 0), (0, 0, 0, 255), "RGBA"),
        ((255, 255, 255, 0), (255, 255, 255, 255), "RGBA"),
    ],
)
def test_strokes_stay_whatever_they_are_drawn_in(ground, stroke, mode):
    drawn = cat("black", "white", 6).convert("L")
    expected = np.asarray(drawn.resize((256, 128), PIL.Image.Resampling.BOX), float)

    lines = lines_of(cat(ground, stroke, 6, mode))
    assert lines.size == (256, 128)
    assert abs(np.asarray(lines, float) - expected).max() <= 3
    assert lines_of(lines).tobytes() == lines.tobytes()


@pytest.mark.parametrize("paper, pencil", [((175, 175, 175), 90), ((230, 212, 165), 70), ((120, 118, 110), 50)])
def test_pencil_on_gray_paper_in_uneven_light_is_seen_as_strokes(paper, pencil):
    drawn = np.asarray(cat("black", "white", 4).convert("L"), float)[..., None] / 255
    rows, columns = np.mgrid[:256, :512]
    light = 1 - 0.4 * (0.7 * columns / 512 + 0.3 * rows / 256)
    photograph = (np.array(paper) * (1 - drawn) + pencil * drawn) * light[..., None]
    photograph += np.random.default_rng(0).normal(0, 6, photograph.shape)
    expected = cat("black", "white", 4).convert("L").resize((256, 128), PIL.Image.Resampling.BOX)

    lines = np.asarray(lines_of(PIL.Image.fromarray(photograph.clip(0, 255).astype(np.uint8))), float)
    assert np.corrcoef(lines.ravel(), np.asarray(expected).ravel())[0, 1] > 0.95
    assert (lines[np.asarray(expected) == 0] > 60).mean() < 0.001, "no grain"


def test_lines_fit_into_the_canvas_and_an_even_picture_has_none():
    for size, fitting in (((900, 100), (512, 57)), ((30, 60), (64, 128))):
        lines = lines_of(PIL.Image.new("L", size, 200))
        assert lines.size == fitting and lines.getextrema() == (0, 0)
    assert lines_of(cat("white", "black", 6), height=64, width=64).size == (64, 32)
