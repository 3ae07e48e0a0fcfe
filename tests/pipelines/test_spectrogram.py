"""Waveform, log-mel and canvas: against NumPy, and back again."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
import torch
from safetensors.torch import load_file
from transformers.audio_utils import mel_filter_bank

from images_that_sound.pipelines import (
    SPECTROGRAMS,
    ImagesThatSoundPipeline,
    MelSpectrogram,
    find_spectrogram,
    images_that_sound_spectrogram,
)
from images_that_sound.pipelines.images_that_sound_spectrogram import (
    _mel_filters,
    audio_problems,
    audio_remarks,
)


RATE = 16000
RIFFUSION = SPECTROGRAMS["riffusion"]


def seconds(n):
    return torch.arange(int(n * RATE)) / RATE


def tone(frequency, length=1.0):
    return 0.5 * torch.sin(2 * math.pi * frequency * seconds(length))


def chirp(length=1.0):
    time = seconds(length)
    return 0.5 * torch.sin(2 * math.pi * (300 * time + 1500 * time**2))


def noise(length=1.0):
    return 0.2 * torch.randn(int(length * RATE), generator=torch.Generator().manual_seed(0))


SOUNDS = {"tone": tone(440.0), "chirp": chirp(), "noise": noise()}


def numpy_log_mel(audio, n_fft=2048, win_length=1024, hop=160, bins=256, low=0.0, high=8000.0):
    """Frames by hand: a Hann window in the middle of each, magnitudes, slaney filters, natural logarithm."""
    padding = (n_fft - hop) // 2
    padded = np.pad(audio.numpy().astype(np.float64), padding, mode="reflect")
    window = np.zeros(n_fft)
    start = (n_fft - win_length) // 2
    window[start : start + win_length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    frames = np.stack([padded[i : i + n_fft] * window for i in range(0, len(padded) - n_fft + 1, hop)])
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    filters = mel_filter_bank(n_fft // 2 + 1, bins, low, high, RATE, norm="slaney", mel_scale="slaney")
    return np.log(np.maximum(magnitude @ filters, 1e-5)).T


def assert_same_magnitudes(log_mel, expected):
    np.testing.assert_allclose(log_mel.exp().numpy(), np.exp(expected), rtol=1e-4, atol=5e-6)


# Waveform to canvas


@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_is_the_numpy_formulas(name):
    log_mel = MelSpectrogram().audio_to_log_mel(SOUNDS[name])
    assert_same_magnitudes(log_mel, numpy_log_mel(SOUNDS[name]))


def test_log_mel_follows_its_constants():
    mel = MelSpectrogram(n_fft=1024, win_length=800, hop_length=200, num_mel_bins=64, max_frequency=6000.0)
    expected = numpy_log_mel(noise(), 1024, 800, 200, 64, 0.0, 6000.0)
    assert_same_magnitudes(mel.audio_to_log_mel(noise()), expected)


@pytest.mark.parametrize("samples", [1600, 1601, 1759, 1760, 16000])
def test_frames_are_samples_divided_by_the_hop(samples):
    mel = MelSpectrogram()
    assert mel.audio_to_log_mel(torch.zeros(samples)).shape == (256, samples // 160)
    assert mel.audio_to_canvas(torch.zeros(3, samples)).shape == (3, 1, 256, samples // 160)


def test_a_batch_is_its_samples_apart():
    mel, batch = MelSpectrogram(), torch.stack([tone(440.0), noise()])
    for name in ("audio_to_log_mel", "audio_to_canvas"):
        transform = getattr(mel, name)
        assert torch.allclose(transform(batch), torch.stack([transform(batch[0]), transform(batch[1])]), atol=1e-4)


def test_sound_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="`audio` has to be longer than 944 samples, but has 944"):
        MelSpectrogram().audio_to_log_mel(torch.zeros(944))


def test_canvas_and_log_mel_are_each_others_inverse():
    mel = MelSpectrogram()
    canvas = torch.rand(2, 1, 256, 10, generator=torch.Generator().manual_seed(0))
    log_mel = mel.canvas_to_log_mel(canvas)
    assert log_mel.shape == (2, 256, 10)
    torch.testing.assert_close(mel.log_mel_to_canvas(log_mel), canvas, atol=1e-5, rtol=0)
    torch.testing.assert_close(mel.canvas_to_log_mel(mel.log_mel_to_canvas(log_mel)), log_mel, atol=1e-4, rtol=0)


def test_black_and_white_are_the_least_and_the_greatest_magnitude():
    mel = MelSpectrogram(min_magnitude=1e-3, max_magnitude=10.0)
    ends = mel.canvas_to_log_mel(torch.stack([torch.zeros(1, 256, 1), torch.ones(1, 256, 1)]))
    np.testing.assert_allclose(ends[:, 0, 0].exp().numpy(), [1e-3, 10.0], rtol=1e-5)
    beyond = torch.tensor([1e-9, 1e-3, 0.1, 10.0, 1e6]).log().expand(256, 5)
    np.testing.assert_allclose(mel.log_mel_to_canvas(beyond)[0, 0].numpy(), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_channels_are_averaged():
    mel = MelSpectrogram()
    picture = torch.rand(2, 3, 256, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        mel.canvas_to_log_mel(picture), mel.canvas_to_log_mel(picture.mean(dim=1, keepdim=True)), atol=1e-4, rtol=0
    )


def test_a_canvas_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"256 rows.*\(1, 128, 8\)"):
        MelSpectrogram().canvas_to_log_mel(torch.zeros(1, 128, 8))


@pytest.mark.parametrize("frequency, region", [(200.0, slice(215, 256)), (6000.0, slice(0, 40))])
def test_low_frequencies_are_at_the_bottom(frequency, region):
    column = MelSpectrogram().audio_to_canvas(tone(frequency))[0].mean(dim=-1)
    rows = torch.arange(256)[region]
    assert int(column.argmax()) in rows


def test_the_canvas_does_not_depend_on_loudness():
    mel = MelSpectrogram()
    quiet, loud = (mel.audio_to_canvas(chirp() * gain) for gain in (0.1, 3.0))
    torch.testing.assert_close(quiet, loud, atol=5e-3, rtol=0)
    expected = mel.log_mel_to_canvas(mel.audio_to_log_mel(chirp() * (0.95 / chirp().abs().max())))
    torch.testing.assert_close(quiet, expected, atol=5e-3, rtol=0)


def test_silence_is_black():
    mel = MelSpectrogram()
    canvas = mel.audio_to_canvas(torch.zeros(1, 1600))
    assert torch.isfinite(canvas).all() and canvas.max() < 0.02


# Constants


def test_constants_go_through_a_dict():
    mel = MelSpectrogram(num_mel_bins=128, max_magnitude=50.0)
    assert MelSpectrogram.from_dict(mel.to_dict()) == mel
    assert MelSpectrogram.from_dict({}) == MelSpectrogram()
    assert MelSpectrogram().columns_per_second == 100


@pytest.mark.parametrize(
    "constants, parts",
    [
        ({"hop": 160}, ("`spectrogram`", "'hop'", "hop_length")),
        ([160], ("`spectrogram`", "[160]")),
        ({"hop_length": 0}, ("`hop_length`", "0", "positive")),
        ({"sampling_rate": -1}, ("`sampling_rate`", "-1", "positive")),
        ({"n_fft": "2048"}, ("`n_fft`", "'2048'", "positive")),
        ({"num_mel_bins": True}, ("`num_mel_bins`", "True", "positive")),
        ({"max_magnitude": float("nan")}, ("`max_magnitude`", "nan", "positive")),
        ({"win_length": 4096}, ("`win_length`", "`n_fft`", "4096 against 2048")),
        ({"hop_length": 1025}, ("`hop_length`", "`win_length`", "1025 against 1024")),
        ({"min_frequency": 9000.0}, ("`min_frequency`", "`max_frequency`", "9000.0 against 8000.0")),
        ({"min_magnitude": 300.0}, ("`min_magnitude`", "`max_magnitude`", "300.0 against 200.0")),
        ({"hop_length": 160.5}, ("`hop_length`", "160.5")),
        ({"frequency_scale": "bark"}, ("`frequency_scale`", "'bark'", "slaney", "htk", "linear", "logarithmic")),
        ({"frequency_scale": "logarithmic"}, ("`min_frequency`", "logarithmic")),
        ({"filter_norm": "l2"}, ("`filter_norm`", "'l2'")),
        ({"center": 1}, ("`center`", "1", "True")),
        ({"black_is_loud": None}, ("`black_is_loud`", "None")),
        ({"tone_exponent": 0}, ("`tone_exponent`", "0", "positive")),
        ({"power_offset": -1e-9}, ("`power_offset`", "positive")),
        ({"inverse_filter_iterations": 1001}, ("`inverse_filter_iterations`", "1000", "1001")),
        ({"griffin_lim_iterations": 0}, ("`griffin_lim_iterations`", "0", "positive")),
    ],
)
def test_bad_constants_are_refused(constants, parts):
    with pytest.raises(ValueError) as error:
        MelSpectrogram.from_dict(constants)
    for part in parts:
        assert part in str(error.value)


# Riffusion's scale, besides what test_conformance.py holds against its own code


def test_presets_go_through_a_dict():
    for name, mel in SPECTROGRAMS.items():
        assert find_spectrogram(name) == find_spectrogram(mel.to_dict()) == find_spectrogram(mel) == mel
        assert MelSpectrogram.from_dict(json.loads(json.dumps(mel.to_dict()))) == mel
    assert SPECTROGRAMS["auffusion"] == MelSpectrogram()


def test_silence_is_white_where_black_is_loud():
    canvas = RIFFUSION.audio_to_canvas(torch.cat([torch.zeros(1, 44100), tone(440.0)[None]], dim=1))
    assert RIFFUSION.silence == 1 and MelSpectrogram().silence == 0
    assert canvas[..., :80].min() > 0.999 and canvas.min() == 0
    assert torch.isfinite(RIFFUSION.audio_to_canvas(torch.zeros(1, 44100))).all()


def test_tone_and_polarity_are_each_others_inverse():
    canvas = torch.rand(2, 1, 512, 30, generator=torch.Generator().manual_seed(0))
    canvas[..., 0, 0] = 0
    log_mel = RIFFUSION.canvas_to_log_mel(canvas)
    torch.testing.assert_close(log_mel[0].exp().amax(), torch.tensor(RIFFUSION.max_magnitude))
    torch.testing.assert_close(RIFFUSION.log_mel_to_canvas(log_mel), canvas, atol=5e-3, rtol=0)
    louder = RIFFUSION.log_mel_to_canvas(log_mel + 3)
    torch.testing.assert_close(louder, RIFFUSION.log_mel_to_canvas(log_mel), atol=1e-5, rtol=0)


def test_ink_of_half_a_black_is_24_decibels_below_it():
    ends = RIFFUSION.canvas_to_log_mel(1 - torch.tensor([1.0, 0.75, 0.5, 0.25]).expand(1, 1, 512, 4))[0, 0]
    np.testing.assert_allclose((ends - ends[0]) * 20 / math.log(10), [0, -10, -24.1, -48.2], atol=0.1)


@pytest.mark.parametrize("samples", [44100, 44101, 44540, 44541])
def test_centred_frames(samples):
    columns = RIFFUSION.audio_to_canvas(torch.rand(1, samples) - 0.5).shape[-1]
    assert columns == 1 + samples // 441 and RIFFUSION.num_samples(columns) == samples // 441 * 441
    assert RIFFUSION.num_columns(RIFFUSION.num_samples(columns) / 44100) == columns


def test_the_narrowest_canvas_is_played_and_drawn_again():
    for mel in SPECTROGRAMS.values():
        canvas = torch.rand(1, 1, mel.num_mel_bins, mel.min_columns, generator=torch.Generator().manual_seed(0))
        played = mel.canvas_to_audio(canvas)
        assert played.shape[-1] == mel.num_samples(mel.min_columns)
        assert mel.audio_to_canvas(played).shape == canvas.shape
        with pytest.raises(ValueError, match=f"at least {mel.min_columns} frames"):
            mel.canvas_to_audio(canvas[..., 1:])


def test_what_is_played_is_as_loud_as_any_but_paper_stays_silent():
    canvas = torch.ones(2, 1, 512, 40)
    canvas[0, :, 200:210] = 0.7
    line, paper = RIFFUSION.canvas_to_audio(canvas)
    assert float(line.abs().max()) == pytest.approx(0.95) and audio_problems(line.numpy()) == []
    assert paper.abs().max() < 1e-6 and "inaudible" in audio_problems(paper.numpy())[0]


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_triangles_are_the_mel_filters_of_transformers(scale):
    mel = replace(MelSpectrogram(), frequency_scale=scale, filter_norm=None)
    expected = mel_filter_bank(1025, 256, 0.0, 8000.0, 16000, norm=None, mel_scale=scale)
    wide = expected.sum(axis=0) > 2, slice(None)
    np.testing.assert_allclose(_mel_filters(mel).T[wide], expected.T[wide], atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", ["linear", "logarithmic"])
def test_rows_on_other_scales_are_centred_where_they_should_be(scale):
    mel = replace(MelSpectrogram(), frequency_scale=scale, min_frequency=50.0)
    filters = _mel_filters(mel)
    space = {"linear": np.linspace, "logarithmic": np.geomspace}[scale]
    assert filters.shape == (1025, 256) and (filters.sum(axis=0) > 0).all(), "no row is deaf"
    found = filters.argmax(axis=0) * 16000 / 2048
    np.testing.assert_allclose(found, space(50, 8000, 258)[1:-1], atol=16000 / 2048 / 2 + 0.05)


# Canvas to waveform, without a vocoder


def correlation(first, second):
    return float(np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1])


@pytest.mark.parametrize("bins", [256, 128])
@pytest.mark.parametrize("name", SOUNDS)
def test_griffin_lim_sounds_like_the_original(name, bins):
    mel = MelSpectrogram(num_mel_bins=bins)
    canvas = mel.audio_to_canvas(SOUNDS[name])[None]
    rebuilt = mel.canvas_to_audio(canvas)
    assert rebuilt.shape == (1, canvas.shape[-1] * 160) and rebuilt.dtype == torch.float32
    assert torch.isfinite(rebuilt).all() and rebuilt.abs().max() <= 1
    again = mel.log_mel_to_canvas(mel.audio_to_log_mel(rebuilt))
    assert correlation(again, canvas) > 0.9


@pytest.mark.parametrize("frames", [8, 9, 100])
def test_griffin_lim_makes_a_hop_per_frame(frames):
    mel = MelSpectrogram()
    log_mel = torch.rand(2, 256, frames, generator=torch.Generator().manual_seed(0)) - 4
    assert mel.griffin_lim(log_mel, num_iterations=2).shape == (2, frames * 160)


@pytest.mark.parametrize("onset", [0.3, 0.62])
def test_griffin_lim_is_aligned_in_time(onset):
    mel = MelSpectrogram()
    audio = noise() * (seconds(1.0) >= onset) * torch.exp(-(seconds(1.0) - onset).clamp(min=0) * 10)
    rebuilt = mel.griffin_lim(mel.audio_to_log_mel(audio)[None])[0]
    smooth = np.hanning(321) / np.hanning(321).sum()
    envelopes = [np.convolve(np.abs(each.numpy()), smooth, "same") for each in (audio, rebuilt)]
    lag = np.correlate(*(each - each.mean() for each in envelopes), "full").argmax() - (len(audio) - 1)
    assert abs(lag) <= 80


def test_griffin_lim_is_deterministic_and_leaves_the_global_generator_alone():
    mel = MelSpectrogram()
    log_mel = mel.audio_to_log_mel(chirp(0.3))[None]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = mel.griffin_lim(log_mel)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(mel.griffin_lim(log_mel), first)


def test_griffin_lim_of_a_sample_does_not_depend_on_the_batch():
    mel = MelSpectrogram()
    log_mels = mel.audio_to_log_mel(torch.stack([tone(440.0, 0.3), noise(0.3), chirp(0.3)]))
    batch = mel.griffin_lim(log_mels, num_iterations=10)
    for i in range(3):
        torch.testing.assert_close(
            batch[i], mel.griffin_lim(log_mels[i : i + 1], num_iterations=10)[0], atol=1e-3, rtol=0
        )


def test_griffin_lim_scales_down_what_is_too_loud():
    mel = MelSpectrogram()
    rebuilt = mel.griffin_lim(mel.audio_to_log_mel(noise(0.3))[None] + 4, num_iterations=5)
    assert float(rebuilt.abs().max()) == pytest.approx(1.0)


# Long sounds, in pieces


@pytest.fixture
def short_pieces(monkeypatch):
    """Sounds of seconds are long enough for several pieces."""

    def in_pieces(columns: int) -> None:
        monkeypatch.setattr(images_that_sound_spectrogram, "PIECE", columns)

    return in_pieces


@pytest.mark.parametrize("mel", SPECTROGRAMS.values(), ids=SPECTROGRAMS)
def test_long_sounds_are_drawn_in_pieces_as_in_one(mel, short_pieces):
    audio = 0.2 * torch.randn(2, mel.sampling_rate, generator=torch.Generator().manual_seed(0))
    whole = mel.audio_to_log_mel(audio)
    short_pieces(37)
    torch.testing.assert_close(mel.audio_to_log_mel(audio), whole, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_vocoder_plays_in_pieces_as_in_one(pipe, short_pieces):
    vocoder, canvas = pipe.vocoder.double(), torch.rand(2, 1, 256, 150, generator=torch.Generator().manual_seed(0))
    whole = MelSpectrogram().canvas_to_audio(canvas, vocoder)
    short_pieces(64)
    torch.testing.assert_close(MelSpectrogram().canvas_to_audio(canvas, vocoder), whole, atol=1e-7, rtol=0)


@pytest.mark.parametrize("mel", SPECTROGRAMS.values(), ids=SPECTROGRAMS)
def test_griffin_lim_goes_on_from_piece_to_piece(mel, short_pieces):
    """The sound in pieces is as near to its spectrogram as that in one, and no piece begins with a jump."""
    time = torch.arange(3 * mel.sampling_rate) / mel.sampling_rate
    audio = 0.4 * torch.sin(2 * math.pi * (400 + 100 * time) * time)[None]
    log_mel = mel.audio_to_log_mel(audio)
    goal = log_mel.exp()

    def error(sound: torch.Tensor) -> float:
        found = mel.audio_to_log_mel(sound).exp()
        found *= (found * goal).sum() / found.square().sum()
        return float((found - goal).norm() / goal.norm())

    whole = mel.griffin_lim(log_mel, 20)
    short_pieces(100)
    pieces = mel.griffin_lim(log_mel, 20)
    assert pieces.shape == whole.shape and error(pieces) < 1.2 * error(whole)
    jumps = pieces.diff().abs()[0] / pieces.diff().abs().max()
    # A tone that began anew at any phase would jump by twice its height.
    assert max(jumps[k * 100 * mel.hop_length :][: mel.hop_length].max() for k in (1, 2)) < 1


# What is wrong with a sound


def test_a_good_sound_has_no_problems():
    assert audio_problems(tone(440.0).numpy()) == []
    one_peak = tone(440.0).numpy().copy()
    one_peak[100] = 1.0
    assert audio_problems(one_peak) == []


def test_what_was_dimmed_as_a_whole_is_no_silence():
    """As imprint dims a canvas: a peak of some thousandths, far above the noise of an empty canvas."""
    mel = MelSpectrogram()
    empty = mel.canvas_to_audio(torch.zeros(1, 1, 256, 100))[0].numpy()
    dimmed = mel.canvas_to_audio(0.6 * mel.audio_to_canvas(tone(440.0)[None]))[0].numpy()
    assert np.abs(empty).max() < 1e-4 < 1e-3 < np.abs(dimmed).max() < 1e-2
    assert "inaudible" in audio_problems(empty)[0] and audio_problems(dimmed) == []


@pytest.mark.parametrize(
    "audio, said",
    [
        (np.zeros(1000, np.float32), "inaudible"),
        (np.zeros(0, np.float32), "inaudible"),
        (0.0003 * tone(440.0).numpy(), "inaudible"),
        (np.clip(3 * tone(440.0).numpy(), -1, 1), "clipped"),
        (np.array([0.1, np.nan, 0.2], np.float32), "not finite"),
        (np.array([0.1, -np.inf, 0.2], np.float32), "not finite"),
    ],
)
def test_a_bad_sound_is_described(audio, said):
    problems = audio_problems(audio)
    assert len(problems) == 1 and said in problems[0]
    assert audio_remarks(audio, MelSpectrogram()) == [] or said == "clipped"


def test_noise_is_remarked_on():
    white = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    for audio in (white, 0.05 * white, MelSpectrogram().canvas_to_audio(torch.full((1, 1, 256, 100), 0.6))[0].numpy()):
        (remark,) = audio_remarks(audio, MelSpectrogram())
        assert float(remark.split()[-1].rstrip(")")) == pytest.approx(0.98, abs=0.02)
    # Falls by 6 dB an octave, as waves and wind do.
    brown = scipy.signal.lfilter([0.1], [1, -0.99], white)
    for audio in (brown, tone(440.0).numpy(), np.ones(16000, np.float32)):
        assert audio_remarks(audio, MelSpectrogram()) == []
    up_to_10_khz = scipy.signal.resample_poly(white, 44100, 20000)
    assert "noise" in audio_remarks(up_to_10_khz, SPECTROGRAMS["riffusion"])[0], "it draws no higher"


# Auffusion's files


def test_auffusions_bin_weights_load(auffusion_folder, stable_diffusion_folder, tmp_path, pipe):
    folder = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        source = folder / part / f"{name}.safetensors"
        torch.save(load_file(source), folder / part / ("pytorch_model.bin" if name == "model" else f"{name}.bin"))
        source.unlink()
    loaded = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    loaded.load_audio_prior(folder)
    for name in ("unet_audio", "vae_audio", "text_encoder_audio", "vocoder"):
        expected, state = getattr(pipe, name).state_dict(), getattr(loaded, name).state_dict()
        assert expected.keys() == state.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_the_audio_side_loads_from_a_subfolder(auffusion_folder, stable_diffusion_folder):
    loaded = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    loaded.load_audio_prior(auffusion_folder.parent, subfolder=auffusion_folder.name)
    assert loaded.unet_audio is not None and loaded.vocoder.dtype == torch.float32


def test_a_vocoder_in_transformers_layout_loads(auffusion_folder, stable_diffusion_folder, tmp_path, pipe):
    folder = shutil.copytree(auffusion_folder, tmp_path / "auffusion")
    shutil.rmtree(folder / "vocoder")
    pipe.vocoder.save_pretrained(folder / "vocoder")
    loaded = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    loaded.load_audio_prior(folder)
    canvas = torch.rand(1, 1, 256, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sounds = [each.mel_spectrogram.canvas_to_audio(canvas, each.vocoder) for each in (pipe, loaded)]
    assert torch.equal(*sounds)
