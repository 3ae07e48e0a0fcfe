"""A seeded world of synthesised sounds: ten kinds, each drawn with widely varying events, voices, tone and background.

Every sound is a real waveform, and `describe_sound` puts it into words that are true of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.fft


SOUNDS: tuple[str, ...] = ("bell", "meow", "bark", "whistle", "growl", "birds", "race", "frog", "neigh", "waves")

BELL_PARTIALS = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 4.0, 5.4], dtype=np.float32)
CHORD_STEPS = np.array([1.0, 1.19, 1.26, 1.42, 1.5, 1.68, 1.89, 2.0, 2.38])
REFERENCE_LENGTH_IN_S = 5.12
PEAK = 0.95
SPEED_OF_SOUND_IN_M_PER_S = 343.0
TABLE_SIZE = 4096


class Voice(NamedTuple):
    """One bell, animal or engine; all but the pitch are its own traits in 0..1."""

    pitch_in_hz: float
    brightness: float
    sweep: float
    roughness: float
    tempo: float
    seed: int


class Kind(NamedTuple):
    """How the events of one kind of sound are made and spread; ranges are (lowest, highest)."""

    event: Callable[[np.random.Generator, Voice, int, int], np.ndarray]
    pitch_in_hz: tuple[float, float]
    duration_in_s: tuple[float, float]
    most_events: int
    most_voices: int
    may_overlap: bool = False
    renderings: int = 8


class Words(NamedTuple):
    """Names of one kind of sound: always, of one voice, of several voices, and by its events.

    The first name is the favourite; names of several voices start with a countable plural; no event, no counting.
    """

    neutral: tuple[str, ...]
    one: tuple[str, ...]
    several: tuple[str, ...]
    event: str
    events: str


def make_sound(
    sound: str,
    generator: np.random.Generator,
    length_in_s: float = REFERENCE_LENGTH_IN_S,
    sampling_rate: int = 16000,
) -> tuple[np.ndarray, dict]:
    """Draw one sound.

    Args:
        sound: one of `SOUNDS`.
        generator: the only source of randomness.
        length_in_s: length in seconds.
        sampling_rate: samples per second.

    Returns:
        The float32 waveform (N,), N = round(length_in_s * sampling_rate), with a peak of 0.95, and its attributes:
        `count` (events), `voices`, `pitch` ("high", "middle", "low"), `speed` ("fast", "moderate", "slow"),
        `background` ("silence", "faint", "wind", "hiss"), `distance` ("near", "far") and `echo` (bool).
    """
    if sound not in SOUNDS:
        raise ValueError(f"`sound` is {sound!r}, but must be one of {', '.join(map(repr, SOUNDS))}.")
    length = round(length_in_s * sampling_rate)
    events, attributes = _draw_events(_KINDS[sound], generator, length, sampling_rate)
    waveform, room = _place_in_room(events, generator, sampling_rate)
    return _normalize(waveform).astype(np.float32), attributes | room


def describe_sound(sound: str, attributes: dict, generator: np.random.Generator) -> str:
    """Word an English prompt that is true of a sound.

    Args:
        sound: one of `SOUNDS`.
        attributes: what `make_sound` returned with the waveform.
        generator: chooses the words.

    Returns:
        The prompt, such as "a dog barks three times in the distance".
    """
    words = _WORDS[sound]
    if words.events and attributes["count"] in _NUMBERS and generator.random() < 0.12:
        return _join(_count_events(words, attributes["count"]), _describe_room(attributes, generator))
    names = words.neutral + _name_voices(words, attributes["voices"], generator)
    base = names[0] if generator.random() < 0.35 else _choose(names, generator)
    if generator.random() < 0.3:
        return base
    return _join(base, _describe_tone(sound, attributes, generator), _describe_room(attributes, generator))


def _choose(choices: tuple[str, ...], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _name_voices(words: Words, voices: int, generator: np.random.Generator) -> tuple[str, ...]:
    if voices == 1:
        return words.one
    if generator.random() < 0.25:
        return tuple(f"{_NUMBERS[voices]} {name}" for name in words.several)
    return words.several


def _count_events(words: Words, count: int) -> str:
    return f"{_NUMBERS[count]} {words.event if count == 1 else words.events}"


def _describe_tone(sound: str, attributes: dict, generator: np.random.Generator) -> str:
    count, pitch, speed = attributes["count"], attributes["pitch"], attributes["speed"]
    phrases = [""]
    if sound not in ("waves", "birds") and attributes["voices"] == 1:
        phrases += [_TIMES[count]] if count in _TIMES else ["many times", "again and again"]
    if sound in ("bell", "meow", "bark", "frog", "birds") and count > 1:
        phrases += {"fast": ["fast", "quickly"], "slow": ["slowly"]}.get(speed, [])
    if sound not in ("waves", "growl"):
        phrases += {"high": ["at a high pitch"], "low": ["at a low pitch", "with a deep tone"]}.get(pitch, [])
    return _choose(tuple(phrases), generator)


def _describe_room(attributes: dict, generator: np.random.Generator) -> str:
    phrases = ["", *_BACKGROUNDS[attributes["background"]]]
    if attributes["distance"] == "far":
        phrases += ["far away", "in the distance"]
    if attributes["echo"]:
        phrases += ["with an echo", "echoing"]
    return _choose(tuple(phrases), generator)


def _draw_events(
    kind: Kind, generator: np.random.Generator, length: int, sampling_rate: int
) -> tuple[np.ndarray, dict]:
    most_events = max(1, round(kind.most_events * length / sampling_rate / REFERENCE_LENGTH_IN_S))
    count = round(most_events ** (generator.random() ** 0.45))
    voices = _draw_voices(kind, generator, count)
    durations = _draw_durations(kind, generator, count, count / most_events)
    waveform = np.zeros(length, dtype=np.float32)
    for index, voice in enumerate(voices):
        _scatter(waveform, kind, voice, durations[index :: len(voices)], generator, sampling_rate)
    speed = "fast" if count > 0.6 * most_events and count > 2 else "slow" if count < 0.35 * most_events else "moderate"
    return waveform, {"count": count, "voices": len(voices), "pitch": _name_pitch(kind, voices), "speed": speed}


def _draw_voices(kind: Kind, generator: np.random.Generator, count: int) -> list[Voice]:
    most_voices = min(count, kind.most_voices)
    number = 1 if generator.random() < 0.25 else int(generator.integers(1, most_voices + 1))
    lowest, highest = np.log2(kind.pitch_in_hz)
    center = generator.uniform(lowest, highest)
    pitches = 2.0 ** np.clip(center + generator.uniform(-0.35, 0.35, number), lowest, highest)
    return [Voice(float(pitch), *generator.random(4), int(generator.integers(2**31))) for pitch in pitches]


def _draw_durations(kind: Kind, generator: np.random.Generator, count: int, share: float) -> np.ndarray:
    shortest, longest = kind.duration_in_s
    bias = generator.uniform(0.2, 1.0) if share < 0.5 else generator.uniform(0.4, 1.6)
    return shortest + (longest - shortest) * generator.random(count) ** bias


def _name_pitch(kind: Kind, voices: list[Voice]) -> str:
    lowest, highest = np.log2(kind.pitch_in_hz)
    places = [(np.log2(voice.pitch_in_hz) - lowest) / (highest - lowest) for voice in voices]
    return "high" if min(places) > 0.6 else "low" if max(places) < 0.4 else "middle"


def _scatter(
    waveform: np.ndarray,
    kind: Kind,
    voice: Voice,
    durations_in_s: np.ndarray,
    generator: np.random.Generator,
    sampling_rate: int,
) -> None:
    """Add a voice's events to the waveform (N,), each in its own slot of time, early or late in it by chance."""
    lengths = np.maximum(durations_in_s * sampling_rate, 256)
    slots = 1 + generator.uniform(0, 1.5) * generator.random(len(lengths))
    slots *= len(waveform) / np.sum(slots)
    if not kind.may_overlap:
        lengths = np.minimum(lengths, np.maximum(0.95 * slots, kind.duration_in_s[0] * sampling_rate))
    room = 0.7 * slots if kind.may_overlap else np.maximum(slots - lengths, 0)
    lateness = generator.random(len(lengths)) ** generator.uniform(0.5, 2.0) * generator.uniform(0.2, 1.0)
    starts = (np.cumsum(slots) - slots + room * lateness).astype(int)
    loudness = 10.0 ** (generator.uniform(-1, 0, len(lengths)) * generator.uniform(0, 0.9))
    rendered = [kind.event(generator, voice, int(size), sampling_rate) for size in lengths[: kind.renderings]]
    for index, start in enumerate(starts):
        event = rendered[index % len(rendered)][: len(waveform) - start]
        waveform[start : start + len(event)] += np.float32(loudness[index]) * event


def _place_in_room(
    waveform: np.ndarray, generator: np.random.Generator, sampling_rate: int
) -> tuple[np.ndarray, dict]:
    far = generator.random() < 0.2
    echo = bool(far or generator.random() < 0.15)
    tilt_in_db_per_octave = generator.uniform(-7, -4) if far else generator.uniform(-4, 3)
    size = scipy.fft.next_fast_len(len(waveform) + sampling_rate * echo, real=True)
    spectrum = scipy.fft.rfft(waveform, size) * _tilt(size, tilt_in_db_per_octave, sampling_rate)
    if echo:
        spectrum *= scipy.fft.rfft(_draw_echo(generator, sampling_rate), size)
    placed = _normalize(scipy.fft.irfft(spectrum, size)[: len(waveform)])
    background, noise = _draw_background(generator, len(waveform), sampling_rate)
    room = {"background": background, "distance": "far" if far else "near", "echo": echo}
    return placed if noise is None else placed + noise, room


def _tilt(size: int, slope_in_db_per_octave: float, sampling_rate: int) -> np.ndarray:
    frequencies = sampling_rate / np.pi * np.sin(np.linspace(0, np.pi / 2, size // 2 + 1))
    return (((frequencies**2 + 1e4) / 1.01e6) ** (slope_in_db_per_octave / 12.04)).astype(np.float32)


def _draw_echo(generator: np.random.Generator, sampling_rate: int) -> np.ndarray:
    length = sampling_rate * 9 // 10
    decay_in_s = generator.uniform(0.04, 0.15)
    response = generator.standard_normal(length, dtype=np.float32) * _decay(length, decay_in_s, sampling_rate)
    response *= np.float32(generator.uniform(0.3, 0.8) / np.sqrt(np.sum(response**2)))
    response[0] = 1.0
    return response


def _draw_background(generator: np.random.Generator, length: int, sampling_rate: int) -> tuple[str, np.ndarray | None]:
    chance = generator.random()
    if chance < 0.55:
        return "silence", None
    windy = generator.random() < 0.5
    level_in_db = generator.uniform(-85, -60) if chance < 0.88 else generator.uniform(-46, -28)
    highest_in_hz = generator.uniform(300, 900) if windy else sampling_rate
    noise = _noise(generator, length, 0.0, highest_in_hz, sampling_rate, steepness=1.0)
    name = "faint" if chance < 0.88 else "wind" if windy else "hiss"
    return name, noise * np.float32(10 ** (level_in_db / 20))


def _normalize(waveform: np.ndarray) -> np.ndarray:
    return waveform * np.float32(PEAK / max(float(np.max(np.abs(waveform))), 1e-9))


def _decay(length: int, time_in_s: float, sampling_rate: int) -> np.ndarray:
    return np.exp(np.arange(length, dtype=np.float32) * np.float32(-1.0 / (time_in_s * sampling_rate)))


def _edges(length: int, rise: float, fall: float) -> np.ndarray:
    """An envelope (length,) in 0..1 that rises and falls smoothly over these shares of its length."""
    time = np.linspace(0, 1, length, dtype=np.float32)
    ramp = np.minimum(np.minimum(time / np.float32(rise), (1 - time) / np.float32(fall)), 1)
    return ramp * ramp * (3 - 2 * ramp)


def _wander(generator: np.random.Generator, length: int, knots_in_hz: float, sampling_rate: int) -> np.ndarray:
    """A slow random curve (length,) in 0..1 with this many knots per second."""
    knots = generator.random(int(length / sampling_rate * knots_in_hz) + 2)
    return np.interp(np.linspace(0, len(knots) - 1, length), np.arange(len(knots)), knots).astype(np.float32)


def _noise(
    generator: np.random.Generator,
    length: int,
    lowest_in_hz: float,
    highest_in_hz: float,
    sampling_rate: int,
    steepness: float = 4.0,
) -> np.ndarray:
    """Noise (length,) of unit root mean square, mostly within a band."""
    size = scipy.fft.next_fast_len(length, real=True)
    frequencies = np.linspace(1e-3, sampling_rate / 2, size // 2 + 1, dtype=np.float32)
    gain = 1 / (1 + (frequencies / np.float32(highest_in_hz)) ** steepness)
    if lowest_in_hz > 0:
        gain /= 1 + (np.float32(lowest_in_hz) / frequencies) ** 4
    parts = generator.standard_normal((len(frequencies), 2), dtype=np.float32)
    noise = scipy.fft.irfft(parts.view(np.complex64)[:, 0] * gain, size)[:length]
    return noise / np.sqrt(np.mean(noise**2) + 1e-20)


def _harmonics(
    pitch_in_hz: float, highest_pitch_in_hz: float, slope: float, formants: list, sampling_rate: int
) -> np.ndarray:
    """Strengths (harmonics,) falling as frequency to the power of `slope`, raised at formants (center, width)."""
    number = max(1, min(int(0.48 * sampling_rate / highest_pitch_in_hz), TABLE_SIZE // 4))
    frequencies = pitch_in_hz * np.arange(1, number + 1)
    raised = sum(np.exp(-0.5 * ((frequencies - center) / width) ** 2) for center, width in formants)
    return (frequencies / pitch_in_hz) ** slope * (0.05 + raised if formants else 1.0)


def _tone(contour_in_hz: np.ndarray, strengths: np.ndarray, sampling_rate: int, seed: int = 0) -> np.ndarray:
    """A tone (length,) of about unit peak that follows a pitch contour; a seed of 0 keeps its pulses sharp."""
    phases = np.random.default_rng(seed).random(len(strengths)) if seed else np.zeros(len(strengths))
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=complex)
    spectrum[1 : len(strengths) + 1] = strengths * np.exp(2j * np.pi * phases)
    table = scipy.fft.irfft(spectrum, TABLE_SIZE)
    table = np.append(table, table[0]).astype(np.float32) / np.float32(np.max(np.abs(table)))
    cycles = np.cumsum(contour_in_hz, dtype=np.float64) / sampling_rate
    position = ((cycles - np.floor(cycles)) * TABLE_SIZE).astype(np.float32)
    index = np.minimum(position.astype(np.int32), TABLE_SIZE - 1)
    start = table[index]
    return start + (position - index) * (table[index + 1] - start)


def _bell(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    time = np.arange(length, dtype=np.float32) / np.float32(sampling_rate)
    traits = np.random.default_rng(voice.seed)
    stroke = np.zeros(length, dtype=np.float32)
    for ratio in BELL_PARTIALS * traits.uniform(0.99, 1.01, len(BELL_PARTIALS)):
        frequency = ratio * voice.pitch_in_hz
        strength = traits.uniform(0.3, 1.0) * ratio ** (voice.brightness - 0.8)
        decay_in_s = traits.uniform(0.5, 1.5) * (0.15 + 0.9 * voice.tempo) / np.sqrt(ratio)
        if frequency < 0.48 * sampling_rate:
            wave = np.sin(np.float32(2 * np.pi * frequency) * time)
            stroke += np.float32(strength) * wave * _decay(length, decay_in_s, sampling_rate)
    click = _noise(generator, 256, 500, 7000, sampling_rate) * _decay(256, 0.003, sampling_rate)
    stroke[:256] += np.float32(0.3 * voice.roughness) * click
    return stroke * _edges(length, 1e-4, 0.1)


def _meow(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    time = np.linspace(0, 1, length, dtype=np.float32)
    summit = generator.uniform(0.25, 0.55)
    arch = np.where(time < summit, np.sin(np.pi / 2 * time / summit), np.cos(1.3 * (time - summit) / (1 - summit)))
    contour = voice.pitch_in_hz * (1 - (0.2 + 0.3 * voice.sweep) * (1 - arch))
    slope = -1.6 + 1.2 * voice.brightness
    closed = _harmonics(voice.pitch_in_hz, voice.pitch_in_hz, slope, [(700, 400), (2200, 500)], sampling_rate)
    opened = _harmonics(voice.pitch_in_hz, voice.pitch_in_hz, slope, [(1500, 700), (3600, 1200)], sampling_rate)
    mouth = arch**2
    voiced = (1 - mouth) * _tone(contour, closed, sampling_rate) + mouth * _tone(contour, opened, sampling_rate)
    breath = 0.01 * voice.roughness * _noise(generator, length, 1500, 6000, sampling_rate)
    return ((voiced + breath) * _edges(length, 0.2, 0.35)).astype(np.float32)


def _bark(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    time = np.linspace(0, 1, length, dtype=np.float32)
    hump = np.sin(np.pi * np.minimum(time * 1.6 + 0.25, 1))
    contour = voice.pitch_in_hz * (1 - (0.35 + 0.3 * voice.sweep) * time) * (0.8 + 0.35 * hump)
    formants = [(600 + 500 * voice.brightness, 350), (1600 + 1200 * voice.brightness, 700), (4200, 1200)]
    strengths = _harmonics(voice.pitch_in_hz, 1.2 * voice.pitch_in_hz, -0.5, formants, sampling_rate)
    voiced = _tone(contour, strengths, sampling_rate, voice.seed)
    harsh = _noise(generator, length, 300, 3000 + 4000 * voice.brightness, sampling_rate)
    burst = voiced + (0.08 + 0.2 * voice.roughness) * harsh
    return (burst * _edges(length, 0.08, 0.7)).astype(np.float32)


def _whistle(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    traits = np.random.default_rng(voice.seed)
    steps = np.sort(traits.choice(CHORD_STEPS, traits.integers(3, 6), replace=False))
    edges = _edges(length, 0.06, 0.08)
    bend = voice.pitch_in_hz * (0.94 + 0.06 * edges)
    blast = np.zeros(length, dtype=np.float32)
    for step in steps:
        pitch = voice.pitch_in_hz * step
        strengths = _harmonics(pitch, pitch, -2.2 + 1.4 * voice.brightness, [], sampling_rate)[:8]
        blast += np.float32(traits.uniform(0.5, 1)) * _tone(bend * step, strengths, sampling_rate, voice.seed)
    breath = _noise(generator, length, voice.pitch_in_hz, 5000 + 3000 * voice.brightness, sampling_rate)
    return (blast + np.float32(0.04 + 0.25 * voice.roughness) * breath) * edges


def _growl(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    flutter_in_hz = 9 + 9 * voice.tempo
    jitter = _wander(generator, length, 60, sampling_rate)
    contour = voice.pitch_in_hz * (0.8 + 0.2 * _wander(generator, length, 3, sampling_rate) + 0.3 * (jitter - 0.5))
    formants = [(250, 250), (700 + 500 * voice.brightness, 350), (1500 + 1000 * voice.brightness, 500)]
    strengths = _harmonics(voice.pitch_in_hz, 60, -0.3, formants, sampling_rate)
    rough = _noise(generator, length, 60, 1200 + 1500 * voice.brightness, sampling_rate, steepness=6.0)
    beat_in_hz = flutter_in_hz * (0.75 + 0.5 * _wander(generator, length, 4, sampling_rate))
    flutter = 0.5 + 0.5 * np.sin(2 * np.pi * np.cumsum(beat_in_hz) / sampling_rate).astype(np.float32)
    pulses = _tone(contour, strengths, sampling_rate) + np.float32(0.1 + 0.2 * voice.roughness) * rough
    swell = _edges(length, generator.uniform(0.3, 0.6), generator.uniform(0.25, 0.4))
    return (pulses * (0.04 + flutter**2) * swell).astype(np.float32)


def _birdsong(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    chirp_in_s = 0.05 + 0.13 * voice.tempo
    chirps = max(1, round(length / sampling_rate / chirp_in_s))
    place = np.linspace(0, chirps, length, endpoint=False) % 1.0
    slide = generator.choice([-1, 1]) * (0.15 + 0.5 * voice.sweep) * (place - 0.5)
    warble = 0.12 * voice.roughness * np.sin(2 * np.pi * (1 + round(2 * voice.brightness)) * place)
    contour = voice.pitch_in_hz * generator.uniform(0.85, 1.15) * (1 + slide + warble)
    overtone = 0.01 + 0.06 * voice.brightness if voice.pitch_in_hz < 0.15 * sampling_rate else 0.0
    gate = np.sin(np.pi * np.minimum(place / 0.8, 1)) ** 2
    song = _tone(np.clip(contour, 1500, 0.46 * sampling_rate), np.array([1.0, overtone]), sampling_rate)
    return (song * gate).astype(np.float32)


def _race(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    time = np.arange(length, dtype=np.float32) / sampling_rate - generator.uniform(0.25, 0.6) * length / sampling_rate
    speed, nearest = 30 + 60 * voice.tempo, generator.uniform(8, 30)
    distance = np.sqrt((speed * time) ** 2 + nearest**2)
    contour = voice.pitch_in_hz / (1 + speed**2 * time / distance / SPEED_OF_SOUND_IN_M_PER_S)
    texture = np.random.default_rng(voice.seed).uniform(0.15, 1, 4 * TABLE_SIZE)
    strengths = _harmonics(
        voice.pitch_in_hz, 1.4 * voice.pitch_in_hz, -1.2 + 0.9 * voice.brightness, [], sampling_rate
    )
    engine = _tone(contour, strengths * texture[: len(strengths)], sampling_rate, voice.seed)
    wind = _noise(generator, length, 100, 1500 + 4000 * voice.brightness, sampling_rate, steepness=2.0)
    closeness = (nearest / distance).astype(np.float32)
    roar = closeness * engine + np.float32(0.02 + 0.1 * voice.roughness) * closeness**2 * wind
    return (roar * _edges(length, 0.15, 0.2)).astype(np.float32)


def _frog(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    pulses_in_hz = (20 + 25 * voice.tempo**2) * np.linspace(1.0, 0.8 + 0.5 * voice.sweep, length)
    first = voice.pitch_in_hz
    formants = [(first, 60 + 0.1 * first), (first * (2.2 + voice.brightness), 100 + 0.15 * first)]
    frequencies = pulses_in_hz[0] * np.arange(1, TABLE_SIZE // 4)
    strengths = sum(
        strength / (1 + np.abs((frequencies - center) / width) ** 3)
        for strength, (center, width) in zip((1, 0.2 + 0.6 * voice.roughness), formants, strict=True)
    )
    strengths = strengths[frequencies < 0.4 * sampling_rate]
    return (_tone(pulses_in_hz, strengths, sampling_rate) * _edges(length, 0.3, 0.2)).astype(np.float32)


def _neigh(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    time = np.linspace(0, 1, length, dtype=np.float32)
    quiver_in_hz = 8 + 6 * voice.tempo
    quiver = np.sin(np.float32(2 * np.pi * quiver_in_hz * length / sampling_rate) * time)
    fall = 1 - (0.25 + 0.3 * voice.sweep) * time**1.5
    contour = voice.pitch_in_hz * fall * (1 + generator.uniform(0.07, 0.14) * quiver)
    formants = [(1200, 600), (2600 + 800 * voice.brightness, 900), (5000, 1200)]
    strengths = _harmonics(voice.pitch_in_hz, 1.1 * voice.pitch_in_hz, -0.7, formants, sampling_rate)
    rough = _noise(generator, length, 600, 3000 + 3000 * voice.brightness, sampling_rate)
    whinny = _tone(contour, strengths, sampling_rate, voice.seed) + (0.02 + 0.08 * voice.roughness) * rough
    return (whinny * (0.55 + 0.45 * quiver) * _edges(length, 0.1, 0.5)).astype(np.float32)


def _wave(generator: np.random.Generator, voice: Voice, length: int, sampling_rate: int) -> np.ndarray:
    crest = generator.uniform(0.25, 0.6)
    swell = _edges(length, crest, 1 - crest)
    deep = _noise(generator, length, 40, voice.pitch_in_hz, sampling_rate, steepness=3.0)
    spray = _noise(generator, length, 1000, 3000 + 5000 * voice.brightness, sampling_rate, steepness=3.0)
    foam = 0.2 + 0.8 * _wander(generator, length, 12, sampling_rate)
    return swell**1.2 * deep + np.float32(0.1 + 0.5 * voice.roughness) * swell**4 * foam * spray


_KINDS = {
    "bell": Kind(_bell, (250, 1400), (1.5, 4.5), 10, 4, may_overlap=True, renderings=1),
    "meow": Kind(_meow, (400, 900), (0.35, 1.3), 8, 3),
    "bark": Kind(_bark, (220, 700), (0.12, 0.28), 16, 3),
    "whistle": Kind(_whistle, (260, 800), (0.4, 2.2), 6, 2, renderings=2),
    "growl": Kind(_growl, (40, 90), (0.8, 3.0), 5, 2, renderings=2),
    "birds": Kind(_birdsong, (2200, 5200), (0.06, 1.0), 24, 4),
    "race": Kind(_race, (80, 250), (2.0, 5.1), 4, 2, renderings=1),
    "frog": Kind(_frog, (300, 1300), (0.15, 0.6), 16, 4),
    "neigh": Kind(_neigh, (700, 1500), (0.7, 1.8), 5, 3),
    "waves": Kind(_wave, (300, 1500), (1.2, 3.6), 7, 1, may_overlap=True, renderings=2),
}

_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times", 5: "five times", 6: "six times"}
_BACKGROUNDS = {
    "silence": ("in silence", "in a quiet place", "without any noise"),
    "faint": ("with faint noise", "with a little background noise"),
    "wind": ("with wind noise", "in a noisy place", "on a windy day", "with background noise"),
    "hiss": ("with hiss", "in a noisy place", "with background noise", "on a noisy recording"),
}
_WORDS = {
    "bell": Words(
        ("bell ringing", "bell sounds", "ringing of bells", "tolling"),
        ("a bell ringing", "a church bell ringing", "a bell tolls", "a bell rings", "a bell is struck"),
        ("bells ringing", "church bells ringing", "bells tolling", "bells chime", "ringing bells"),
        "stroke of a bell",
        "bell strokes",
    ),
    "meow": Words(
        (),
        ("a kitten meowing for attention", "a cat mewing", "a kitten mews", "a cat meows", "a kitten meowing"),
        ("kittens meowing for attention", "cats mewing", "kittens mew", "cats meowing", "kittens meowing"),
        "meow of a cat",
        "meows",
    ),
    "bark": Words(
        ("dog barking", "barking", "dog barks"),
        ("a dog barking", "a dog barks", "a puppy barks", "a puppy barking", "a hound barking"),
        ("dogs barking", "barking dogs", "puppies bark", "dogs bark", "hounds barking"),
        "bark of a dog",
        "barks",
    ),
    "whistle": Words(
        ("train whistling", "train whistle", "steam train whistle", "locomotive whistle"),
        ("a train whistling", "a steam train whistles", "a locomotive blows its whistle", "a train horn"),
        ("trains whistling", "steam trains whistle", "train whistles", "locomotives whistling"),
        "blast of a train whistle",
        "train whistle blasts",
    ),
    "growl": Words(
        ("tiger growling", "growling", "tiger growl", "deep growling of a big cat"),
        ("a tiger growls", "a tiger growling", "a tiger snarls", "a big cat growling"),
        ("tigers growling", "tigers growl", "growling tigers", "big cats growling"),
        "growl of a tiger",
        "tiger growls",
    ),
    "birds": Words(
        (),
        ("bird singing sweetly", "a bird singing", "a bird chirps", "bird song", "a songbird", "birdsong"),
        ("birds singing sweetly", "chirping birds", "birds chirping", "birds singing", "songbirds", "birds twitter"),
        "bird call",
        "bird calls",
    ),
    "race": Words(
        (),
        (
            "a race car passing by and disappearing",
            "a racing car passing by",
            "a race car drives past",
            "a racing engine roars past",
        ),
        ("race cars passing by and disappearing", "racing cars passing by", "race cars drive past", "speeding cars"),
        "pass of a race car",
        "race car passes",
    ),
    "frog": Words(
        ("frog croaking", "croaking", "frog sounds"),
        ("a frog croaking", "a frog croaks", "a toad croaking", "a frog croaking by a pond"),
        ("frogs croaking", "frogs croaking in the night", "frogs croak", "croaking toads", "frogs in a pond"),
        "croak of a frog",
        "frog croaks",
    ),
    "neigh": Words(
        ("horse neighing", "neighing", "horse whinny"),
        ("a horse neighs", "a horse neighing", "a horse whinnies", "a pony neighing", "a stallion neighs"),
        ("horses neighing", "horses neigh", "neighing horses", "ponies whinnying"),
        "neigh of a horse",
        "neighs",
    ),
    "waves": Words(
        ("ocean waves", "waves on the shore", "the sea", "surf on a beach", "waves breaking", "sea waves rolling in"),
        ("the sound of the ocean", "waves crash on the beach"),
        (),
        "",
        "",
    ),
}
