"""
Trains the embedded checkpoint's scores from nothing: a small CLIP and a small CLAP that know the prompts, pictures and
sounds of `world`. Stages: data, tokenizer, CLIP, CLAP. A killed run that is started again with the same
arguments goes on from its last state.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    RobertaTokenizer,
)

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.selection.clap import clap_features

from . import world as drawn_world
from .loop import Run, learn_tokenizer, make_data, parse_run, small_text_config, train
from .world import HEIGHT, SPECTROGRAM, WIDTH


# One sound in so many is heard from a canvas that a picture overlays, by Griffin-Lim.
MIXED_ONE_IN = 3
MIXED_ITERATIONS = 16
IMAGE_SIZE = 64


def clap_feature_extractor() -> ClapFeatureExtractor:
    """CLAP's front end in half the resolution of time and pitch."""
    return ClapFeatureExtractor(
        feature_size=32, hop_length=960, fft_window_size=2048, frequency_max=8000, truncation="rand_trunc", top_db=None
    )


def draw_heard(world: str, kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """One sound of a world's module as CLAP hears it, (1, T, M) in dB as float16, its name and its attributes."""
    generator = np.random.default_rng([seed, 3, index])
    audio, name, attributes = import_module(world).draw_waveform(generator)
    if index % MIXED_ONE_IN == 0:
        picture, _, _ = import_module(world).draw("picture", seed, index)
        weight = generator.uniform(0, 0.6)
        canvas = (1 - weight) * SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio)) + weight * picture / 255
        log_mel = SPECTROGRAM.canvas_to_log_mel(canvas[None].float())
        audio = SPECTROGRAM.griffin_lim(log_mel, MIXED_ITERATIONS)[0].numpy()
    features = clap_features(clap_feature_extractor(), audio[None], SPECTROGRAM.sampling_rate)
    return features[0].numpy().astype(np.float16), name, attributes


def contrastive_loss(
    logits: torch.Tensor, logits_transposed: torch.Tensor, names: list[str], own_share: float = 0.5
) -> torch.Tensor:
    """
    CLIP's loss (arXiv 2103.00020, figure 3) on logits `(B, B)` of both directions, with soft targets: a row's own
    prompt gets `own_share`, all prompts of rows with its name the rest.
    """
    same = torch.tensor([[float(one == other) for other in names] for one in names], device=logits.device)
    itself = torch.eye(len(names), device=logits.device)
    targets = own_share * itself + (1 - own_share) * same / same.sum(dim=1, keepdim=True)
    both = (torch.nn.functional.cross_entropy(each.float(), targets) for each in (logits, logits_transposed))
    return sum(both) / 2


def seen_crops(data: dict, rows: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """
    Square crops (B, 1, H, H) of pictures as uint8, around a thing if the label says where things are, half of them
    overlaid with sounds and blurred.
    """
    (pictures, labels), sounds = data["picture"], data["sound"][0]
    crops = np.empty((len(rows), 1, HEIGHT, HEIGHT), np.uint8)
    for i, row in enumerate(rows):
        left = int(numbers.integers(WIDTH - HEIGHT + 1))
        if centers := labels[row]["attributes"].get("centers"):
            center = centers[int(numbers.integers(len(centers)))] * WIDTH + numbers.uniform(-40, 40)
            left = int(np.clip(center - HEIGHT / 2, 0, WIDTH - HEIGHT))
        crop = torch.from_numpy(pictures[row][:, left : left + HEIGHT].astype(np.float32))[None]
        if i % 2:
            sound = sounds[int(numbers.integers(len(sounds)))][:, left : left + HEIGHT].astype(np.float32)
            weight, blur = numbers.uniform(0, 0.6), 2 * int(numbers.integers(3)) + 1
            crop = (1 - weight) * crop + weight * torch.from_numpy(sound)
            crop = torch.nn.functional.avg_pool2d(crop, blur, 1, blur // 2, count_include_pad=False)
        crops[i] = crop.numpy()
    return crops


def train_clip(
    run: Run, data: dict, tokenizer: CLIPTokenizer, describe: Callable, width: int
) -> tuple[CLIPModel, CLIPProcessor]:
    """Learns to match square windows of pictures, also of faint ones, with their prompts."""
    processor = CLIPProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer,
    )
    torch.manual_seed(run.seed)
    text = {**small_text_config(tokenizer, width), "max_position_embeddings": tokenizer.model_max_length}
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(20, step)
        labels = data["picture"][1]
        rows = numbers.integers(len(labels), size=run.batch_size)
        prompts = [describe("picture", labels[row], numbers) for row in rows]
        inputs = processor(
            text=prompts,
            images=list(np.repeat(seen_crops(data, rows, numbers), 3, axis=1)),
            input_data_format="channels_first",
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with run.autocast():
            output = model(**inputs.to(run.device))
        names = [labels[row]["name"] for row in rows]
        return contrastive_loss(output.logits_per_image, output.logits_per_text, names)

    train(run, "clip", model, loss_of_step)
    return model, processor


def train_clap(run: Run, heard: tuple, describe: Callable, width: int) -> tuple[ClapModel, ClapProcessor]:
    """Learns to match sounds, also those that a picture bends, with their prompts."""
    features, labels = heard
    generator = np.random.default_rng(0)
    prompts = (describe("sound", label, generator) for label in labels)
    tokenizer = learn_tokenizer(run, RobertaTokenizer, prompts, vocab_size=700, max_length=77)
    processor = ClapProcessor(clap_feature_extractor(), tokenizer)
    torch.manual_seed(run.seed)
    text = {**small_text_config(tokenizer, width), "max_position_embeddings": tokenizer.model_max_length + 2}
    audio = {
        "num_mel_bins": 32,
        "spec_size": 128,
        "patch_embeds_hidden_size": 32,
        "hidden_size": 128,
        "depths": [1, 2, 2],
        "num_attention_heads": [2, 4, 8],
        "num_hidden_layers": 3,
        "hidden_dropout_prob": 0.0,
    }
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=width)).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(21, step)
        rows = numbers.integers(len(labels), size=run.batch_size)
        prompts = [describe("sound", labels[row], numbers) for row in rows]
        tokens = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True).to(run.device)
        with run.autocast():
            output = model(input_features=torch.from_numpy(features[rows].astype(np.float32)).to(run.device), **tokens)
        names = [labels[row]["name"] for row in rows]
        return contrastive_loss(output.logits_per_audio, output.logits_per_text, names)

    train(run, "clap", model, loss_of_step)
    return model, processor


def train_scores(run: Run, world: ModuleType, tokenizer: CLIPTokenizer, width: int) -> None:
    """Trains and saves both models on a world, their text sides `width` channels wide."""
    data = make_data(run, world.draw, ("picture", "sound"))
    heard = make_data(run, partial(draw_heard, world.__name__), ("heard",))["heard"]
    clip = train_clip(run, data, tokenizer, world.describe, width)
    clap = train_clap(run, heard, world.describe, width)
    for name, (model, processor) in {"clip": clip, "clap": clap}.items():
        model.to("cpu", torch.float16).save_pretrained(run.output_dir / name)
        processor.save_pretrained(run.output_dir / name)


def main(input_args: list[str] | None = None) -> None:
    steps = {"clip": 3000, "clap": 2000}
    work_dir = "outputs/train_scores"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=6000, batch_size=64, steps=steps)
    train_scores(run, drawn_world, CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer"), width=64)


if __name__ == "__main__":
    main()
