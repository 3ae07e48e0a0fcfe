"""Videos, decoded again."""

import av
import numpy as np
import PIL.Image
import pytest

from images_that_sound.scripts.common.captions import draw_captions
from images_that_sound.scripts.common.video import film_of, poster, write_animation, write_video


def test_two_panels_under_one_playhead(tmp_path):
    colour = PIL.Image.new("RGB", (64, 128), (0, 0, 200))
    gray = PIL.Image.new("L", (256, 64), 40)
    audio = 0.5 * np.sin(np.arange(11200) * 2 * np.pi * 440 / 16000).astype(np.float32)
    panels, captions = [(colour, 2), (gray, 1)], ["a picture " * 30, "a sound"]
    write_video(tmp_path / "video.mp4", panels, audio, 16000, captions, "a comment")

    with av.open(str(tmp_path / "video.mp4")) as container:
        assert container.metadata["comment"] == "a comment"
        assert container.streams.video[0].average_rate == 60
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 42
    height, width = frames[0].shape[:2]
    assert width == 1024 and height % 2 == 0 and height > 2048 + 256 + 60, "the long caption is wrapped"
    for index in (5, 15, 30, 40):
        red = np.clip(frames[index][..., 0].astype(int) - frames[index][..., 1] - frames[index][..., 2], 0, None)
        place = index / len(frames)
        upper, lower = red[:1024], red[1024:2048]
        played, silent = (upper, lower) if place < 0.5 else (lower, upper)
        assert abs(int(played.sum(axis=0).argmax()) - 2 * place % 1 * 1024) < 8
        assert silent.max() < 60
        assert abs(int(red[2048:2304].sum(axis=0).argmax()) - place * 1024) < 8
    assert frames[0][2310:].max() > 200
    still = np.asarray(poster(panels, captions))
    assert still.shape == frames[0].shape
    assert np.abs(still.astype(int) - frames[0]).mean() < 6


@pytest.mark.parametrize("loops", [False, True])
def test_a_long_picture_moves_past_the_playhead(tmp_path, loops):
    """Steps of gray: beside the playhead is always the step that is played."""
    steps = np.random.default_rng(0).permutation(24) * 9 + 20
    gray = PIL.Image.fromarray(np.tile(np.repeat(steps, 128).astype(np.uint8), (64, 1)))
    write_video(tmp_path / "video.mp4", [(gray, 1)], np.zeros(12800, np.float32), 16000, [], loops=loops)

    with av.open(str(tmp_path / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 48 and frames[0].shape == (64, 1024, 3)
    for i in range(48):
        played = i / 48 * 3072
        red = np.clip(frames[i][..., 0] - frames[i][..., 1], 0, None).sum(axis=0)
        head = np.flatnonzero(red > red.max() / 2).mean()
        assert abs(head - (512 if loops else played - np.clip(played - 512, 0, 2048))) < 6
        for beside in (-40, 40):
            column, wanted = round(head) + beside, played + beside
            if 40 < wanted % 128 < 88 and 0 <= column < 1024:
                assert abs(frames[i][32, column].mean() - steps[int(wanted // 128) % 24]) < 5


def test_a_long_folded_picture_moves_strip_by_strip():
    gray = np.zeros((128, 2048), np.uint8)
    gray[64:, 1500:1520] = 255
    frame = film_of([(PIL.Image.fromarray(gray), 2)], [], "strip")((1 + 1510 / 2048) / 2)
    red = (frame[..., 0].astype(int) - frame[..., 1] > 150).nonzero()
    assert frame.shape == (128, 1024, 3) and red[0].min() == 64 and red[0].max() == 127
    white = (frame.min(axis=2) > 150).nonzero()
    assert white[0].min() == 64 and abs(white[1].mean() - red[1].mean()) < 4


def test_letters_with_accents_are_written():
    panels = [(PIL.Image.new("L", (256, 64)), 1)]
    pixels = [np.asarray(poster(panels, [f"Glockenl{letter}uten"])) for letter in ("ä", "\ue000")]
    assert pixels[0].shape == pixels[1].shape and not np.array_equal(*pixels), "what no font has is a box"


def test_letters_that_no_font_has_are_told(capsys):
    draw_captions(["a \ue000"], 400)
    assert "No font of this machine has" in capsys.readouterr().err
    draw_captions(["a painting"], 400)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("script", ["城堡的塔楼", "城の塔を描い", "성의탑그림"])
def test_letters_of_east_asia_are_letters_beside_others(script, capsys):
    """Each is another one than the next, and none is told to be missing, beside a letter of another font."""
    text = "".join(dict.fromkeys(script))
    pixels = [np.asarray(draw_captions([f"\u00e4\u2654{letter}"], 100)) for letter in text]
    if said := capsys.readouterr().err:
        pytest.skip(f"needs a font with letters of East Asia, such as fonts-noto-cjk: {said}")
    assert len({each.tobytes() for each in pixels}) == len(text)
    # As wide as high, in white.
    inked = [np.flatnonzero((each > 200).any(axis=(0, 2))) for each in pixels]
    assert all(40 < each[-1] < 90 for each in inked)


def test_captions_are_a_few_lines_whatever_a_file_says():
    """A megabyte, in words or in one that has no end."""
    for text in ("a word " * 150_000, "\u00e4" * 1_000_000):
        picture = draw_captions([text, "a sound"], 600)
        assert picture.width == 600 and 100 < picture.height <= 4 * 30 + 12
    assert draw_captions([], 600).height == 0


@pytest.mark.parametrize("width", [512, 20_000])
@pytest.mark.parametrize("shape, size", [("16:9", (1280, 720)), ("1:1", (1080, 1080)), ("9:16", (1080, 1920))])
def test_shapes_show_the_whole_picture_and_what_is_wide_also_enlarged(shape, size, width):
    """A white bar at three quarters of the time: when it is played, both playheads are on it."""
    gray, bar = np.full((128, width), 60, np.uint8), 3 * width // 4
    gray[:, bar - 12 : bar + 12] = 255
    film = film_of([(PIL.Image.fromarray(gray), 1)], ["a bar"], shape)
    for share in (0.0, 0.3, 3 / 4, 0.999):
        frame = film(share)
        assert frame.shape == (size[1], size[0], 3)
        red = (frame[..., 0].astype(int) - frame[..., 1] > 150) & (frame[..., 2] < 100)
        rows = np.flatnonzero(red.any(axis=1))
        heads = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        whole = frame[rows[0] : rows[0] + size[0] // 4]
        assert whole.shape[1] == size[0] and abs(np.flatnonzero(red[rows[0]]).mean() - share * size[0]) < 8
        assert 2 < red[rows[0]].sum() < 12, "seen on a phone, and no more than a line"
        if share == 3 / 4:
            below = frame[rows[-1] - 20]
            head, white = np.flatnonzero(red[rows[-1] - 20]), np.flatnonzero(below.min(axis=1) > 200)
            assert len(white) > 20 and abs(head.mean() - white.mean()) < 10, "on the enlarged bar"
        assert heads


def test_animations_for_messengers(tmp_path):
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 256), np.uint8))
    for ending in ("gif", "webp"):
        for loops in (True, False):
            file = tmp_path / f"video.{ending}"
            write_animation(file, [(picture, 1)], 2.0, ["a caption"], loops=loops)
            with PIL.Image.open(file) as animation:
                assert animation.n_frames == 40 and animation.width == 480 and animation.info["loop"] == 0
                durations = []
                for i in range(40):
                    animation.seek(i)
                    animation.load()
                    durations.append(animation.info["duration"])
                assert sum(durations) == pytest.approx(2000 if loops else 3000, abs=20)
                red = np.asarray(animation.convert("RGB"), int)
                red = red[..., 0] - red[..., 1]
                assert abs(int(red.sum(axis=0).argmax()) - 39 / 40 * 480) < 8
