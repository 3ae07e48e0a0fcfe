"""Pictures hidden in files: what is written is read by soundfile and PyAV, and seen again."""

import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import scipy.signal
import soundfile

from images_that_sound.pipelines.images_that_sound_hiding import HiddenPicture, hide_pictures
from images_that_sound.scripts import hide
from images_that_sound.scripts.common.hiding import hide_in_file
from images_that_sound.scripts.common.samples import read_settings


RATE = 22050
PLACE = ["--start_in_s", "0.5", "--end_in_s", "1.5", "--min_frequency", "4000", "--max_frequency", "9000"]


def cross() -> np.ndarray:
    """White on black."""
    rows, columns = np.mgrid[:64, :64]
    return ((np.abs(rows - columns) < 6) | (np.abs(rows + columns - 63) < 6)).astype(np.uint8) * 255


def noise(seconds: float = 2, rate: int = RATE, channels: int = 2) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(cross()).save("cross.png")
    soundfile.write("song.wav", noise(), RATE, "PCM_16")
    return tmp_path


@pytest.mark.parametrize(
    "name, subtype, dtype",
    [
        ("song.wav", "PCM_16", "int32"),
        ("song.wav", "PCM_24", "int32"),
        ("song.wav", "PCM_U8", "int32"),
        ("song.wav", "FLOAT", "float64"),
        ("song.flac", "PCM_16", "int32"),
        ("song.flac", "PCM_24", "int32"),
    ],
)
def test_samples_stay_what_they_are_but_for_the_span(world, name, subtype, dtype):
    soundfile.write(name, noise(), RATE, subtype)
    hide.main([name, "--image", "cross.png", *PLACE, "--no-video", "--output", f"out{Path(name).suffix}"])
    before, after = (soundfile.read(each, dtype=dtype)[0] for each in (name, f"out{Path(name).suffix}"))
    info = soundfile.info(f"out{Path(name).suffix}")
    assert (info.subtype, info.samplerate, info.channels, info.frames) == (subtype, RATE, 2, 2 * RATE)
    start, end = round(0.5 * RATE), round(1.5 * RATE)
    assert np.array_equal(before[:start], after[:start]) and np.array_equal(before[end:], after[end:])
    assert not np.array_equal(before[start:end], after[start:end])
    picture = cross().astype(np.float32) / 255
    place = {"start_in_s": 0.5, "end_in_s": 1.5, "min_frequency": 4000, "max_frequency": 9000}
    waveform = soundfile.read(name, dtype="float64")[0]
    whole = hide_pictures(waveform, [HiddenPicture(picture=picture, sampling_rate=RATE, **place)])
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15}.get(subtype, 2**-23)
    scale = 1 if dtype == "float64" else 2**31
    assert np.abs(after / scale - whole).max() < 0.51 * step, "the samples round what the waveform holds"


def test_a_long_sound_is_read_in_pieces_that_fit_together(tmp_path):
    """Against the whole at once, and in memory that ten times the length does not raise."""
    peaks = []
    for seconds in (120, 1200):
        source, target = tmp_path / "long.wav", tmp_path / "out.wav"
        audio = np.tile(noise(8, 8000, 1), (seconds // 8, 1))
        soundfile.write(source, audio, 8000, "FLOAT")
        place = {"start_in_s": 20, "end_in_s": 100, "min_frequency": 1000, "max_frequency": 3000}
        picture = HiddenPicture(picture=cross() / np.float32(255), sampling_rate=8000, **place)
        tracemalloc.start()
        with soundfile.SoundFile(source) as sound:
            hide_in_file(sound, source, target, [picture])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        if seconds == 120:
            whole = hide_pictures(soundfile.read(source)[0], [picture])
            np.testing.assert_allclose(soundfile.read(target)[0], whole, atol=1e-6)
    assert peaks[1] < 1.1 * peaks[0] < 1.1 * 1200 * 8000 * 8


def test_all_tags_stay(world):
    with av.open("song.flac", "w") as container:
        container.metadata.update({"title": "Evening", "MOOD": "calm"})
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        samples = (noise(channels=1).T * 2**15).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    cue = struct.pack("<4sI", b"cue ", 28) + struct.pack("<IIIIIII", 1, 1, 0, 0x61746164, 0, 0, 100)
    note = struct.pack("<4sI", b"note", 3) + b"abc\0"
    whole = Path("song.wav").read_bytes() + cue + note
    Path("song.wav").write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    for name in ("song.flac", "song.wav"):
        out = f"out{Path(name).suffix}"
        hide.main([name, "--image", "cross.png", *PLACE, "--no-video", "--output", out])
        assert soundfile.info(out).frames == 2 * RATE
    with av.open("out.flac") as container:
        tags = {tag.lower(): text for tag, text in container.metadata.items()}
        assert (tags["title"], tags["mood"]) == ("Evening", "calm")
    written = Path("out.wav").read_bytes()
    assert written.endswith(cue + note) and struct.unpack("<I", written[4:8])[0] == len(written) - 8


def test_sound_spectrogram_and_video_of_several_pictures(world, capsys):
    PIL.Image.fromarray(255 - cross()).save("paper.png")
    images = ["--image", "cross.png", "--image", "paper.png", "--start_in_s", "0.1", "1.1", "--end_in_s", "0.9", "1.9"]
    band = ["--min_frequency", "4000", "--max_frequency", "9000"]
    hide.main(["song.wav", *images, *band])
    out, err = capsys.readouterr()
    assert out.split() == ["song-hidden.wav", "song-hidden.png", "song-hidden.mp4"]
    assert "`paper.png` is taken for a drawing in dark" in err and "cross.png" not in err
    assert read_settings("song-hidden.png")["start_in_s"] == [0.1, 1.1]
    drawn = np.asarray(PIL.Image.open("song-hidden.png"))[12:-48, 84:-16].astype(float)
    height, width = drawn.shape
    rows = slice(round((1 - 9000 / 11025) * height), round((1 - 4000 / 11025) * height))
    for start, end in ((0.1, 0.9), (1.1, 1.9)):
        part = drawn[rows, round(start / 2 * width) : round(end / 2 * width)]
        wanted = PIL.Image.fromarray(cross()).resize(part.shape[::-1])
        assert np.corrcoef(part.ravel(), np.asarray(wanted, float).ravel())[0, 1] > 0.8
    with av.open("song-hidden.mp4") as container:
        assert container.duration / 1e6 == pytest.approx(2, abs=0.1)


def test_a_loud_sound_stays_within_full_scale_and_changes_in_the_band_alone(world, capsys):
    """One that was pushed against full scale, as much music is."""
    loud = scipy.signal.lfilter([1], [1, -0.9], np.random.default_rng(0).standard_normal(2 * RATE))
    soundfile.write("loud.wav", np.clip(0.5 * loud, -0.99, 0.99), RATE, "PCM_16")
    hide.main(["loud.wav", "--image", "cross.png", *PLACE, "--no-video"])
    before, after = (soundfile.read(name)[0] for name in ("loud.wav", "loud-hidden.wav"))
    assert np.abs(after).max() <= 1
    change = (after - before)[RATE // 2 : 3 * RATE // 2]
    frequencies, power = scipy.signal.welch(change, RATE, ("kaiser", 20), 4096, detrend=False)
    inside = power[(frequencies > 4000) & (frequencies < 9000)].mean()
    outside = power[(frequencies < 3800) | (frequencies > 9200)].mean()
    assert 10 * np.log10(outside / inside) < -35
    assert "samples would be louder than a file holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["missing.wav", "--image", "cross.png"], "`missing.wav` can't be read as a sound"),
        (["cross.png", "--image", "cross.png"], "`cross.png` can't be read as a sound"),
        (["song.wav", "--image", "song.wav"], "`song.wav` can't be read as a picture"),
        (["song.wav", "--image", "cross.png", "--output", "out.mp3"], "`--output` has to end in .wav or .flac"),
        (["song.wav", "--image", "cross.png", "--end_in_s", "3"], "`end_in_s` has to be in the 2.00 s"),
        (["song.wav", "--image", "cross.png", "--start_in_s", "1.5"], "`start_in_s` is 1.5.* ends after 2.00 s"),
        (["song.wav", "--image", "cross.png", "--strength", "0.1", "0.2"], "`strength` has to be given once or for"),
        (["song.wav", "--image", "cross.png", "cross.png"], "Pictures may not overlap"),
        (["song.wav", "--image", "cross.png", "--output", "song.wav"], "`--output` would replace song.wav"),
        (["song.wav", "--image", "cross.png", "--output", "cross.flac"], "`--output` would replace cross.png"),
        (["empty.wav", "--image", "cross.png"], "`empty.wav` holds no sound"),
        (["nan.wav", "--image", "cross.png"], "not finite"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(world, arguments, words):
    soundfile.write("empty.wav", np.zeros(0), RATE)
    soundfile.write("nan.wav", np.full(2 * RATE, np.nan), RATE, "FLOAT")
    before = sorted(world.iterdir())
    with pytest.raises(SystemExit, match=words):
        hide.main(arguments)
    assert sorted(world.iterdir()) == before


def test_missing_files_are_reported_before_ones_that_are_in_the_way(world):
    for name in ("song-hidden.png", "missing-hidden.png"):
        (world / name).touch()
    for song, image in (("missing.wav", "cross.png"), ("song.wav", "missing.png")):
        with pytest.raises(SystemExit, match=r"^error: `missing\.\w+` can't be read"):
            hide.main([song, "--image", image])
    with pytest.raises(SystemExit, match="`--output` has to be given, since song-hidden.png is there already"):
        hide.main(["song.wav", "--image", "cross.png"])
