"""Pictures hidden in waveforms, seen again by SciPy's spectrogram."""

import numpy as np
import PIL.Image
import pytest
import scipy.signal

from images_that_sound.pipelines.images_that_sound_hiding import HiddenPicture, hide_pictures


RATE = 22050
PLACE = {"sampling_rate": RATE, "start_in_s": 0.5, "end_in_s": 2.5, "min_frequency": 4000, "max_frequency": 9000}


def ring(side: int = 96) -> np.ndarray:
    """A ring with a bar at its lower left, so that which side is up is seen."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    ring = np.abs(np.hypot(rows, columns) - 0.32) < 0.07
    return (ring | ((rows > 0.35) & (columns < -0.1))).astype(np.float32)


def song(kind: str) -> np.ndarray:
    numbers, time = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    if kind == "noise":
        return 0.1 * numbers.standard_normal(len(time))
    if kind == "beats":
        return 0.3 * numbers.standard_normal(len(time)) * np.exp(-20 * (time % 0.25))
    if kind == "tone":
        return 0.5 * np.sin(2 * np.pi * 440 * time)
    return np.zeros(len(time))


def seen(audio: np.ndarray, picture: np.ndarray, low: float = 4000, high: float = 9000) -> float:
    """Correlation of a picture and the spectrogram of the span in decibels, by another window than the hiding one."""
    part = audio[round(0.5 * RATE) : round(2.5 * RATE)]
    frequencies, _, magnitude = scipy.signal.spectrogram(part, RATE, "blackmanharris", 1024, 768, mode="magnitude")
    inside = magnitude[(frequencies >= low) & (frequencies <= high)]
    decibels = 20 * np.log10(inside.clip(1e-9))
    size = decibels.shape[::-1]
    wanted = np.asarray(PIL.Image.fromarray(picture).resize(size, PIL.Image.Resampling.BOX))
    return float(np.corrcoef(decibels.clip(decibels.max() - 70).ravel(), wanted[::-1].ravel())[0, 1])


@pytest.mark.parametrize("kind", ["noise", "beats", "tone", "silence"])
def test_a_picture_is_seen_whatever_the_sound_is(kind):
    hidden = hide_pictures(song(kind), [HiddenPicture(picture=ring(), **PLACE)])
    assert seen(hidden, ring()) > 0.85
    assert kind == "silence" or abs(seen(song(kind), ring())) < 0.2


def test_nothing_changes_outside_of_the_span_and_almost_nothing_outside_of_the_band():
    stereo = np.stack([song("noise"), song("beats")], axis=1)
    hidden = hide_pictures(stereo, [HiddenPicture(picture=ring(), **PLACE)])
    start, end = round(0.5 * RATE), round(2.5 * RATE)
    assert np.array_equal(hidden[:start], stereo[:start]) and np.array_equal(hidden[end:], stereo[end:])
    change = (hidden - stereo)[start:end].T
    frequencies, power = scipy.signal.welch(change, RATE, ("kaiser", 20), 4096, detrend=False)
    inside = power[:, (frequencies > 4000) & (frequencies < 9000)].mean(axis=1)
    outside = power[:, (frequencies < 3800) | (frequencies > 9200)].max(axis=1)
    assert (10 * np.log10(outside / inside) < -60).all()


def test_sound_keeps_its_phase_and_strength_says_how_much_is_left():
    audio = song("noise")
    band = scipy.signal.butter(8, [4500, 8500], "bandpass", fs=RATE, output="sos")
    white = np.ones((4, 4), np.float32)
    alike = []
    for strength in (0.0, 0.3, 0.6, 1.0):
        hidden = hide_pictures(audio, [HiddenPicture(picture=white, strength=strength, **PLACE)])
        pair = [scipy.signal.sosfiltfilt(band, each)[RATE : 2 * RATE] for each in (audio, hidden)]
        alike.append(float(np.corrcoef(*pair)[0, 1]))
    assert alike[0] == pytest.approx(1, abs=1e-12)
    assert alike == sorted(alike, reverse=True) and alike[-1] > 0.8


def test_dark_takes_away_and_bright_adds():
    audio = song("noise")
    sides = np.repeat(np.float32([[0, 1]]), 8, axis=0)
    hidden = hide_pictures(audio, [HiddenPicture(picture=sides, **PLACE)])
    band = scipy.signal.butter(8, [4500, 8500], "bandpass", fs=RATE, output="sos")
    power = [np.square(scipy.signal.sosfilt(band, each)) for each in (audio, hidden)]
    dark, bright = (slice(round(a * RATE), round(b * RATE)) for a, b in ((0.7, 1.3), (1.7, 2.3)))
    change = [10 * np.log10(power[1][side].mean() / power[0][side].mean()) for side in (dark, bright)]
    assert change[0] < -30 and 2 < change[1] < 10


@pytest.mark.parametrize("scale", ["linear", "logarithmic", "mel"])
def test_rows_are_on_the_scale_that_is_named(scale):
    """A line in the middle row sounds where the middle of the scale is."""
    line = np.zeros((65, 4), np.float32)
    line[31:34] = 1
    place = {**PLACE, "min_frequency": 1000, "max_frequency": 9000}
    hidden = hide_pictures(song("silence"), [HiddenPicture(picture=line, frequency_scale=scale, **place)])
    frequencies, power = scipy.signal.welch(hidden[RATE : 2 * RATE], RATE, nperseg=2048)
    middle = {"linear": 5000, "logarithmic": 3000, "mel": 700 * (np.sqrt((1 + 10 / 7) * (1 + 90 / 7)) - 1)}[scale]
    assert (frequencies * power).sum() / power.sum() == pytest.approx(middle, rel=0.03)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"picture": np.zeros((2, 2, 3))}, "`picture` has to have the shape"),
        ({"picture": np.full((2, 2), np.nan)}, "`picture` has to have the shape"),
        ({"strength": 1.1}, r"`strength` has to be in 0\.\.1, but is 1.1"),
        ({"end_in_s": 0.55}, "`end_in_s` has to be at least 0.09 s after `start_in_s`"),
        ({"start_in_s": float("nan")}, "`end_in_s` has to be at least"),
        ({"max_frequency": 12000}, r"have to rise within 0\.\.11025 Hz"),
        ({"max_frequency": 4100}, "`max_frequency` has to be at least 172 Hz above"),
        ({"frequency_scale": "bark"}, "`frequency_scale` has to be among"),
        ({"min_frequency": 0, "frequency_scale": "logarithmic"}, r"have to rise within 1\.\."),
        ({"end_in_s": 3.1}, r"`end_in_s` has to be in the 3.00 s of the sound, but is 3.1"),
    ],
)
def test_places_that_no_sound_has(changed, words):
    with pytest.raises(ValueError, match=words):
        hide_pictures(song("silence"), [HiddenPicture(**{"picture": ring(), **PLACE, **changed})])


def test_pictures_share_a_time_or_a_band_but_not_both():
    one, above = HiddenPicture(picture=ring(), **PLACE), {"min_frequency": 500, "max_frequency": 3500}
    both = hide_pictures(song("noise"), [one, HiddenPicture(picture=ring()[::-1], **{**PLACE, **above})])
    assert seen(both, ring()) > 0.85 and seen(both, ring()[::-1].copy(), 500, 3500) > 0.8
    with pytest.raises(ValueError, match="may not overlap, but those at 0.5 s and 1 s do"):
        hide_pictures(song("noise"), [one, HiddenPicture(picture=ring(), **{**PLACE, "start_in_s": 1})])
