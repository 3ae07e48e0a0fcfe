"""Training of a LoRA of the audio side from a folder of sounds, which goes on exactly after a kill."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...pipelines import ImagesThatSoundImg2ImgPipeline, MelSpectrogram
from .border import arguments_named
from .canvases import picture_of
from .files import check_own_folder, json_text, keep_settings, write_json, write_text, written
from .forecast import clock, say_duration
from .lora_cards import card_of
from .loudness import levelled
from .models import load_pipeline, prepare_loras
from .own_files import sha256_of
from .presets import WORLD_PROMPTS
from .progress import tell
from .samples import write_audio, write_picture
from .sampling import start
from .sound_folders import CaptionedSound, read_sound, say_captions, windows_of
from .values import Models, Training
from .vocabulary import unknown_in, words_of


WEIGHTS, STATE, SETTINGS, CARD = "pytorch_lora_weights.safetensors", "unfinished.pt", "settings.json", "README.md"
# Layers that a new sound changes: attention, its feed-forward layers, and the convolutions, which draw textures.
LAYERS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
]
# Share of the steps in which the learning rate rises.
WARMUP = 0.05
DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Values that do not change what is learned.
ON_THE_WAY = ("checkpointing_steps", "validation_prompt", "validation_steps")


@dataclass(frozen=True)
class Canvases:
    """
    What is learned from.

    Args:
        latents (`list[torch.Tensor]`): For each sound its windows, `(W, C, h, w)`.
        captions (`list[str]`): For each sound its caption.
        embeds (`dict[str, torch.Tensor]`): Embeddings `(1, L, D)` of captions and of kept prompts.
        kept (`list[str]`): Prompts that are to mean what they mean without the LoRA.
    """

    latents: list[torch.Tensor]
    captions: list[str]
    embeds: dict[str, torch.Tensor]
    kept: list[str]


def train(
    sounds: list[CaptionedSound], output_dir: Path, models: Models, training: Training, report_to: str | None = None
) -> Path:
    """
    Trains a LoRA, or goes on with one that was stopped; returns its file.

    Args:
        sounds (`list[CaptionedSound]`): Files and captions, as [`captioned_sounds`] finds them.
        output_dir (`Path`): Gets the LoRA, its card, samples on the way, and the state of a run that is stopped.
        models ([`Models`]): The audio side, as `model`.
        training ([`Training`]): Numbers of the training.
        report_to (`str`, *optional*): A tracker of accelerate.
    """
    prepare_loras("train-lora")
    accelerator, models = start(
        replace(models, dtype=DTYPES[training.mixed_precision]),
        output_dir,
        report_to,
        mixed_precision=training.mixed_precision,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
    )
    if accelerator.is_main_process:
        begin(output_dir, settings_of(models, training, sounds))
    if (output_dir / WEIGHTS).exists():
        tell("The LoRA was there already.")
        return output_dir / WEIGHTS
    with arguments_named(model="audio_model"):
        pipe = load_pipeline(models, ImagesThatSoundImg2ImgPipeline)
    # Only the audio side is trained and heard.
    pipe.register_modules(unet=pipe.unet_audio)
    pipe.set_progress_bar_config(disable=True)
    width = pipe.resolve_size(width=training.width).width
    canvases = read_canvases(pipe, sounds, width, training.seed)
    say_unknown(pipe, canvases.captions, models.model)
    lora = LoraTraining(pipe, training, accelerator)
    for step in _steps(lora, canvases, output_dir):
        if accelerator.is_main_process and step % training.validation_steps == 0:
            prompt = training.validation_prompt or Counter(canvases.captions).most_common(1)[0][0]
            lora.write_sample(output_dir / "samples" / f"step-{step:06d}", prompt, width, step)
    if accelerator.is_main_process:
        finish(lora, canvases.captions, models, output_dir)
    accelerator.end_training()
    return output_dir / WEIGHTS


def _steps(lora: "LoraTraining", canvases: Canvases, output_dir: Path) -> Iterator[int]:
    """Takes the steps that are missing; yields the number of each that is done."""
    total, first = lora.training.max_train_steps, lora.resume(output_dir)
    if first:
        tell(f"Going on after step {first} of {total}.")
    start_time = clock()
    with tqdm(total=total, initial=first, desc="Training steps") as bar:
        for step in range(first + 1, total + 1):
            loss = lora.step(step, canvases)
            bar.set_postfix(loss=f"{loss:.4f}")
            bar.update()
            lora.accelerator.log({"loss": loss}, step=step)
            if step == first + 1:
                start_time = clock()
            elif step == first + 2:
                say_duration(f"Training {total - first} steps", (clock() - start_time) * (total - first))
            if step % lora.training.checkpointing_steps == 0 and lora.accelerator.is_main_process:
                lora.save_state(output_dir, step)
            yield step


# -------------------- The folder of a LoRA --------------------


def settings_of(models: Models, training: Training, sounds: list[CaptionedSound]) -> dict[str, Any]:
    """All that decides what is learned, with one SHA-256 of all sounds and captions."""
    numbers = {name: value for name, value in asdict(training).items() if name not in ON_THE_WAY}
    listed = [[sound.name, sound.caption, sha256_of(sound.path, "sound")] for sound in sounds]
    digest = hashlib.sha256(json_text(listed).encode()).hexdigest()
    return {"audio_model": models.model, "spectrogram": models.spectrogram, **numbers, "sha256": digest}


def begin(output_dir: Path, settings: dict[str, Any]) -> None:
    """Writes the settings. Raises `ValueError` for a folder with another LoRA in it."""
    check_own_folder(output_dir)
    if (output_dir / WEIGHTS).exists() and not (output_dir / SETTINGS).exists():
        raise ValueError(f"`output_dir` holds {output_dir / WEIGHTS}, which was not made here. Name another folder.")
    keep_settings(output_dir, settings)


def finish(lora: "LoraTraining", captions: list[str], models: Models, output_dir: Path) -> None:
    """Writes the LoRA, the words that it knows, and a card unless one is there; removes the state."""
    names = list(dict.fromkeys(captions))
    words = sorted({word for name in names for word in words_of(name)})
    write_json(output_dir / "vocabulary.json", {"sound": {"names": names, "words": words}})
    if not (output_dir / CARD).exists():
        write_text(output_dir / CARD, card_of(models.model, captions, lora.training))
    lora.save_weights(output_dir)
    (output_dir / STATE).unlink(missing_ok=True)


def say_unknown(pipe: ImagesThatSoundImg2ImgPipeline, captions: list[str], model: str) -> None:
    """Tells of captions with words that the checkpoint does not know how it reads them."""
    for caption in dict.fromkeys(captions):
        if unknown := unknown_in(caption, model, "sound"):
            pieces = [each.removesuffix("</w>") for word in unknown for each in pipe.tokenizer.tokenize(word)]
            tell(
                f"The checkpoint does not know {', '.join(f'“{each}”' for each in unknown)} in the caption"
                f" “{caption}”. The sound is tied to the tokens that it reads instead: {' '.join(pieces)}. Write the"
                " same words in prompts."
            )


# -------------------- Canvases --------------------


@torch.no_grad()
def read_canvases(
    pipe: ImagesThatSoundImg2ImgPipeline, sounds: list[CaptionedSound], width: int, seed: int
) -> Canvases:
    """
    Draws the sounds of a folder, and says what is wrong with them. Raises `ValueError` if none is left.

    Args:
        pipe ([`ImagesThatSoundImg2ImgPipeline`]): The audio side, with its constants.
        sounds (`list[CaptionedSound]`): Files and captions.
        width (`int`): Columns of the canvases.
        seed (`int`): Source of the VAE's noise.
    """
    mel, cropped, captions, latents = pipe.mel_spectrogram, pipe.default_arguments["crop_right"], [], []
    vae, generator = pipe.audio_side.vae, torch.Generator().manual_seed(seed)
    if width < mel.min_columns + cropped:
        raise ValueError(f"`width` has to be at least {mel.min_columns + cropped}, but is {width}.")
    for sound in tqdm(sounds, desc="Sounds", delay=1):
        audio = read_sound(sound, mel.sampling_rate)
        if audio is not None:
            canvases = drawn_windows(audio, mel, width, cropped).split(1)
            pieces = [pipe.encode_canvases(each, vae, generator) for each in canvases]
            latents.append(torch.cat(pieces).float().cpu())
            captions.append(sound.caption)
    if not captions:
        raise ValueError("`audio_dir` has to hold a sound that can be learned from, but all are left out.")
    say_captions(captions)
    kept = [prompt for prompt in ("", *WORLD_PROMPTS["sound"].values()) if prompt not in captions]
    embeds = {
        text: pipe.encode_prompt(None, text, do_audio_classifier_free_guidance=False)[2]
        for text in dict.fromkeys((*captions, *kept))
    }
    return Canvases(latents, captions, embeds, kept)


def drawn_windows(audio: np.ndarray, mel: MelSpectrogram, width: int, cropped: int) -> torch.Tensor:
    """
    Canvases `(W, 1, M, T)` of the windows of a waveform `(N,)`, each levelled by itself. Their last columns, which the
    audio side crops, are silent, as its own are.
    """
    windows = windows_of(audio, mel.num_samples(width - cropped))
    canvases = mel.audio_to_canvas(torch.from_numpy(np.stack(windows)))
    return torch.nn.functional.pad(canvases, (0, width - canvases.shape[-1]), value=mel.silence)


# -------------------- Training --------------------


class LoraTraining:
    """
    A LoRA in training.

    Args:
        pipe ([`ImagesThatSoundImg2ImgPipeline`]): Its audio side gets the LoRA.
        training ([`Training`]): Numbers of the training.
        accelerator (`accelerate.Accelerator`): Precision, accumulation and processes.
    """

    def __init__(self, pipe: ImagesThatSoundImg2ImgPipeline, training: Training, accelerator: Accelerator):
        from peft import LoraConfig

        self.pipe, self.training, self.accelerator = pipe, training, accelerator
        kind = pipe.config.get("audio_prediction_type") or pipe.scheduler.config.prediction_type
        self.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
        self.unet, self.dtype = pipe.unet_audio.requires_grad_(False), pipe.unet_audio.dtype
        torch.manual_seed(training.seed)
        rank = training.rank
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LAYERS))
        cast_training_params(self.unet, dtype=torch.float32)
        if training.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.parameters = [each for each in self.unet.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, lr=training.learning_rate)
        steps = training.max_train_steps
        self.schedule = get_scheduler(
            "cosine", optimizer, num_warmup_steps=round(WARMUP * steps), num_training_steps=steps
        )
        self.model, self.optimizer = accelerator.prepare(self.unet.train(), optimizer)

    def step(self, number: int, canvases: Canvases) -> float:
        """One step of the optimizer, whose draws are seeded by its number; returns the loss."""
        losses = []
        for part in range(self.training.gradient_accumulation_steps):
            numbers = np.random.default_rng([self.training.seed, number, part, self.accelerator.process_index])
            with self.accelerator.accumulate(self.model), self._kernel():
                loss = self._loss(canvases, numbers)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.parameters, 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.item())
        self.schedule.step()
        return float(np.mean(losses))

    def _kernel(self) -> AbstractContextManager:
        # On a CPU plain matrix products go backwards many times faster than the fused attention.
        return sdpa_kernel(SDPBackend.MATH) if self.accelerator.device.type == "cpu" else nullcontext()

    def _loss(self, canvases: Canvases, numbers: np.random.Generator) -> torch.Tensor:
        """
        The squared error for sounds and their captions, and for other prompts the squared difference from what the
        UNet predicts without the LoRA.
        """
        size, device = self.training.train_batch_size, self.accelerator.device
        rows = numbers.integers(len(canvases.latents), size=size)
        clean = torch.stack([canvases.latents[i][numbers.integers(len(canvases.latents[i]))] for i in rows])
        noise = torch.from_numpy(numbers.standard_normal(clean.shape, np.float32))
        timesteps = torch.from_numpy(numbers.integers(self.scheduler.config.num_train_timesteps, size=size))
        noisy = self.scheduler.add_noise(clean, noise, timesteps).to(device, self.dtype)
        target = self._target(clean, noise, timesteps).to(device)
        embeds = torch.cat([canvases.embeds[canvases.captions[i]] for i in rows])
        timesteps, squares = timesteps.to(device), torch.nn.functional.mse_loss
        weight = self.training.prior_loss_weight
        if not weight:
            return squares(self.model(noisy, timesteps, embeds).sample.float(), target)
        kept = torch.cat([canvases.embeds[canvases.kept[i]] for i in numbers.integers(len(canvases.kept), size=size)])
        known = self._without_lora(noisy, timesteps, kept)
        twice = (torch.cat([noisy] * 2), torch.cat([timesteps] * 2), torch.cat([embeds, kept]))
        learned, remembered = self.model(*twice).sample.float().chunk(2)
        return squares(learned, target) + weight * squares(remembered, known)

    @torch.no_grad()
    def _without_lora(self, noisy: torch.Tensor, timesteps: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        self.unet.disable_adapters()
        known = self.unet(noisy, timesteps, embeds).sample.float()
        self.unet.enable_adapters()
        return known

    def _target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the UNet is to predict."""
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.scheduler.get_velocity(clean, noise, timesteps)
        return {"epsilon": noise, "sample": clean}[kind]

    def save_weights(self, folder: Path) -> None:
        """Writes the LoRA in diffusers' format."""
        from peft import get_peft_model_state_dict

        # By PEFT's names: `convert_state_dict_to_diffusers` renames those of attention alone, which diffusers then
        # leaves out when it loads the file.
        weights = {name: value.cpu() for name, value in get_peft_model_state_dict(self.unet).items()}
        with written(folder / WEIGHTS) as file:
            StableDiffusionPipeline.save_lora_weights(file.parent, weights)
            # safetensors writes for the owner of a file alone.
            file.chmod(0o644)

    def save_state(self, folder: Path, step: int) -> None:
        from peft import get_peft_model_state_dict

        parts = {"lora": get_peft_model_state_dict(self.unet), **{n: p.state_dict() for n, p in self._parts().items()}}
        with written(folder / STATE) as file:
            torch.save({"step": step, **parts}, file)

    def resume(self, folder: Path) -> int:
        """Loads the state of a stopped training; returns the number of its steps, 0 if there is none."""
        from peft import set_peft_model_state_dict

        file = folder / STATE
        if not file.exists():
            return 0
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            set_peft_model_state_dict(self.unet, state["lora"])
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except Exception as error:  # a damaged file can raise anything in the reader
            raise ValueError(f"`output_dir` holds {file}, which can't be read. Remove it to begin anew.") from error
        return state["step"]

    def _parts(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {"optimizer": self.optimizer, "schedule": self.schedule, **({"scaler": scaler} if scaler else {})}

    def write_sample(self, file: Path, prompt: str, width: int, step: int) -> None:
        """A canvas and its sound, of the audio side alone, always from the same noise: PNG, WAV and the trackers."""
        self.unet.eval()
        generator = torch.Generator().manual_seed(self.training.seed)
        # Of the strength 1, nothing of this picture is kept.
        empty = torch.zeros(1, 1, self.pipe.mel_spectrogram.num_mel_bins, width)
        call = {"strength": 1.0, "width": width, "audio_weight": 1.0, "generator": generator, "output_type": "pt"}
        output = self.pipe(None, prompt, empty, **call)
        self.unet.train()
        canvas, audio, rate = output.spectrograms[0].float().cpu(), output.audios[0].float(), self.pipe.sampling_rate
        with written(file.with_suffix(".png")) as picture:
            text = json_text({"spectrogram": self.pipe.mel_spectrogram.to_dict()})
            write_picture(picture, picture_of(canvas[0]), text)
        with written(file.with_suffix(".wav")) as sound:
            write_audio(sound, levelled(audio.numpy(), rate)[0], rate)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                tracker.log_images({"canvas": canvas[None].numpy()}, step=step)
            if tracker.name == "tensorboard":
                tracker.tracker.add_audio("sound", audio[None], step, sample_rate=rate)
