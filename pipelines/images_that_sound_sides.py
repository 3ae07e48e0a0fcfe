"""The two sides: their models, what a call asks of each, and how a side's prompt guides its prediction of noise."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from .images_that_sound_canvas import Windows
from .images_that_sound_checks import check_integer, check_number, check_tensor, get_logger, plain_number, shown


logger = get_logger(__name__)

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Side:
    """
    The models of one modality. The audio side shares whatever it does not have itself.

    Args:
        unet ([`UNet2DConditionModel`], *optional*): Predicts noise.
        text_encoder ([`~transformers.PreTrainedModel`], *optional*): Encodes prompts.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*): Tokenizer of the text encoder.
        vae ([`AutoencoderKL`], *optional*): Encodes canvases to latents and decodes them.
        scheduler ([`SchedulerMixin`], *optional*): Noise schedule.
    """

    unet: UNet2DConditionModel | None
    text_encoder: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    vae: AutoencoderKL | None
    scheduler: SchedulerMixin | None

    def is_guided(self, guidance_scale: float) -> bool:
        """Whether the UNet runs with and without the prompt for this guidance scale."""
        return guidance_scale > 1 and not self.takes_guidance

    @property
    def takes_guidance(self) -> bool:
        """Whether the UNet was distilled with guidance and takes its scale, as latent consistency models do."""
        return self.unet is not None and self.unet.config.get("time_cond_proj_dim") is not None

    @property
    def hidden_size(self) -> int | str:
        """Size of the embeddings that the UNet takes. A letter stands for any size."""
        size = None if self.unet is None else self.unet.config.encoder_hid_dim or self.unet.config.cross_attention_dim
        return size if isinstance(size, int) else "D"


@dataclass(frozen=True)
class Guided:
    """
    A side in one call: its embeddings, scales and guides.

    Args:
        side ([`Side`]): The models.
        embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings of the prompts.
        negative_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings of the negative prompts. Needed
            if the side is guided.
        guidance_scale (`float`, defaults to 1.0): Scale of classifier-free guidance (arXiv 2207.12598). 1 and below
            turn it off.
        guidance_rescale (`float`, defaults to 0.0): Rescales guided noise to the standard deviation of the prompted
            prediction, 0 (off) to 1 ([arXiv 2305.08891](https://arxiv.org/abs/2305.08891), section 3.4).
        timestep_cond (`torch.Tensor` of shape `(B, D)`, *optional*): Embedding of the guidance scale, for a UNet that
            takes it (arXiv 2210.03142).
        guides (`Callable`, *optional*): Returns further arguments of the UNet, such as [`Guides`].
        unet_kwargs (`dict`): Further arguments of the UNet.
        starts (`tuple[int]`): If prompts change over time, the first column of each of `K`; `embeds` and
            `negative_embeds` are then of shape `(K * B, L, D)`, and only windows of the canvas can be predicted.
        predicts (`str`, defaults to `"epsilon"`): Kind of the UNet's prediction: `"epsilon"`, `"v_prediction"` or
            `"sample"`.
        wanted (`str`, *optional*): Kind that `predict_noise` returns, `predicts` by default.
    """

    side: Side
    embeds: torch.Tensor | None = None
    negative_embeds: torch.Tensor | None = None
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    timestep_cond: torch.Tensor | None = None
    guides: Callable[..., dict[str, Any]] | None = None
    unet_kwargs: dict[str, Any] = field(default_factory=dict)
    starts: tuple[int, ...] = ()
    predicts: str = "epsilon"
    wanted: str | None = None

    @property
    def is_guided(self) -> bool:
        """Whether the UNet runs with and without the prompt."""
        return self.side.is_guided(self.guidance_scale)

    @property
    def rows(self) -> int:
        """`B`."""
        return len(self.embeds) // max(len(self.starts), 1)

    @property
    def stacked_embeds(self) -> torch.Tensor | None:
        """Embeddings for the UNet: `(2 * B, L, D)` with guidance, the negative ones first, else `(B, L, D)`."""
        if self.embeds is None or not self.is_guided:
            return self.embeds
        return torch.cat([self.negative_embeds, self.embeds])

    def with_stacked(self, stacked: torch.Tensor, guidance_scale: float) -> "Guided":
        """The same side with other `stacked_embeds`, `(2 * B, L, D)` or `(B, L, D)`, and another guidance scale."""
        changed = replace(self, guidance_scale=guidance_scale)
        if self.starts and len(stacked) != len(changed.stacked_embeds):
            raise ValueError(
                "`callback_on_step_end` may not change the number of embeddings of prompts that change over time, from"
                f" {len(changed.stacked_embeds)} to {len(stacked)}."
            )
        if not changed.is_guided:
            return replace(changed, embeds=stacked)
        negative_embeds, embeds = stacked.chunk(2)
        return replace(changed, embeds=embeds, negative_embeds=negative_embeds)

    def at(self, windows: Windows, places: list[int]) -> "Guided":
        """The side at some windows of the canvas: their rows come one window after the other, `(P * B, ...)`."""
        embeds, negative_embeds = (
            each if each is None else torch.cat([self._at_place(each, windows, i) for i in places])
            for each in (self.embeds, self.negative_embeds)
        )
        cond = self.timestep_cond
        return replace(
            self,
            embeds=embeds,
            negative_embeds=negative_embeds,
            starts=(),
            timestep_cond=cond if cond is None else torch.cat([cond] * len(places)),
            guides=None if self.guides is None else self.guides.at(windows, places, rows=self.rows),
        )

    def _at_place(self, embeds: torch.Tensor, windows: Windows, place: int) -> torch.Tensor:
        """Embeddings `(B, L, D)` of a window: each prompt counts by its share of the window's columns."""
        if not self.starts:
            return embeds
        shares = windows.fractions(place, self.starts)
        parts = embeds.unflatten(0, (len(shares), -1))
        return sum(part * share for part, share in zip(parts, shares) if share)

    def predict_noise(
        self, latents: torch.Tensor, timestep: torch.Tensor, span: tuple[float, float] = (0.0, 1.0)
    ) -> torch.Tensor:
        """
        Noise prediction of the UNet with guidance, or of the kind `wanted`.

        Args:
            latents (`torch.Tensor` of shape `(B, C, h, w)`): Noisy latents at the scale that the UNet takes.
            timestep (`torch.Tensor` of shape `()` or `(B,)`): Noise level.
            span (`tuple[float, float]`): Fractions of the run, 0 to 1, between which this step lies.

        Returns:
            `torch.Tensor` of shape `(B, C, h, w)`.

        Raises:
            ValueError: If there are not as many embeddings as latents.
        """
        prediction = self._predict(latents, timestep, span)
        if self.wanted in (None, self.predicts):
            return prediction
        signal = signal_at(self.side.scheduler, timestep).to(latents).view(-1, 1, 1, 1)
        return convert_prediction(prediction, latents, signal, self.predicts, self.wanted)

    def _predict(self, latents: torch.Tensor, timestep: torch.Tensor, span: tuple[float, float]) -> torch.Tensor:
        embeds, kwargs = self.stacked_embeds, dict(self.unet_kwargs)
        if self.is_guided:
            latents = torch.cat([latents] * 2)  # (2 * B, C, h, w)
            timestep = torch.cat([timestep] * 2) if timestep.dim() else timestep
        check_rows(embeds, latents)
        if self.timestep_cond is not None:
            kwargs["timestep_cond"] = self.timestep_cond
        if self.guides is not None:
            kwargs |= self.guides(latents, timestep, embeds, span)
        noise = self.side.unet(latents, timestep, encoder_hidden_states=embeds, return_dict=False, **kwargs)[0]
        if not self.is_guided:
            return noise
        unprompted, prompted = noise.chunk(2)
        noise = guide(unprompted, prompted, self.guidance_scale)
        return rescale_noise_cfg(noise, prompted, self.guidance_rescale) if self.guidance_rescale > 0 else noise


def signal_at(scheduler: SchedulerMixin, timestep: torch.Tensor) -> torch.Tensor:
    """Share of the signal's variance in noisy samples, alpha-bar, at timesteps `()` or `(B,)`, fractional ones too."""
    levels, timestep = scheduler.alphas_cumprod, timestep.detach().cpu().float()
    below = timestep.floor().long().clamp(0, len(levels) - 1)
    above = (below + 1).clamp(max=len(levels) - 1)
    return torch.lerp(levels[below].float(), levels[above].float(), timestep - below)


def convert_prediction(
    prediction: torch.Tensor, noisy: torch.Tensor, signal: torch.Tensor, kind: str, wanted: str
) -> torch.Tensor:
    """
    A prediction of one kind as another ([arXiv 2202.00512](https://arxiv.org/abs/2202.00512), appendix D).

    Args:
        prediction (`torch.Tensor` of shape `(B, C, h, w)`): Noise, velocity or noiseless sample.
        noisy (`torch.Tensor` of shape `(B, C, h, w)`): Noisy samples of unit variance.
        signal (`torch.Tensor` of shape `()` or `(B, 1, 1, 1)`): Share of the signal's variance, alpha-bar.
        kind, wanted (`str`): `"epsilon"`, `"v_prediction"` or `"sample"`.

    Returns:
        `torch.Tensor` of shape `(B, C, h, w)`.

    Raises:
        ValueError: For another kind.
    """
    alpha, sigma = signal**0.5, (1 - signal) ** 0.5
    if kind not in PREDICTIONS or wanted not in PREDICTIONS:
        raise ValueError(f"`prediction_type` has to be among {PREDICTIONS}, but is {kind!r} and {wanted!r}.")
    if kind == "epsilon":
        noise = prediction
    elif kind == "v_prediction":
        noise = alpha * prediction + sigma * noisy
    else:
        noise = (noisy - alpha * prediction) / sigma
    if wanted == "epsilon":
        return noise
    sample = (noisy - sigma * noise) / alpha if kind != "sample" else prediction
    return sample if wanted == "sample" else alpha * noise - sigma * sample


def prediction_type_of(scheduler: SchedulerMixin) -> str:
    """Kind of prediction that a scheduler's `step` takes."""
    return scheduler.config.get("prediction_type", "epsilon")


def check_rows(embeds: torch.Tensor | None, inputs: torch.Tensor) -> None:
    """Raises `ValueError` unless there are as many embeddings as inputs of a UNet."""
    if embeds is None or len(embeds) != len(inputs):
        rows = "none" if embeds is None else len(embeds)
        raise ValueError(f"There have to be embeddings for each of {len(inputs)} rows, but there are {rows}.")


def guide(unprompted: torch.Tensor, prompted: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): from the prediction without the prompt past the prompted one."""
    return unprompted + guidance_scale * (prompted - unprompted)


# -------------------- Prompts --------------------


@dataclass(frozen=True)
class Request:
    """
    Arguments of a call about one side.

    Args:
        name (`str`): `"prompt"` or `"audio_prompt"`.
        prompt, negative_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Words. A dict holds words that
            change over time, by the second at which they begin.
        prompt_embeds, negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Their embeddings.
        clip_skip (`int`, *optional*): Number of final text-encoder layers to skip for the prompt.
        guidance_scale, guidance_rescale (`float`): As in [`Guided`].
        columns (`tuple[int]`): First column of each prompt, if they change over time.
    """

    name: str
    prompt: str | list[str] | dict[float, str] | None = None
    negative_prompt: str | list[str] | dict[float, str] | None = None
    prompt_embeds: torch.Tensor | None = None
    negative_prompt_embeds: torch.Tensor | None = None
    clip_skip: int | None = None
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    columns: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        values = (self.prompt, self.negative_prompt, self.prompt_embeds, self.negative_prompt_embeds)
        return all(value is None for value in values)

    def over_time(self, columns_per_second: float) -> "Request":
        """
        The request with lists instead of dicts of prompts, and the columns at which their entries begin. Raises
        `ValueError` for prompts over time that make no sense.
        """
        words = {name: getattr(self, name) for name in ("prompt", "negative_prompt")}
        changing = {name: value for name, value in words.items() if isinstance(value, dict)}
        for name, value in changing.items():
            name = self.name if name == "prompt" else f"negative_{self.name}"
            check_over_time(name, value)
            if not are_words(list(value.values())):
                raise ValueError(f"`{name}` over time has to hold strings, but is {shown(value)}.")
        seconds = sorted({second for value in changing.values() for second in value})
        for name, value in words.items() if changing else ():
            if not isinstance(value, (str, dict, type(None))) or self.prompt_embeds is not None:
                raise ValueError(
                    f"`{self.name}` and its negative have to be a string each, or words over time, if one of them"
                    f" changes over time, but there are {shown(self.prompt)} and {shown(self.negative_prompt)}."
                )
            if value is not None:
                by_second = {0: value} if isinstance(value, str) else value
                words[name] = [by_second[max(each for each in by_second if each <= second)] for second in seconds]
        return replace(self, **words, columns=tuple(round(second * columns_per_second) for second in seconds))

    def check(self, side: Side) -> int:
        """Returns the number of prompts. Raises `ValueError` unless the arguments fit together and the side."""
        check_number(self.name.replace("prompt", "guidance_scale"), self.guidance_scale)
        check_number(self.name.replace("prompt", "guidance_rescale"), self.guidance_rescale, least=0, most=1)
        return self.check_prompts(side, side.is_guided(self.guidance_scale))

    def check_prompts(self, side: Side, guided: bool) -> int:
        """Returns the number of prompts. Raises `ValueError` unless they fit together and the side."""
        count = self._check_prompt(side.hidden_size)
        self._check_negative_prompt(count, side.hidden_size)
        needed = {f"{self.name}_embeds": self.prompt_embeds}
        if guided:
            needed[f"negative_{self.name}_embeds"] = self.negative_prompt_embeds
        if side.text_encoder is None and any(value is None for value in needed.values()):
            raise ValueError(f"Without `text_encoder`, {' and '.join(f'`{n}`' for n in needed)} have to be given.")
        if self.clip_skip is not None and self.prompt_embeds is None:
            most = side.text_encoder.config.num_hidden_layers
            check_integer(self.name.replace("prompt", "clip_skip"), self.clip_skip, least=0, most=most)
        return count

    def _check_prompt(self, hidden_size: int | str) -> int:
        if (self.prompt is None) == (self.prompt_embeds is None):
            raise ValueError(
                f"Exactly one of `{self.name}` and `{self.name}_embeds` has to be given, but"
                f" {'neither is' if self.prompt is None else 'both are'}."
            )
        if self.prompt_embeds is not None:
            return len(check_tensor(f"{self.name}_embeds", self.prompt_embeds, ("B", "L", hidden_size)))
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not are_words(prompts) or not prompts:
            raise ValueError(f"`{self.name}` has to be a string or a list of strings, but is {shown(self.prompt)}.")
        return 1 if self.columns else len(prompts)

    def _check_negative_prompt(self, count: int, hidden_size: int | str) -> None:
        words, embeds, name = self.negative_prompt, self.negative_prompt_embeds, f"negative_{self.name}"
        if words is not None and embeds is not None:
            raise ValueError(f"Only one of `{name}` and `{name}_embeds` can be given, but both are.")
        count = len(self.columns) or count
        words = [words] * count if isinstance(words, str) else words
        if words is not None and not (are_words(words) and len(words) == count):
            raise ValueError(f"`{name}` has to be a string or a list of {count} strings, but is {shown(words)}.")
        if embeds is None:
            return
        check_tensor(f"{name}_embeds", embeds, ("B", "L", hidden_size))
        if self.prompt_embeds is not None and embeds.shape != self.prompt_embeds.shape:
            raise ValueError(
                f"`{name}_embeds` has to be of the prompt's shape {tuple(self.prompt_embeds.shape)}, but is of shape"
                f" {tuple(embeds.shape)}."
            )
        if len(embeds) != count:
            raise ValueError(f"`{name}_embeds` has to hold {count} rows, one per prompt, but holds {len(embeds)}.")

    def encode(
        self, encode_words: Callable[..., torch.Tensor], guided: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Embeddings and negative embeddings, each of shape `(B, L, D)`. The negative ones are `None` without guidance.
        `encode_words` makes embeddings of a list of words, and takes `clip_skip` if that is given.
        """
        embeds, negative_embeds = self.prompt_embeds, self.negative_prompt_embeds if guided else None
        if embeds is None:
            # As in diffusers, all layers read the negative prompt.
            skip = {} if self.clip_skip is None else {"clip_skip": self.clip_skip}
            embeds = encode_words([self.prompt] if isinstance(self.prompt, str) else list(self.prompt), **skip)
        if guided and negative_embeds is None:
            words = self.negative_prompt or ""
            negative_embeds = encode_words([words] * len(embeds) if isinstance(words, str) else list(words))
        if guided and negative_embeds.shape != embeds.shape:
            raise ValueError(
                f"`{self.name}` and its negative have to be embedded alike, but their embeddings are of shapes"
                f" {tuple(embeds.shape)} and {tuple(negative_embeds.shape)}."
            )
        return embeds, negative_embeds


def check_over_time(name: str, value: dict) -> None:
    """Raises `ValueError` unless the keys of an argument over time are seconds from 0 on."""
    seconds = [plain_number(each) for each in value]
    if 0 not in seconds or not all(isinstance(each, Real) and 0 <= each < float("inf") for each in seconds):
        raise ValueError(f"`{name}` over time has to be a dict by seconds that begins at 0, but is {shown(value)}.")


def are_words(value: Any) -> bool:
    """Whether a value is a list of strings."""
    return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)


def common_batch_size(counts: dict[str, int], num_images_per_prompt: int) -> int:
    """Batch size of inputs that are equally many, or one for all, by their arguments; else raises `ValueError`."""
    most = max(counts.values())
    if set(counts.values()) - {1, most}:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in counts)} have to be equally many, or one for all, but there are"
            f" {' and '.join(map(str, counts.values()))}."
        )
    return most * check_integer("num_images_per_prompt", num_images_per_prompt)


def expand_rows(rows: torch.Tensor | None, batch_size: int) -> torch.Tensor | None:
    """Repeats each of `n` rows `(n, ...)` so that there are `batch_size`, a multiple of `n`."""
    return None if rows is None else rows.repeat_interleave(batch_size // len(rows), dim=0)


def tokenize(tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_length: int | None = None) -> BatchEncoding:
    """Tokens `(B, L)` of prompts. Prompts of more than `max_length` tokens are cut, with a warning."""
    max_length = max_length or tokenizer.model_max_length
    for prompt in prompts:
        ids = tokenizer(prompt).input_ids
        if len(ids) > max_length:
            removed = tokenizer.decode(ids[max_length - 1 : -1])
            logger.warning(f"A prompt is cut to {max_length} tokens, which leaves out: {removed[:1000]}")
    return tokenizer(prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
