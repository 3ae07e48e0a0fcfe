"""Audio to spectrogram canvas and back, as Auffusion or Riffusion draw it, with every constant in one place."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.signal
import scipy.sparse
import torch
from transformers.audio_utils import mel_filter_bank

from .images_that_sound_checks import check_tensor, shown


# A sound that peaks lower is the noise of a canvas on which almost nothing is drawn: an empty canvas peaks at 2e-5. A
# canvas that was dimmed as a whole peaks higher, and its sound can be levelled.
SILENCE_PEAK = 1e-3
CLIPPED_SHARE = 1e-3
# White noise has 1; of the embedded world's own sounds, only a few barks have more than this.
NOISE_FLATNESS = 0.5
# The peak to which sounds are scaled before they are drawn, and after they are read from a canvas without loudness.
PEAK = 0.95
# From Hz to where a frequency is on a scale, and back.
FREQUENCY_SCALES = {
    "htk": (lambda hertz: 2595 * math.log10(1 + hertz / 700), lambda mel: 700 * (10 ** (mel / 2595) - 1)),
    "linear": (lambda hertz: hertz, lambda hertz: hertz),
    "logarithmic": (math.log, torch.exp),
}
# Allowed values of constants that are words.
CHOICES = {"frequency_scale": ("slaney", *FREQUENCY_SCALES), "filter_norm": ("slaney", None)}
MAY_BE_ZERO = ("min_frequency", "power_offset", "inverse_filter_iterations")

# Columns that are drawn or played at once, and by how many pieces overlap that Griffin-Lim plays: memory does not grow
# with the length of a sound.
PIECE, OVERLAP = 2048, 64

# More than any spectrogram has: tables of these sizes take hundreds of megabytes, and a picture of anybody's may name
# its constants and is not to be played for hours.
MOST = {"sampling_rate": 10**6, "n_fft": 2**15, "num_mel_bins": 2**10}
MOST |= {"inverse_filter_iterations": 1000, "griffin_lim_iterations": 1000}


@dataclass(frozen=True)
class MelSpectrogram:
    """
    Constants of a log-mel spectrogram and the transforms between waveform, log-mel and canvas.

    Letters: `B` batch, `N` samples, `T` spectrogram frames (canvas columns), `M` mel bins (canvas rows), `C` channels.
    The defaults are those of [Auffusion](https://arxiv.org/abs/2401.01044), with which "Images that Sound"
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)) reads its canvases.

    Args:
        sampling_rate (`int`): Samples per second.
        n_fft (`int`): Length of the Fourier transform in samples.
        win_length (`int`): Length of the Hann window in samples, at most `n_fft`.
        hop_length (`int`): Samples per canvas column.
        num_mel_bins (`int`): Rows of the canvas.
        min_frequency (`float`): Lower edge of the lowest mel filter in Hz.
        max_frequency (`float`): Upper edge of the highest mel filter in Hz.
        min_magnitude (`float`): Mel magnitude that is drawn as silence, and all below it.
        max_magnitude (`float`): Mel magnitude that is drawn loudest.
        frequency_scale (`str`): Scale on which the filters lie evenly: the mel scale of `"slaney"` or of `"htk"`, or
            `"linear"` or `"logarithmic"`.
        filter_norm (`str`, *optional*): `"slaney"` gives all filters the same area, `None` the same height.
        center (`bool`): Whether frame k is centred on sample k * `hop_length`, with reflected ends, so that
            `T = 1 + N // hop_length`; else half a hop later, and `T = N // hop_length`.
        power_offset (`float`): Added to the squares of magnitudes before the root is taken.
        tone_exponent (`float`, *optional*): A canvas shows the magnitude's share of the clip's greatest to this
            power, and nothing of the clip's loudness. `None`: it shows where the logarithm of the magnitude lies
            between those of `min_magnitude` and `max_magnitude`.
        black_is_loud (`bool`): Whether black is loud and white is silence, or the other way round.
        inverse_filter_iterations (`int`): Rounds of multiplicative updates that look for the nonnegative magnitudes
            behind mel magnitudes (Lee and Seung, NeurIPS 2000); 0 for the pseudo-inverse.
        griffin_lim_iterations (`int`): Rounds of Griffin-Lim that a canvas is played with.
    """

    sampling_rate: int = 16000
    n_fft: int = 2048
    win_length: int = 1024
    hop_length: int = 160
    num_mel_bins: int = 256
    min_frequency: float = 0.0
    max_frequency: float = 8000.0
    min_magnitude: float = 1e-5
    max_magnitude: float = 200.0
    frequency_scale: str = "slaney"
    filter_norm: str | None = "slaney"
    center: bool = False
    power_offset: float = 1e-9
    tone_exponent: float | None = None
    black_is_loud: bool = False
    inverse_filter_iterations: int = 0
    griffin_lim_iterations: int = 60

    @classmethod
    def from_dict(cls, constants: dict) -> "MelSpectrogram":
        """Builds the constants from `to_dict()`. Raises `ValueError` for a name that does not exist or a bad value."""
        names = {field.name for field in fields(cls)}
        if not isinstance(constants, dict) or set(constants) - names:
            raise ValueError(
                f"`spectrogram` has to be a dict with keys among {sorted(names)}, but is {shown(constants)}."
            )
        return cls(**constants)

    def to_dict(self) -> dict:
        """Returns the constants as a JSON-ready dict."""
        return asdict(self)

    def __post_init__(self) -> None:
        for each in fields(self):
            self._check_value(each.name, each.type, getattr(self, each.name))
        if self.frequency_scale == "logarithmic" and self.min_frequency == 0:
            raise ValueError("`min_frequency` of the spectrogram has to be above 0 on a logarithmic scale, but is 0.")
        for low, high in (
            ("win_length", "n_fft"),
            ("hop_length", "win_length"),
            ("min_frequency", "max_frequency"),
            ("min_magnitude", "max_magnitude"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"`{low}` of the spectrogram may not exceed `{high}`, but is {getattr(self, low)} against"
                    f" {getattr(self, high)}."
                )

    @staticmethod
    def _check_value(name: str, kind: type, value: Any) -> None:
        if name in CHOICES or kind is bool:
            choices = CHOICES.get(name, (True, False))
            if value not in choices or (kind is bool) != isinstance(value, bool):
                raise ValueError(f"`{name}` of the spectrogram has to be among {choices}, but is {shown(value)}.")
        elif value is not None or name != "tone_exponent":
            number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
            most = MOST.get(name, 1e9)
            if not (number and 0 <= value <= most and (value > 0 or name in MAY_BE_ZERO)):
                kind_name = "integer" if kind is int else "number"
                raise ValueError(
                    f"`{name}` of the spectrogram has to be a positive {kind_name} up to {most:g}, but is"
                    f" {shown(value)}."
                )

    @property
    def silence(self) -> float:
        """Brightness of silence on a canvas: 0 is black, 1 is white."""
        return float(self.black_is_loud)

    @property
    def min_columns(self) -> int:
        """The narrowest canvas that can be played, and whose sound can be drawn again."""
        return -(-self._padding // self.hop_length) + 1 + self.center

    def num_samples(self, num_columns: int) -> int:
        """Samples `N` of the sound of a canvas of `T` columns."""
        return (num_columns - self.center) * self.hop_length

    def num_columns(self, seconds: float) -> int:
        """Columns `T` of the canvas of so long a sound."""
        return max(round(seconds * self.columns_per_second), 1) + self.center

    @property
    def columns_per_second(self) -> float:
        """Canvas columns for one second of sound."""
        return self.sampling_rate / self.hop_length

    @property
    def _padding(self) -> int:
        return (self.n_fft - (0 if self.center else self.hop_length)) // 2

    @property
    def log_range(self) -> tuple[float, float]:
        """Natural logarithms of the magnitudes drawn as silence and loudest."""
        return math.log(self.min_magnitude), math.log(self.max_magnitude)

    def audio_to_log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Waveform to natural-log mel magnitudes.

        Args:
            audio (`torch.Tensor` of shape `(B, N)` or `(N,)`): Waveform in -1..1 at `sampling_rate`.

        Returns:
            `torch.Tensor` of shape `(B, M, T)` or `(M, T)`, floored at ln `min_magnitude`.

        Raises:
            ValueError: If the sound is shorter than the padding that the Fourier transform needs.
        """
        check_audio(audio)
        padding = self._padding
        if audio.shape[-1] <= padding:
            raise ValueError(f"`audio` has to be longer than {padding} samples, but has {audio.shape[-1]}.")
        batch = torch.nn.functional.pad(audio.float().reshape(-1, 1, audio.shape[-1]), (padding, padding), "reflect")
        columns = (batch.shape[-1] - self.n_fft) // self.hop_length + 1
        starts = [first * self.hop_length for first in range(0, columns, PIECE)]
        length = (PIECE - 1) * self.hop_length + self.n_fft
        log_mel = torch.cat([self._log_mel(batch[:, 0, start : start + length]) for start in starts], dim=-1)
        return log_mel.reshape(*audio.shape[:-1], *log_mel.shape[-2:])

    def _log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """Log-mel magnitudes `(B, M, T)` of all frames that lie within a waveform `(B, N)`."""
        spectrum = torch.stft(
            audio,
            self.n_fft,
            hop_length=self.hop_length,
            win_length=self.win_length,
            window=self._window(audio.device),
            center=False,
            return_complex=True,
        )
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + self.power_offset)
        return (self._filters(audio.device).T @ magnitude).clamp(min=self.min_magnitude).log()

    def log_mel_to_canvas(self, log_mel: torch.Tensor) -> torch.Tensor:
        """
        Log-mel to a picture, with low frequencies at the bottom.

        Args:
            log_mel (`torch.Tensor` of shape `(..., M, T)`): Natural-log mel magnitudes.

        Returns:
            `torch.Tensor` of shape `(..., 1, M, T)` in 0..1; louder than `max_magnitude` is drawn like it, unless the
            clip's greatest magnitude is the measure.
        """
        low, high = self.log_range
        if self.tone_exponent is None:
            loudness = ((log_mel - low) / (high - low)).clamp(0, 1)
        else:
            loudness = ((log_mel - log_mel.amax(dim=(-2, -1), keepdim=True)) * self.tone_exponent).exp()
        return self._polarised(loudness).flip(-2).unsqueeze(-3)

    def canvas_to_log_mel(self, canvas: torch.Tensor) -> torch.Tensor:
        """
        The inverse of `log_mel_to_canvas`. The loudest brightness becomes `max_magnitude`.

        Args:
            canvas (`torch.Tensor` of shape `(..., C, M, T)`): Picture in 0..1; its channels are averaged, as in the
                paper.

        Returns:
            `torch.Tensor` of shape `(..., M, T)`: Natural-log mel magnitudes.

        Raises:
            ValueError: If the canvas does not have `num_mel_bins` rows.
        """
        if canvas.dim() < 3 or canvas.shape[-2] != self.num_mel_bins:
            raise ValueError(
                f"`canvas` has to have {self.num_mel_bins} rows (`num_mel_bins`), but its shape is"
                f" {tuple(canvas.shape)}."
            )
        low, high = self.log_range
        loudness = self._polarised(canvas.float().mean(dim=-3)).flip(-2)
        if self.tone_exponent is None:
            return loudness.mul_(high - low).add_(low)
        return (loudness.clamp(min=0).log() / self.tone_exponent + high).clamp(min=low)

    def _polarised(self, values: torch.Tensor) -> torch.Tensor:
        """From loudness in 0..1 to brightness, and from brightness to loudness."""
        return 1 - values if self.black_is_loud else values

    def audio_to_canvas(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Waveform to canvas, scaled to a peak of 0.95 before, as the sounds that Auffusion was trained on.

        Args:
            audio (`torch.Tensor` of shape `(B, N)` or `(N,)`): Waveform at `sampling_rate`.

        Returns:
            `torch.Tensor` of shape `(B, 1, M, T)` or `(1, M, T)` in 0..1.
        """
        check_audio(audio)
        peak = audio.abs().amax(dim=-1, keepdim=True)
        scale = torch.where(peak > 0, PEAK / peak.clamp(min=1e-12), torch.ones_like(peak))
        return self.log_mel_to_canvas(self.audio_to_log_mel(audio * scale))

    def canvas_to_audio(self, canvas: torch.Tensor, vocoder: torch.nn.Module | None = None) -> torch.Tensor:
        """
        Canvas to waveform by the vocoder, or by Griffin-Lim without one. Long canvases are played in pieces, the
        vocoder's as one piece would be.

        Args:
            canvas (`torch.Tensor` of shape `(B, C, M, T)`): Picture in 0..1.
            vocoder (`transformers.SpeechT5HifiGan`, *optional*): Maps log-mel `(B, T, M)` to waveform `(B, N)`.

        Returns:
            `torch.Tensor` of shape `(B, N)` with `N = num_samples(T)`: Float32 waveform in -1..1.
        """
        if vocoder is None:
            self._check_columns("canvas", canvas)
            return self._played(canvas, self.canvas_to_log_mel, self.griffin_lim_iterations)
        reach, sounds = _reach(vocoder), []
        for first in range(0, canvas.shape[-1], PIECE):
            left = max(first - reach, 0)
            log_mel = self.canvas_to_log_mel(canvas[..., left : first + PIECE + reach])
            samples = vocoder(log_mel.transpose(-1, -2).to(vocoder.dtype)).float()
            sounds.append(samples[..., (first - left) * self.hop_length :][..., : PIECE * self.hop_length])
        return torch.cat(sounds, dim=-1)

    def griffin_lim(
        self,
        log_mel: torch.Tensor,
        num_iterations: int | None = None,
        momentum: float = 0.99,
        phases_of: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Waveform whose spectrogram is close to the given one: fast Griffin-Lim (Perraudin, Balazs and Søndergaard,
        WASPAA 2013) on magnitudes behind the mel filters. The first phases are drawn from a fixed seed, the same for
        every sample, so the result depends on the sample alone. Louder than full scale is scaled down to a peak of 1;
        where canvases show nothing of loudness, all but silence is scaled to a peak of 0.95. Long sounds are made in
        pieces, each of which goes on with the phases of the one before.

        Args:
            log_mel (`torch.Tensor` of shape `(B, M, T)`): Natural-log mel magnitudes.
            num_iterations (`int`, *optional*, defaults to `griffin_lim_iterations`): Rounds of projection.
            momentum (`float`, defaults to 0.99): 0 is the plain algorithm of Griffin and Lim.
            phases_of (`torch.Tensor` of shape `(B, N)`, *optional*): Waveform whose phases to start from instead of
                random ones; without iterations the result has these phases.

        Returns:
            `torch.Tensor` of shape `(B, N)` with `N = num_samples(T)`: Float32 waveform in -1..1.

        Raises:
            ValueError: If there are fewer than `min_columns` frames.
        """
        check_tensor("log_mel", log_mel, ("B", self.num_mel_bins, "T"))
        self._check_columns("log_mel", log_mel)
        num_iterations = self.griffin_lim_iterations if num_iterations is None else num_iterations
        return self._played(log_mel, lambda piece: piece, num_iterations, momentum, phases_of)

    def _check_columns(self, name: str, columns: torch.Tensor) -> None:
        if columns.shape[-1] < self.min_columns:
            raise ValueError(
                f"`{name}` has to have at least {self.min_columns} frames, but its shape is {tuple(columns.shape)}."
            )

    def _played(
        self,
        canvas: torch.Tensor,
        to_log_mel: Callable[[torch.Tensor], torch.Tensor],
        num_iterations: int,
        momentum: float = 0.99,
        phases_of: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Waveforms `(B, N)` of canvases `(B, ..., T)`, of which `to_log_mel` makes log-mel magnitudes."""
        # One by one is three times faster on a processor: spectra of a whole batch leave its caches.
        phases = [None] * len(canvas) if phases_of is None else phases_of.split(1)
        rows = zip(canvas.split(1), phases)
        each = [self._in_pieces(row, to_log_mel, num_iterations, momentum, known) for row, known in rows]
        return self._audible(torch.cat(each) if len(each) > 1 else each[0])

    def _in_pieces(
        self,
        canvas: torch.Tensor,
        to_log_mel: Callable[[torch.Tensor], torch.Tensor],
        num_iterations: int,
        momentum: float,
        phases_of: torch.Tensor | None,
    ) -> torch.Tensor:
        """One waveform `(1, N)` at any scale, of which each piece knows the end of the one before."""
        audio = torch.zeros(1, self.num_samples(canvas.shape[-1]), device=canvas.device)
        # The last columns of a piece are made anew by the next, since nothing beyond them was known.
        known = OVERLAP // 2 * self.hop_length
        for first in range(0, max(canvas.shape[-1] - OVERLAP, 1), PIECE):
            piece, start = to_log_mel(canvas[..., first : first + PIECE + OVERLAP]), first * self.hop_length
            begins = audio[..., start : start + known].clone() if first else audio[..., :0]
            phases = None if phases_of is None else phases_of[..., start : start + self.num_samples(piece.shape[-1])]
            played = self._griffin_lim(piece, num_iterations, momentum, phases, begins)
            rising = torch.linspace(0, 1, begins.shape[-1], device=audio.device)
            played[..., : len(rising)] = torch.lerp(begins, played[..., : len(rising)], rising)
            audio[..., start : start + played.shape[-1]] = played
        return audio

    def _griffin_lim(
        self,
        log_mel: torch.Tensor,
        num_iterations: int,
        momentum: float,
        phases_of: torch.Tensor | None,
        begins: torch.Tensor,
    ) -> torch.Tensor:
        """One waveform `(1, N)` at any scale, with samples `(1, n)` that it is known to begin with."""
        magnitude = self._unfiltered(log_mel.float().exp())
        start = 0
        if not self.center:
            # A frame of the front end is centred half a hop after its first sample. torch.istft centres frame k at
            # sample k * hop_length, so one repeated frame at either end covers the half hops that it would leave out.
            magnitude = torch.nn.functional.pad(magnitude, (1, 1), "replicate")
            start = self.hop_length // 2
        length = (magnitude.shape[-1] - 1) * self.hop_length
        # Every other bin says the same if the spectrum is padded to more than twice the window, and every other frame
        # is enough if frames overlap more than four times.
        bins, frames = self.n_fft // (2 * self.win_length), self.win_length // (4 * self.hop_length)
        bins, frames = max(math.gcd(bins, self.n_fft), 1), max(frames, 1)
        coarse = replace(self, n_fft=self.n_fft // bins, hop_length=self.hop_length * frames)
        magnitude = magnitude[..., ::bins, ::frames].contiguous()
        if phases_of is None:
            generator = torch.Generator().manual_seed(0)
            phase = 2 * math.pi * torch.rand(magnitude.shape[-2:], generator=generator)
            angles = torch.polar(torch.ones_like(phase), phase).to(log_mel.device)
        else:
            padded = torch.nn.functional.pad(phases_of.float(), (start, length - phases_of.shape[-1] - start))
            angles = torch.sgn(coarse._stft(padded))
        # In place and as real numbers where that is the same: most of the time goes into passes over memory.
        scale = magnitude[..., None]
        spectrum = torch.view_as_complex(torch.view_as_real(angles) * scale)
        previous = torch.zeros_like(spectrum)
        for _ in range(num_iterations):
            audio = coarse._istft(spectrum, length)
            audio[..., start : start + begins.shape[-1]] = begins
            rebuilt = coarse._stft(audio)
            # Towards rebuilt + momentum * (rebuilt - previous), of which only the direction counts.
            spectrum = previous.mul_(-momentum / (1 + momentum)).add_(rebuilt).sgn_()
            torch.view_as_real(spectrum).mul_(scale)
            previous = rebuilt
        return coarse._istft(spectrum, length)[..., start : start + self.num_samples(log_mel.shape[-1])]

    def _audible(self, audio: torch.Tensor) -> torch.Tensor:
        """Scales waveforms in place, since long ones take much of the memory."""
        lowest, highest = audio.aminmax(dim=-1, keepdim=True)
        peak = torch.maximum(-lowest, highest)
        if self.tone_exponent is None:
            return audio.div_(peak.clamp(min=1))
        return audio.mul_(torch.where(peak > SILENCE_PEAK, PEAK / peak, torch.ones_like(peak)))

    def _unfiltered(self, mel: torch.Tensor) -> torch.Tensor:
        """Nonnegative magnitudes `(1, F, T)` of the Fourier transform behind mel magnitudes `(1, M, T)`."""
        if self.inverse_filter_iterations == 0:
            return (self._inverse_filters(mel.device) @ mel).clamp(min=0)
        filters, goal = _mel_filters(self).astype(np.float32), mel[0].cpu().numpy()
        heard = filters.any(axis=1)
        back = scipy.sparse.csr_array(filters[heard])
        forth = back.T.tocsr()
        numerator, tiny = back @ goal, np.float32(1e-20)
        found = numerator / np.maximum((back @ forth.sum(axis=1))[:, None], tiny)
        for _ in range(self.inverse_filter_iterations):
            found *= numerator / np.maximum(back @ (forth @ found), tiny)
        magnitude = torch.zeros(1, len(filters), goal.shape[-1])
        magnitude[0, heard] = torch.from_numpy(found)
        return magnitude.to(mel.device)

    def _stft(self, audio: torch.Tensor) -> torch.Tensor:
        window = self._window(audio.device)
        return torch.stft(audio, self.n_fft, self.hop_length, self.win_length, window, return_complex=True)

    def _istft(self, spectrum: torch.Tensor, length: int) -> torch.Tensor:
        window = self._window(spectrum.device)
        return torch.istft(spectrum, self.n_fft, self.hop_length, self.win_length, window, length=length)

    def _window(self, device: torch.device) -> torch.Tensor:
        return torch.hann_window(self.win_length, device=device)

    def _filters(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(_mel_filters(self).astype(np.float32)).to(device)

    def _inverse_filters(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(_inverse_mel_filters(self).astype(np.float32)).to(device)


# The constants by the names of the models whose canvases are drawn with them.
SPECTROGRAMS = {
    "auffusion": MelSpectrogram(),
    "riffusion": MelSpectrogram(
        sampling_rate=44100,
        n_fft=17640,
        win_length=4410,
        hop_length=441,
        num_mel_bins=512,
        max_frequency=10000.0,
        min_magnitude=1e-10,
        # Riffusion's own, for samples in -1..1.
        max_magnitude=3e7 / 2**15,
        frequency_scale="htk",
        filter_norm=None,
        center=True,
        power_offset=0.0,
        tone_exponent=0.25,
        black_is_loud=True,
        inverse_filter_iterations=20,
        griffin_lim_iterations=32,
    ),
}


def find_spectrogram(spectrogram: str | dict | MelSpectrogram) -> MelSpectrogram:
    """The constants of a name among `SPECTROGRAMS`, or of a dict of them. Raises `ValueError` for anything else."""
    if isinstance(spectrogram, MelSpectrogram):
        return spectrogram
    if isinstance(spectrogram, str):
        if spectrogram not in SPECTROGRAMS:
            raise ValueError(f"`spectrogram` has to be among {sorted(SPECTROGRAMS)}, but is {spectrogram!r}.")
        return SPECTROGRAMS[spectrogram]
    return MelSpectrogram.from_dict(spectrogram)


def _reach(vocoder: torch.nn.Module) -> int:
    """Columns to either side that a sample of a HiFi-GAN (arXiv 2010.05646) depends on."""
    config, rate = vocoder.config, 1
    # Layers at the rate of columns, then at those after each upsampling, then the last one: all convolutions.
    reach = 3.0
    widest = max(
        sum((kernel - 1) * (dilation + 1) // 2 for dilation in dilations)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes)
    )
    for factor, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes):
        reach += kernel / (factor * rate)
        rate *= factor
        reach += widest / rate
    return math.ceil(reach + 3 / rate)


@lru_cache(maxsize=8)
def _mel_filters(spectrogram: MelSpectrogram) -> np.ndarray:
    if spectrogram.frequency_scale != "slaney":
        return _triangles(spectrogram).numpy()
    return mel_filter_bank(
        num_frequency_bins=spectrogram.n_fft // 2 + 1,
        num_mel_filters=spectrogram.num_mel_bins,
        min_frequency=spectrogram.min_frequency,
        max_frequency=spectrogram.max_frequency,
        sampling_rate=spectrogram.sampling_rate,
        norm=spectrogram.filter_norm,
        mel_scale="slaney",
    )


def _triangles(spectrogram: MelSpectrogram) -> torch.Tensor:
    """
    Triangular filters `(F, M)`, none narrower than a bin to either side. In float32 from the first on, as torchaudio
    makes Riffusion's: rounding moves the edges of its filters so far that magnitudes show it.
    """
    there, back = FREQUENCY_SCALES[spectrogram.frequency_scale]
    ends = (there(frequency) for frequency in (spectrogram.min_frequency, spectrogram.max_frequency))
    edges = back(torch.linspace(*ends, spectrogram.num_mel_bins + 2))
    bins = torch.linspace(0, spectrogram.sampling_rate / 2, spectrogram.n_fft // 2 + 1)[:, None]
    widths = edges.diff().clamp(min=float(bins[1]))
    rise = (bins - (edges[1:-1] - widths[:-1])) / widths[:-1]
    fall = ((edges[1:-1] + widths[1:]) - bins) / widths[1:]
    filters = torch.minimum(rise, fall).clamp(min=0)
    return filters if spectrogram.filter_norm is None else filters * (2 / (widths[1:] + widths[:-1]))


@lru_cache(maxsize=8)
def _inverse_mel_filters(spectrogram: MelSpectrogram) -> np.ndarray:
    return np.linalg.pinv(_mel_filters(spectrogram).T)


def check_audio(audio: torch.Tensor) -> None:
    """Raises `ValueError` unless `audio` is a waveform of shape `(B, N)` or `(N,)`."""
    check_tensor("audio", audio, ("N",) if getattr(audio, "ndim", 2) == 1 else ("B", "N"))


def audio_problems(audio: np.ndarray) -> list[str]:
    """
    Names the faults of a waveform, in words for a user.

    Args:
        audio (`np.ndarray` of shape `(N,)`): Waveform.

    Returns:
        `list[str]`: Empty for a sound that is finite, audible and not clipped.
    """
    if not np.isfinite(audio).all():
        return ["the sound has values that are not finite"]
    magnitude = np.abs(audio)
    if magnitude.size == 0 or magnitude.max() < SILENCE_PEAK:
        return [f"the sound is inaudible (its peak is below {SILENCE_PEAK})"]
    share = float((magnitude >= 0.999).mean())
    if share > CLIPPED_SHARE:
        return [f"the sound is clipped ({share:.1%} of its samples are at full scale)"]
    return []


def audio_remarks(audio: np.ndarray, mel_spectrogram: MelSpectrogram) -> list[str]:
    """
    Names what a listener may want to know of a waveform. It is no fault if it was asked for, such as rain.

    Args:
        audio (`np.ndarray` of shape `(N,)`): Waveform.
        mel_spectrogram ([`MelSpectrogram`]): Constants of its canvas, whose frequencies count.

    Returns:
        `list[str]`: Empty for a sound that has problems, or less even a spectrum than noise: the geometric mean of its
        power over all frequencies is at most half of the arithmetic one.
    """
    if audio_problems(audio):
        return []
    window = min(mel_spectrogram.win_length, len(audio))
    frequencies, power = scipy.signal.welch(audio, mel_spectrogram.sampling_rate, nperseg=window)
    drawn = (frequencies > mel_spectrogram.min_frequency) & (frequencies < mel_spectrogram.max_frequency)
    power = power[drawn].astype(np.float64)
    if not power.any():
        return []
    flatness = float(np.exp(np.log(power.clip(1e-12 * power.max())).mean()) / power.mean())
    return [f"the sound is mostly noise (its spectrum's flatness is {flatness:.2f})"] * (flatness > NOISE_FLATNESS)
