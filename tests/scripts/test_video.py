"""Videos, decoded again."""

import av
import numpy as np
import PIL.Image

from images_that_sound.scripts.common.video import poster, write_video


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


def test_letters_with_accents_are_written():
    panels = [(PIL.Image.new("L", (256, 64)), 1)]
    pixels = [np.asarray(poster(panels, [f"Glockenl{letter}uten"])) for letter in ("ä", "\ue000")]
    assert pixels[0].shape == pixels[1].shape and not np.array_equal(*pixels), "what no font has is a box"
