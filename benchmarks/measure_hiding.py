"""
How well pictures are seen in sounds that they are hidden in, and how much of the sounds changes: 20 pictures in five
sounds of eight seconds, between 6 and 14 kHz. The pictures are ten words and shapes, and ten photographs of
scikit-image, their contrast stretched as by the command; drums, tones, noise and the mixture of drums, tones and
speech are made from a seed, the speech by espeak-ng. A picture's correlation is that of its gray values and of the
decibels of the spectrogram in its place, drawn by SciPy with another window than the hiding one.

    python -m benchmarks.measure_hiding
    python -m benchmarks.measure_hiding --strengths 0.8 --codec mp3 --kilobits 192   # as a platform keeps it
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
import scipy.signal
import skimage.data
import soundfile

from images_that_sound.pipelines.images_that_sound_hiding import HiddenPicture, hide_pictures
from images_that_sound.scripts.hide import CUT_OFF


RATE, SECONDS = 44100, 8
PLACE = {"start_in_s": 1, "end_in_s": 7, "min_frequency": 6000, "max_frequency": 14000}
WORDS = ("HELLO", "Bell", "cat", "2026", "love")
PHOTOS = ("astronaut", "camera", "coffee", "chelsea", "page", "text", "rocket", "clock", "coins", "moon")
SPEECH = "The quick brown fox jumps over the lazy dog, and then it sleeps beside the river, where nobody looks for it."
CODECS = {"mp3": ("libmp3lame", "mp3"), "aac": ("aac", "mp4")}
# Decibels below the loudest that count as black, as in many viewers.
RANGE = 70


def pictures() -> dict[str, np.ndarray]:
    """Gray values `(H, W)` in 0..1 by name."""
    found = {}
    for word in WORDS:
        sheet = PIL.Image.new("L", (420, 150))
        pen = PIL.ImageDraw.Draw(sheet)
        pen.text((210, 75), word, font=PIL.ImageFont.load_default(110), fill=255, anchor="mm")
        found[word] = np.asarray(sheet)
    rows, columns = np.mgrid[:200, :200] - 100
    radius = np.hypot(rows, columns)
    found["ring"] = np.abs(radius - 70) < 12
    found["cross"] = (np.abs(rows - columns) < 14) | (np.abs(rows + columns) < 14)
    found["stripes"] = (rows // 20) % 2 == 0
    found["checks"] = (rows // 40 + columns // 40) % 2 == 0
    found["disc"] = np.clip(1.2 - radius / 80, 0, 1)
    drawn = {name: np.float32(each / each.max()) for name, each in found.items()}
    return drawn | {name: photo(name) for name in PHOTOS}


def photo(name: str) -> np.ndarray:
    picture = PIL.Image.fromarray(getattr(skimage.data, name)()).convert("L")
    picture.thumbnail((300, 300))
    return np.asarray(PIL.ImageOps.autocontrast(picture, CUT_OFF), np.float32) / 255


def songs(seed: int) -> dict[str, np.ndarray]:
    """Waveforms `(N,)` with a peak of 0.8 by name."""
    numbers = np.random.default_rng(seed)
    made = {"drums": drums(numbers), "tones": tones(numbers), "speech": speech()}
    made["noise"] = numbers.standard_normal(RATE * SECONDS)
    made = {name: 0.8 * each / np.abs(each).max() for name, each in made.items()}
    mixture = made["drums"] + made["tones"] + made["speech"]
    return made | {"mixture": 0.8 * mixture / np.abs(mixture).max()}


def drums(numbers: np.random.Generator) -> np.ndarray:
    """Four beats a second: bass drum and snare by turns, a hi-hat on each."""
    length = RATE // 4
    time = np.arange(length) / RATE
    beats = []
    for i in range(4 * SECONDS):
        noise = numbers.standard_normal((2, length))
        drum = np.sin(2 * np.pi * 60 * time) * np.exp(-20 * time) if i % 2 == 0 else noise[0] * np.exp(-25 * time) / 2
        beats.append(drum + 0.15 * np.diff(noise[1], append=0) * np.exp(-60 * time))
    return np.concatenate(beats)


def tones(numbers: np.random.Generator) -> np.ndarray:
    """Two notes a second with 40 overtones."""
    time = np.arange(RATE // 2) / RATE
    notes = 220 * 2 ** (numbers.integers(0, 12, 2 * SECONDS) / 12)
    wave = [sum(np.sin(2 * np.pi * note * n * time) / n for n in range(1, 41)) * np.exp(-3 * time) for note in notes]
    return np.concatenate(wave)


def speech() -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        subprocess.run(["espeak-ng", "-w", str(file), SPEECH], check=True)
        spoken, rate = soundfile.read(file)
    return np.resize(scipy.signal.resample_poly(spoken, RATE, rate), RATE * SECONDS)


def coded(audio: np.ndarray, codec: str, kilobits: int) -> np.ndarray:
    """A waveform after a lossy codec, at its place in time."""
    name, container_format = CODECS[codec]
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "sound"))
        with av.open(file, "w", format=container_format) as container:
            stream = container.add_stream(name, rate=RATE, layout="mono")
            stream.bit_rate = 1000 * kilobits
            resampler = av.AudioResampler(stream.format, "mono", RATE, frame_size=stream.frame_size)
            frame = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(piece))
        with av.open(file) as container:
            planar = av.AudioResampler("fltp")
            parts = [each.to_ndarray()[0] for frame in container.decode(audio=0) for each in planar.resample(frame)]
    decoded = np.concatenate(parts)
    lag = int(np.argmax(scipy.signal.correlate(decoded[: 2 * RATE], audio[:RATE], "valid")))
    return np.pad(decoded[lag:], (0, len(audio)))[: len(audio)]


def seen(audio: np.ndarray, picture: np.ndarray) -> float:
    """Correlation of a picture and of the spectrogram in its place."""
    part = audio[PLACE["start_in_s"] * RATE : PLACE["end_in_s"] * RATE]
    frequencies, _, magnitude = scipy.signal.spectrogram(part, RATE, "blackman", 2048, 1536, mode="magnitude")
    inside = magnitude[(frequencies >= PLACE["min_frequency"]) & (frequencies <= PLACE["max_frequency"])]
    decibels = 20 * np.log10(inside.clip(1e-9))
    wanted = PIL.Image.fromarray(picture).resize(decibels.shape[::-1], PIL.Image.Resampling.BOX)
    pair = decibels.clip(decibels.max() - RANGE).ravel(), np.asarray(wanted)[::-1].ravel()
    return float(np.corrcoef(*pair)[0, 1])


def signal_to_difference(before: np.ndarray, after: np.ndarray) -> float:
    """In decibels, in the span."""
    span = slice(PLACE["start_in_s"] * RATE, PLACE["end_in_s"] * RATE)
    return float(10 * np.log10(np.square(before[span]).sum() / np.square((after - before)[span]).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.5, 0.7, 0.8, 1.0])
    parser.add_argument("--codec", choices=CODECS, help="What the sounds go through before they are looked at.")
    parser.add_argument("--kilobits", type=int, default=192, help="Of the codec, per second.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| strength | sound | correlation | least | signal to difference |\n|---|---|---|---|---|")
    all_pictures, all_songs = pictures(), songs(args.seed)
    for strength in args.strengths:
        for song, audio in all_songs.items():
            found, ratios = [], []
            for gray in all_pictures.values():
                hidden = hide_pictures(
                    audio, [HiddenPicture(picture=gray, sampling_rate=RATE, strength=strength, **PLACE)]
                )
                ratios.append(signal_to_difference(audio, hidden))
                found.append(seen(coded(hidden, args.codec, args.kilobits) if args.codec else hidden, gray))
            half = 1.96 * np.std(found, ddof=1) / np.sqrt(len(found))
            print(
                f"| {strength:g} | {song} | {np.mean(found):.2f} ± {half:.2f} | {min(found):.2f} |"
                f" {np.mean(ratios):.1f} dB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
