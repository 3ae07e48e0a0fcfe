"""
Sounds of the open world: instruments that play notes, chords, scales and melodies, drums, effects, recordings and
speech, and the synthesised sounds of the drawn world. Each sound has a few fixed variants and prompts that fit them.
"""

import zlib
from typing import NamedTuple

import numpy as np

from ..world import sounds as synthesised_world
from .material import EFFECT_KEYS, SAMPLING_RATE, load
from .vocabulary import SENTENCES, SOUNDS, article, one_and_many


LENGTH_IN_S = 2.56
VARIANTS = 6
# Figure, pitch and speed of an instrument's variants.
MUSIC = (
    ("note", "middle", "slow"),
    ("melody", "middle", "moderate"),
    ("chords", "low", "slow"),
    ("note", "high", "slow"),
    ("rising scale", "middle", "fast"),
    ("notes", "low", "moderate"),
)
# Speed of the variants of drums and other short sounds.
RHYTHMS = ("once", "moderate", "fast", "slow", "moderate", "fast")
FIGURES = tuple(dict.fromkeys(figure for figure, _, _ in MUSIC))
# Seconds from one note to the next.
SPEEDS = {"slow": (0.75, 1.0), "moderate": (0.38, 0.52), "fast": (0.17, 0.24)}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "pentatonic": (0, 2, 4, 7, 9)}
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 5, 9), (0, 3, 8))
# Hits of each part of a drum kit (General MIDI keys) in the sixteen steps of a bar.
BEATS = (
    {36: (0, 8), 38: (4, 12), 42: range(0, 16, 2)},
    {36: (0, 6, 8), 38: (4, 12), 42: range(0, 16, 2), 46: (14,)},
    {36: (0, 4, 8, 12), 38: (4, 12), 42: (2, 6, 10, 14)},
    {36: (0, 10), 38: (4, 7, 9, 12), 42: range(16)},
    {36: (0, 8), 41: (3, 6, 11), 47: (5, 13), 49: (0,)},
)
PEAK, START_IN_S, FADE_IN_S = 0.95, 0.05, 0.06


class Event(NamedTuple):
    """One waveform and the second at which it begins."""

    start_in_s: float
    audio: np.ndarray


def make_sound(name: str, variant: int, length_in_s: float = LENGTH_IN_S) -> tuple[np.ndarray, dict]:
    """
    Makes a sound.

    Args:
        name (`str`): One of the vocabulary's sounds.
        variant (`int`): Its number. The first `VARIANTS` are what the checkpoint learns; any other is fresh.
        length_in_s (`float`): Seconds.

    Returns:
        `tuple[np.ndarray, dict]`: Waveform `(N,)` as float32 at 16 kHz with a peak of 0.95, faded out at its end, and
        what is true of it: `synthesised` (and the synthesised world's attributes), or `figure`, `pitch` and `speed` if
        they mean something.
    """
    generator = np.random.default_rng([zlib.crc32(name.encode()), variant])
    entry = SOUNDS[name]
    if entry.get("synthesised"):
        audio, attributes = synthesised_world.make_sound(name, generator, length_in_s, SAMPLING_RATE)
        attributes = {"synthesised": name, **attributes}
    else:
        make = next(make for key, make in MAKERS.items() if key in entry)
        events, attributes = make(entry, generator, length_in_s, variant % VARIANTS)
        audio = _mix(events, round(length_in_s * SAMPLING_RATE))
    fade = round(FADE_IN_S * SAMPLING_RATE)
    audio[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return (audio * (PEAK / max(np.abs(audio).max(), 1e-4))).astype(np.float32), attributes


def _pick(generator: np.random.Generator, choices: list | tuple, chances: list | tuple | None = None) -> object:
    if chances is None:
        return choices[int(generator.integers(len(choices)))]
    edges = np.cumsum(chances)
    return choices[min(int(np.searchsorted(edges, generator.random() * edges[-1], "right")), len(choices) - 1)]


def _mix(events: list[Event], length: int) -> np.ndarray:
    audio = np.zeros(length, np.float32)
    for start_in_s, sound in events:
        start = round(start_in_s * SAMPLING_RATE)
        sound = sound[: max(0, length - start)]
        audio[start : start + len(sound)] += sound
    return audio


def _waveform(key: str) -> np.ndarray:
    return load("sounds")[key].astype(np.float32) / 32768


def _faster(audio: np.ndarray, factor: float) -> np.ndarray:
    """Played faster and so higher by `factor`, by linear interpolation."""
    places = np.arange(0, len(audio) - 1, factor)
    return np.interp(places, np.arange(len(audio)), audio).astype(np.float32)


def _faded(audio: np.ndarray, length_in_s: float, fade_in_s: float = 0.08) -> np.ndarray:
    """Cut to a length and faded out after it."""
    length, fade = round(length_in_s * SAMPLING_RATE), round(fade_in_s * SAMPLING_RATE)
    audio = audio[: length + fade].copy()
    if len(audio) > length:
        audio[length:] *= np.linspace(1, 0, len(audio) - length, dtype=np.float32)
    return audio


# -------------------- Instruments --------------------


def _note(program: int, key: int, keys: list[int], length_in_s: float) -> np.ndarray:
    nearest = min(keys, key=lambda each: abs(each - key))
    return _faded(_faster(_waveform(f"note/{program}/{nearest}"), 2 ** ((key - nearest) / 12)), length_in_s)


def _play(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    program = _pick(generator, entry["programs"])
    low, high = entry["keys"]
    rendered = list(range(low, high + 1, 4))
    figure, pitch, speed = MUSIC[variant]
    share = {"low": (0.05, 0.3), "middle": (0.4, 0.6), "high": (0.7, 0.95)}[pitch]
    home = round(low + (high - low) * generator.uniform(*share))
    step = generator.uniform(*SPEEDS[speed])
    chords = [(offset,) for offset in _offsets(figure, generator, length_in_s, step)]
    if figure == "chords":
        chords = [tuple(root + each for each in _pick(generator, CHORDS)) for (root,) in chords]
    held = generator.uniform(1.6, 2.2) if figure == "note" else step * generator.uniform(0.8, 1.0)
    events = [
        Event(START_IN_S + i * step, _note(program, int(np.clip(home + offset, low, high)), rendered, held))
        for i, chord in enumerate(chords)
        for offset in chord
    ]
    return events, {"figure": figure, "pitch": pitch, "speed": speed}


def _offsets(figure: str, generator: np.random.Generator, length_in_s: float, step: float) -> list[int]:
    """Semitones of a line of notes from its home note."""
    count = 1 if figure == "note" else max(2, int((length_in_s - 0.1) / step))
    scale = _pick(generator, list(SCALES.values()))
    if figure in ("note", "notes"):
        return [0] * count
    if figure == "rising scale":
        degrees = np.arange(count) - count // 2
    else:
        jumps = generator.choice([-3, -2, -1, -1, 1, 1, 2, 3], count)
        degrees = np.cumsum(jumps) - jumps[0]
        degrees = 5 - np.abs((degrees + 5) % 20 - 10)
    return [12 * int(degree // len(scale)) + scale[int(degree % len(scale))] for degree in degrees]


# -------------------- Drums, effects, recordings, speech --------------------


def _repeated(
    audio: np.ndarray, generator: np.random.Generator, length_in_s: float, variant: int
) -> tuple[list[Event], dict]:
    """A short sound once, or again and again at some speed."""
    speed = RHYTHMS[variant]
    if speed == "once":
        return [Event(START_IN_S, audio)], {"speed": speed}
    step = generator.uniform(*SPEEDS[speed])
    times = np.arange(START_IN_S, length_in_s - 0.1, step)
    return [Event(time, _faded(audio, max(step, 0.3))) for time in times], {"speed": speed}


def _hit(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    audio = _waveform(f"hit/{_pick(generator, entry['hits'])}")
    return _repeated(_faster(audio, generator.uniform(0.88, 1.14)), generator, length_in_s, variant)


def _beat(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    speed = list(SPEEDS)[variant % 3]
    step = {"slow": 0.19, "moderate": 0.13, "fast": 0.085}[speed] * generator.uniform(0.9, 1.1)
    parts = BEATS[variant % len(BEATS)]
    sounds = {key: _faster(_waveform(f"hit/{key}"), generator.uniform(0.94, 1.06)) for key in parts}
    events = [
        Event(START_IN_S + i * step, sounds[key])
        for i in range(int(length_in_s / step))
        for key in parts
        if i % 16 in parts[key]
    ]
    return events, {"speed": speed}


def _effect(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    audio = _waveform(f"note/{_pick(generator, entry['effects'])}/{_pick(generator, EFFECT_KEYS)}")
    audio = _faster(audio, generator.uniform(0.88, 1.14))
    if variant == 0:
        return [Event(START_IN_S, audio)], {"speed": "once"}
    step = min(len(audio) / SAMPLING_RATE, generator.uniform(0.7, 2.4))
    return [Event(time, _faded(audio, step, 0.1)) for time in np.arange(START_IN_S, length_in_s, step)], {}


def _sample(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    name = entry["samples"][variant % len(entry["samples"])]
    audio = _faster(_waveform(f"sample/{name}"), generator.uniform(0.85, 1.18))
    if len(audio) > 1.5 * SAMPLING_RATE:
        surplus = len(audio) - round(length_in_s * SAMPLING_RATE)
        start = int(generator.integers(surplus)) if surplus > 0 and variant else 0
        times = np.arange(0.0, length_in_s, len(audio) / SAMPLING_RATE)
        return [Event(time, audio[start if not i else 0 :]) for i, time in enumerate(times)], {}
    return _repeated(audio, generator, length_in_s, variant)


def _speech(entry: dict, generator: np.random.Generator, length_in_s: float, variant: int) -> tuple[list[Event], dict]:
    voice, time, events = entry["voices"][variant % len(entry["voices"])], START_IN_S, []
    factor = generator.uniform(0.9, 1.1)
    while time < length_in_s - 0.5:
        sentence = int(generator.integers(len(SENTENCES)))
        events.append(Event(time, _faster(_waveform(f"speech/{voice}/{sentence}"), factor)))
        time += len(events[-1].audio) / SAMPLING_RATE + generator.uniform(0.1, 0.4)
    return events, {}


MAKERS = {
    "programs": _play,
    "hits": _hit,
    "beat": _beat,
    "effects": _effect,
    "samples": _sample,
    "voices": _speech,
}


# -------------------- Words --------------------


def describe_sound(name: str, attributes: dict, generator: np.random.Generator) -> str:
    """A prompt that is true of a sound with these `attributes`, worded anew at every call."""
    if "synthesised" in attributes:
        return synthesised_world.describe_sound(attributes["synthesised"], attributes, generator)
    words = SOUNDS[name]["words"]
    word = words[0] if generator.random() < 0.45 else _pick(generator, words)
    if "figure" in attributes:
        return _music(one_and_many(word)[0], attributes, generator)
    endings = {
        "once": ("", " once", ", a single time"),
        "slow": ("", " slowly", ", slow"),
        "fast": ("", " fast", " quickly", ", fast"),
        "moderate": ("", " again and again", " repeatedly"),
    }.get(attributes.get("speed"), ("",))
    return _pick(generator, ("", "", "the sound of ")) + word + (_pick(generator, endings))


def _music(word: str, attributes: dict, generator: np.random.Generator) -> str:
    """ "a slow melody on a violin", "violin", "high flute notes", "a rising scale on the piano"."""
    if generator.random() < 0.25:
        return _pick(
            generator, (word, f"{word} playing", f"the sound of {article(word)}", f"{word} music", f"solo {word}")
        )
    figure, pitch, speed = attributes["figure"], attributes["pitch"], attributes["speed"]
    adjectives = []
    if figure != "note" and speed != "moderate" and generator.random() < 0.55:
        adjectives.append(_pick(generator, {"slow": ("slow",), "fast": ("fast", "quick")}[speed]))
    if pitch != "middle" and generator.random() < 0.5:
        adjectives.append(_pick(generator, {"high": ("high", "bright"), "low": ("low", "deep")}[pitch]))
    nouns = {
        "note": ("note", "single note", "long note"),
        "notes": ("notes", "repeated notes"),
        "melody": ("melody", "tune", "phrase", "solo"),
        "rising scale": ("rising scale", "scale going up"),
        "chords": ("chords", "harmonies"),
    }[figure]
    noun = " ".join([*adjectives, _pick(generator, nouns)])
    if generator.random() < 0.35:
        return (
            f"{word} {noun}"
            if not adjectives
            else f"{' '.join(adjectives)} {word} {noun.split(' ', len(adjectives))[-1]}"
        )
    noun = noun if figure in ("notes", "chords") else article(noun)
    instrument = _pick(generator, (article(word), f"the {word}"))
    return f"{noun} {_pick(generator, ('on', 'on', 'played on', 'by'))} {instrument}"
