"""Audio to spectrogram canvas and back: the mel front end of Auffusion, with every constant in one place."""

import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from .images_that_sound_checks import check_tensor, shown


SILENCE_PEAK = 1e-3
CLIPPED_SHARE = 1e-3

# More than any spectrogram has; tables of these sizes take hundreds of megabytes.
MOST = {"sampling_rate": 10**6, "n_fft": 2**15, "num_mel_bins": 2**10}


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
        min_magnitude (`float`): Mel magnitude that is drawn black (0).
        max_magnitude (`float`): Mel magnitude that is drawn white (1).
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
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            kinds = (int, float) if field.type is float else (int,)
            number = isinstance(value, kinds) and not isinstance(value, bool)
            if not number or not 0 <= value <= MOST.get(name, 1e9) or (value == 0 and name != "min_frequency"):
                kind = "number" if field.type is float else "integer"
                raise ValueError(
                    f"`{name}` of the spectrogram has to be a positive {kind} up to {MOST.get(name, 1e9):g}, but is"
                    f" {shown(value)}."
                )
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

    @property
    def columns_per_second(self) -> float:
        """Canvas columns for one second of sound."""
        return self.sampling_rate / self.hop_length

    @property
    def log_range(self) -> tuple[float, float]:
        """Natural logarithms of the magnitudes drawn black and white."""
        return math.log(self.min_magnitude), math.log(self.max_magnitude)

    def audio_to_log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Waveform to natural-log mel magnitudes.

        Args:
            audio (`torch.Tensor` of shape `(B, N)` or `(N,)`): Waveform in -1..1 at `sampling_rate`.

        Returns:
            `torch.Tensor` of shape `(B, M, T)` or `(M, T)` with `T = N // hop_length`, floored at ln `min_magnitude`.

        Raises:
            ValueError: If the sound is shorter than the padding that the Fourier transform needs.
        """
        check_audio(audio)
        padding = (self.n_fft - self.hop_length) // 2
        if audio.shape[-1] <= padding:
            raise ValueError(f"`audio` has to be longer than {padding} samples, but has {audio.shape[-1]}.")
        batch = torch.nn.functional.pad(audio.float().reshape(-1, 1, audio.shape[-1]), (padding, padding), "reflect")
        spectrum = torch.stft(
            batch[:, 0],
            self.n_fft,
            hop_length=self.hop_length,
            win_length=self.win_length,
            window=self._window(audio.device),
            center=False,
            return_complex=True,
        )
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        mel = self._filters(audio.device).T @ magnitude
        log_mel = mel.clamp(min=self.min_magnitude).log()
        return log_mel.reshape(*audio.shape[:-1], *log_mel.shape[-2:])

    def log_mel_to_canvas(self, log_mel: torch.Tensor) -> torch.Tensor:
        """
        Log-mel to a picture: black is silence, white is `max_magnitude`, low frequencies are at the bottom.

        Args:
            log_mel (`torch.Tensor` of shape `(..., M, T)`): Natural-log mel magnitudes.

        Returns:
            `torch.Tensor` of shape `(..., 1, M, T)` in 0..1; louder than `max_magnitude` is clamped to 1.
        """
        low, high = self.log_range
        return ((log_mel - low) / (high - low)).clamp(0, 1).flip(-2).unsqueeze(-3)

    def canvas_to_log_mel(self, canvas: torch.Tensor) -> torch.Tensor:
        """
        The inverse of `log_mel_to_canvas`.

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
        return canvas.mean(dim=-3).flip(-2) * (high - low) + low

    def audio_to_canvas(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Waveform to canvas, peak-normalised to 0.95 before, as Auffusion's training pictures were.

        Args:
            audio (`torch.Tensor` of shape `(B, N)` or `(N,)`): Waveform at `sampling_rate`.

        Returns:
            `torch.Tensor` of shape `(B, 1, M, T)` or `(1, M, T)` in 0..1.
        """
        check_audio(audio)
        peak = audio.abs().amax(dim=-1, keepdim=True)
        scale = torch.where(peak > 0, 0.95 / peak.clamp(min=1e-12), torch.ones_like(peak))
        return self.log_mel_to_canvas(self.audio_to_log_mel(audio * scale))

    def canvas_to_audio(self, canvas: torch.Tensor, vocoder: torch.nn.Module | None = None) -> torch.Tensor:
        """
        Canvas to waveform by the vocoder, or by Griffin-Lim where there is none.

        Args:
            canvas (`torch.Tensor` of shape `(B, C, M, T)`): Picture in 0..1.
            vocoder (`transformers.SpeechT5HifiGan`, *optional*): Maps log-mel `(B, T, M)` to waveform `(B, N)`.

        Returns:
            `torch.Tensor` of shape `(B, N)` with `N = T * hop_length`: Float32 waveform in -1..1.
        """
        log_mel = self.canvas_to_log_mel(canvas.float())
        if vocoder is None:
            return self.griffin_lim(log_mel)
        return vocoder(log_mel.transpose(-1, -2).to(vocoder.dtype)).float()

    def griffin_lim(
        self,
        log_mel: torch.Tensor,
        num_iterations: int = 60,
        momentum: float = 0.99,
        phases_of: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Waveform whose spectrogram is close to the given one: fast Griffin-Lim (Perraudin, Balazs and Søndergaard,
        WASPAA 2013) on the pseudo-inverse of the mel filters. The first phases are drawn from a fixed seed, the same
        for every sample, so the result depends on the sample alone. Louder than full scale is scaled down to a peak
        of 1.

        Args:
            log_mel (`torch.Tensor` of shape `(B, M, T)`): Natural-log mel magnitudes.
            num_iterations (`int`, defaults to 60): Rounds of projection.
            momentum (`float`, defaults to 0.99): 0 is the plain algorithm of Griffin and Lim.
            phases_of (`torch.Tensor` of shape `(B, N)`, *optional*): Waveform whose phases to start from instead of
                random ones; without iterations the result has these phases.

        Returns:
            `torch.Tensor` of shape `(B, N)` with `N = T * hop_length`: Float32 waveform in -1..1.
        """
        check_tensor("log_mel", log_mel, ("B", self.num_mel_bins, "T"))
        if len(log_mel) > 1:
            # One by one is three times faster on a processor: spectra of a whole batch leave its caches.
            phases = [None] * len(log_mel) if phases_of is None else phases_of.split(1)
            each = [self.griffin_lim(one, num_iterations, momentum, p) for one, p in zip(log_mel.split(1), phases)]
            return torch.cat(each)
        log_mel = log_mel.float()
        magnitude = (self._inverse_filters(log_mel.device) @ log_mel.exp()).clamp(min=0)
        # A frame of the front end is centred half a hop after its first sample. torch.istft centres frame k at
        # sample k * hop_length, so one repeated frame at either end covers the half hops that it would leave out.
        magnitude = torch.nn.functional.pad(magnitude, (1, 1), "replicate")
        length = (magnitude.shape[-1] - 1) * self.hop_length
        start = self.hop_length // 2
        if phases_of is None:
            generator = torch.Generator().manual_seed(0)
            phase = 2 * math.pi * torch.rand(magnitude.shape[-2:], generator=generator)
            angles = torch.polar(torch.ones_like(phase), phase).to(log_mel.device)
        else:
            padded = torch.nn.functional.pad(phases_of.float(), (start, self.hop_length - start))
            angles = torch.sgn(self._stft(padded))
        # In place and as real numbers where that is the same: most of the time goes into passes over memory.
        scale = magnitude[..., None]
        spectrum = torch.view_as_complex(torch.view_as_real(angles) * scale)
        previous = torch.zeros_like(spectrum)
        for _ in range(num_iterations):
            rebuilt = self._stft(self._istft(spectrum, length))
            # Towards rebuilt + momentum * (rebuilt - previous), of which only the direction counts.
            spectrum = previous.mul_(-momentum / (1 + momentum)).add_(rebuilt).sgn_()
            torch.view_as_real(spectrum).mul_(scale)
            previous = rebuilt
        audio = self._istft(spectrum, length)[..., start : start + log_mel.shape[-1] * self.hop_length]
        return audio / audio.abs().amax(dim=-1, keepdim=True).clamp(min=1)

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


@lru_cache(maxsize=8)
def _mel_filters(spectrogram: MelSpectrogram) -> np.ndarray:
    return mel_filter_bank(
        num_frequency_bins=spectrogram.n_fft // 2 + 1,
        num_mel_filters=spectrogram.num_mel_bins,
        min_frequency=spectrogram.min_frequency,
        max_frequency=spectrogram.max_frequency,
        sampling_rate=spectrogram.sampling_rate,
        norm="slaney",
        mel_scale="slaney",
    )


@lru_cache(maxsize=8)
def _inverse_mel_filters(spectrogram: MelSpectrogram) -> np.ndarray:
    return np.linalg.pinv(_mel_filters(spectrogram).T)


def check_audio(audio: torch.Tensor) -> None:
    """Raises `ValueError` unless `audio` is a waveform of shape `(B, N)` or `(N,)`."""
    check_tensor("audio", audio, ("N",) if getattr(audio, "ndim", 2) == 1 else ("B", "N"))


def audio_problems(audio: np.ndarray) -> list[str]:
    """
    Says what is wrong with a waveform, in words for a user.

    Args:
        audio (`np.ndarray` of shape `(N,)`): Waveform.

    Returns:
        `list[str]`: Empty for a sound that is finite, audible and not clipped.
    """
    if not np.isfinite(audio).all():
        return ["the sound has values that are not finite"]
    magnitude = np.abs(audio)
    if magnitude.size == 0 or magnitude.max() < SILENCE_PEAK:
        return [f"the sound is silent (its peak is below {SILENCE_PEAK})"]
    share = float((magnitude >= 0.999).mean())
    if share > CLIPPED_SHARE:
        return [f"the sound is clipped ({share:.1%} of its samples are at full scale)"]
    return []
