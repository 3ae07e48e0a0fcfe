"""
Trains the embedded checkpoint's scores from nothing: a small CLIP and a small CLAP that know the prompts, pictures and
sounds of `embedded_world`. Stages: data, tokenizer, CLIP, CLAP. A killed run that is started again with the same
arguments goes on where it was.
"""

import argparse
import time
from pathlib import Path

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
    PreTrainedTokenizerBase,
    RobertaTokenizer,
)

from images_that_sound.scripts.sampling import EMBEDDED
from images_that_sound.scripts.train_embedded import (
    HEIGHT,
    SHARD_SIZE,
    SPECTROGRAM,
    WIDTH,
    autocast,
    describe,
    draw,
    draw_waveform,
    generators_of_step,
    learn_tokenizer,
    log,
    make_data,
    train,
)
from images_that_sound.selection.clap import clap_features


# One sound in so many is heard from a canvas that a picture overlays, by Griffin-Lim.
MIXED_ONE_IN = 3
MIXED_ITERATIONS = 16
IMAGE_SIZE = 64


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", required=True, help="Gets the folders `clip` and `clap`.")
    parser.add_argument("--work_dir", default="train_scores", help="Data, checkpoints and log.jsonl.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_draws", type=int, default=6000, help="Draws of each modality to learn from.")
    parser.add_argument("--clip_steps", type=int, default=3000)
    parser.add_argument("--clap_steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--save_every", type=int, default=200, help="Steps between checkpoints.")
    parser.add_argument("--bfloat16", action="store_true", help="Run forward passes in bfloat16.")
    return parser.parse_args(input_args)


def clap_feature_extractor() -> ClapFeatureExtractor:
    """CLAP's front end in half the resolution of time and pitch."""
    return ClapFeatureExtractor(
        feature_size=32, hop_length=960, fft_window_size=2048, frequency_max=8000, truncation="rand_trunc", top_db=None
    )


def draw_heard(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """One sound as CLAP hears it, (1, T, M) in dB as float16, its name and its attributes."""
    generator = np.random.default_rng([seed, 3, index])
    audio, name, attributes = draw_waveform(generator)
    if index % MIXED_ONE_IN == 0:
        picture, _, _ = draw("picture", seed, index)
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
    own = torch.eye(len(names), device=logits.device)
    targets = own_share * own + (1 - own_share) * same / same.sum(dim=1, keepdim=True)
    both = (torch.nn.functional.cross_entropy(each.float(), targets) for each in (logits, logits_transposed))
    return sum(both) / 2


def seen_crops(data: dict, rows: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Square crops (B, 1, H, H) of pictures as uint8, half of them overlaid with sounds and blurred."""
    pictures, sounds = data["picture"][0], data["sound"][0]
    crops = np.empty((len(rows), 1, HEIGHT, HEIGHT), np.uint8)
    for i, row in enumerate(rows):
        left = int(numbers.integers(WIDTH - HEIGHT + 1))
        crop = torch.from_numpy(pictures[row][:, left : left + HEIGHT].astype(np.float32))[None]
        if i % 2:
            sound = sounds[int(numbers.integers(len(sounds)))][:, left : left + HEIGHT].astype(np.float32)
            weight, blur = numbers.uniform(0, 0.6), 2 * int(numbers.integers(3)) + 1
            crop = (1 - weight) * crop + weight * torch.from_numpy(sound)
            crop = torch.nn.functional.avg_pool2d(crop, blur, 1, blur // 2, count_include_pad=False)
        crops[i] = crop.numpy()
    return crops


def text_config(tokenizer: PreTrainedTokenizerBase) -> dict:
    """The text side of either model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def train_clip(args: argparse.Namespace, data: dict) -> tuple[CLIPModel, CLIPProcessor]:
    """Learns to match square windows of pictures, also of faint ones, with their prompts."""
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    processor = CLIPProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer,
    )
    torch.manual_seed(args.seed)
    text = text_config(tokenizer)
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).to(args.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = generators_of_step(args, 20, step)
        labels = data["picture"][1]
        rows = numbers.integers(len(labels), size=args.batch_size)
        prompts = [describe("picture", labels[row], numbers) for row in rows]
        inputs = processor(
            text=prompts,
            images=list(np.repeat(seen_crops(data, rows, numbers), 3, axis=1)),
            input_data_format="channels_first",
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with autocast(args):
            output = model(**inputs.to(args.device))
        names = [labels[row]["name"] for row in rows]
        return contrastive_loss(output.logits_per_image, output.logits_per_text, names)

    train(args, "clip", model, loss_of_step, args.clip_steps)
    return model, processor


def train_clap(args: argparse.Namespace, heard: tuple) -> tuple[ClapModel, ClapProcessor]:
    """Learns to match sounds, also those that a picture bends, with their prompts."""
    features, labels = heard
    generator = np.random.default_rng(0)
    prompts = (describe("sound", label, generator) for label in labels)
    tokenizer = learn_tokenizer(args, RobertaTokenizer, prompts, vocab_size=700, max_length=77)
    processor = ClapProcessor(clap_feature_extractor(), tokenizer)
    torch.manual_seed(args.seed)
    text = {**text_config(tokenizer), "max_position_embeddings": tokenizer.model_max_length + 2}
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
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=64)).to(args.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = generators_of_step(args, 21, step)
        rows = numbers.integers(len(labels), size=args.batch_size)
        prompts = [describe("sound", labels[row], numbers) for row in rows]
        tokens = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True).to(args.device)
        with autocast(args):
            output = model(
                input_features=torch.from_numpy(features[rows].astype(np.float32)).to(args.device), **tokens
            )
        names = [labels[row]["name"] for row in rows]
        return contrastive_loss(output.logits_per_audio, output.logits_per_text, names)

    train(args, "clap", model, loss_of_step, args.clap_steps)
    return model, processor


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    args.num_draws -= args.num_draws % SHARD_SIZE
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    start = time.time()
    data = make_data(args)
    heard = make_data(args, ("heard",), draw_heard)["heard"]
    log(args, stage="data", seconds=round(time.time() - start, 1))
    for name, (model, processor) in {"clip": train_clip(args, data), "clap": train_clap(args, heard)}.items():
        folder = Path(args.output_dir) / name
        model.to("cpu", torch.float16).save_pretrained(folder)
        processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
