"""Sounds as people bring them, written by FFmpeg and read again."""

from pathlib import Path

import av
import numpy as np
import pytest
import scipy.signal
import soundfile

from images_that_sound.scripts import generate, hide
from images_that_sound.scripts.common.sounds import read_audio, read_waveform


RATE = 48000
PROMPTS = ["--prompt", "a painting of furry kittens, grayscale", "--audio_prompt", "birds singing sweetly"]


def tone(hertz: float = 440, seconds: float = 2) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def encode(path: Path, codec: str, *tracks: np.ndarray, rate: int = RATE) -> None:
    """Mono tracks in a file of the format that its name says."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=rate, layout="mono") for _ in tracks]
        for stream, samples in zip(streams, tracks):
            resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or None)
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(piece))


def loudest(audio: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax() * rate / len(audio))


@pytest.mark.parametrize(
    "name, codec",
    [
        *(("a.m4a", "aac"), ("a.mov", "pcm_s16le"), ("a.aac", "aac"), ("a.webm", "libopus"), ("a.mka", "flac")),
        *(("a.mkv", "aac"), ("a.mp3", "libmp3lame"), ("a.ogg", "libopus"), ("a.amr", "libopencore_amrnb")),
    ],
)
def test_formats_of_phones_and_browsers(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"needs an FFmpeg with {codec}")
    encode(tmp_path / name, codec, tone(), rate=8000 if name == "a.amr" else RATE)
    audio, rate = read_waveform(tmp_path / name)
    assert len(audio) / rate == pytest.approx(2, abs=0.1) and loudest(audio, rate) == pytest.approx(440, abs=2)
    part, rate = read_waveform(tmp_path / name, 0.5, 1.0)
    assert len(part) == rate and loudest(part, rate) == pytest.approx(440, abs=2)


def test_the_track_that_holds_a_sound_is_taken(tmp_path):
    encode(tmp_path / "a.mov", "pcm_s16le", np.zeros(2 * RATE, np.float32), tone(660))
    audio, rate = read_waveform(tmp_path / "a.mov")
    assert loudest(audio, rate) == pytest.approx(660, abs=1)


def test_a_flac_that_does_not_say_how_long_it_is(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(), RATE, "PCM_16")
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "pipe.flac").write_bytes(content)
    expected, heard = (read_waveform(tmp_path / f"{name}.flac")[0] for name in ("a", "pipe"))
    np.testing.assert_array_equal(heard, expected)


def test_channels_that_cancel_are_nothing_to_be_heard(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], axis=1), RATE, "PCM_24")
    with pytest.raises(ValueError, match="holds nothing to be heard in mono: its channels cancel"):
        read_audio(tmp_path / "a.wav", 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros((100, 2)), RATE)
    assert not read_waveform(tmp_path / "silent.wav")[0].any(), "silence is silence"


def test_a_part_of_a_long_recording(tmp_path, monkeypatch):
    """Of twelve minutes, more than a command takes whole."""
    monkeypatch.chdir(tmp_path)
    rate, length = 4000, 720
    steps = np.repeat([300.0, 700.0, 1100.0], length * rate // 3)
    sound = 0.5 * np.sin(2 * np.pi * np.cumsum(steps) / rate)
    soundfile.write("long.flac", sound, rate)
    with pytest.raises(ValueError, match="at most 600 seconds.*--audio_length_in_s"):
        read_audio("long.flac", 16000)
    for start, hertz in ((0, 300), (400, 700), (714, 1100)):
        part = read_audio("long.flac", 16000, start, 5)
        assert len(part) == 5 * 16000 and loudest(part, 16000) == pytest.approx(hertz, abs=1)
    call = ["--audio", "long.flac", *PROMPTS, "--num_inference_steps", "2", "--no-video", "--output_dir", "out"]
    call += ["--device", "cpu", "--audio_length_in_s", "0.64"]
    with pytest.raises(SystemExit, match="`audio_length_in_s` has to be in the 0.50 s of `audio` after 719.5 s"):
        generate.main([*call, "--audio_start_in_s", "719.5"])
    with pytest.raises(SystemExit, match="holds no sound from 800 s on"):
        generate.main([*call, "--audio_start_in_s", "800"])


def test_hiding_in_a_phone_s_recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import PIL.Image

    encode(
        Path("memo.m4a"),
        "aac",
        scipy.signal.lfilter([1], [1, -0.9], 0.05 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(
            np.float32
        ),
    )
    with av.open("memo.m4a") as container:
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    square = PIL.Image.new("L", (32, 32))
    square.paste(255, (8, 8, 24, 24))
    square.save("square.png")
    hide.main(["memo.m4a", "--image", "square.png", "--start_in_s", "0.5", "--end_in_s", "1.5", "--no-video"])
    written, rate = soundfile.read("memo-hidden.wav")
    assert rate == RATE and soundfile.info("memo-hidden.wav").subtype == "PCM_24"
    start, end = RATE // 2, 3 * RATE // 2
    np.testing.assert_allclose(written[:start], decoded[:start], atol=2**-22)
    np.testing.assert_allclose(written[end:], decoded[end:], atol=2**-22)
    assert np.abs(written - decoded)[start:end].max() > 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "memo-hidden.png",
        "memo-hidden.wav",
        "memo.m4a",
        "square.png",
    ]
