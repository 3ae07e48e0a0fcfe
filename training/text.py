"""
Trains tokenizer and text encoder: for each wording of a name it learns to say the tokens that the UNets learned for
that name. Takes minutes. Run `training.unets` before.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.functional import layer_norm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .loop import (
    Run,
    learn_tokenizer,
    load_as_float32,
    parse_run,
    save_model,
    small_text_config,
    tokenize,
    train,
    trapezoid,
)
from .open_world.pictures import WILD
from .open_world.squares import Squares, describe, make_squares
from .unets import FRONT_TOKENS, MAX_TOKENS, TEXT_WIDTH


KINDS = ("picture", "sound")
# Tokens in front mean nothing yet.
FRONT_WEIGHT = 0.1


def make_tokenizer(run: Run, data: dict[str, Squares]) -> CLIPTokenizer:
    numbers = np.random.default_rng(0)
    prompts = (describe(kind, label, numbers) for kind in KINDS for label in data[kind].labels for _ in range(20))
    return learn_tokenizer(run, CLIPTokenizer, prompts, vocab_size=2560, max_length=MAX_TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    # It has to keep sixteen tokens for each of hundreds of names.
    sizes = small_text_config(tokenizer, TEXT_WIDTH) | {"intermediate_size": 8 * TEXT_WIDTH, "num_hidden_layers": 4}
    return CLIPTextModel(CLIPTextConfig(**sizes, projection_dim=TEXT_WIDTH, max_position_embeddings=MAX_TOKENS))


def read_words(folder: Path) -> dict[str, torch.Tensor]:
    """Learned tokens (N, 16, D) of each kind's names, `front` (16, D) and `empty` (1, 16, D)."""
    files = {kind: load_file(folder / "words" / f"{kind}.safetensors") for kind in KINDS}
    size = (MAX_TOKENS - FRONT_TOKENS, TEXT_WIDTH)
    words = {kind: file["words"].float().view(-1, *size) for kind, file in files.items()}
    common = {"front": files["picture"]["front"].float(), "empty": files["picture"]["empty"].float().view(-1, *size)}
    return {name: layer_norm(each, (TEXT_WIDTH,)) for name, each in {**words, **common}.items()}


def train_text_encoder(
    run: Run, data: dict[str, Squares], tokenizer: CLIPTokenizer, words: dict[str, torch.Tensor]
) -> CLIPTextModel:
    """Learns to say for each wording of a name the tokens that the UNets learned for it."""
    torch.manual_seed(run.seed)
    drawn = {WILD: [{"name": WILD}], **{kind: data[kind].labels for kind in KINDS}}
    rows = {}
    for kind in KINDS:
        names = list(dict.fromkeys(label["name"] for label in data[kind].labels)) + [WILD] * (kind == "picture")
        rows |= {(kind, name): row for name, row in zip(names, words[kind], strict=True)}
    rows[WILD, WILD] = rows["picture", WILD]
    text_encoder = new_text_encoder(tokenizer).to(run.device)
    kinds = ["picture"] * 5 + ["sound", WILD, "empty"]

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(0, step)
        prompts, wanted = [], []
        for kind in kinds * max(run.batch_size // 4, 1):
            label = {} if kind == "empty" else drawn[kind][int(numbers.integers(len(drawn[kind])))]
            prompts.append("" if kind == "empty" else describe(kind, label, numbers))
            wanted.append(words["empty"][0] if kind == "empty" else rows[kind, label["name"]])
        said = text_encoder(tokenize(tokenizer, prompts, run.device)).last_hidden_state
        errors = (said[:, FRONT_TOKENS:] - torch.stack(wanted).to(said)).square().mean()
        return errors + FRONT_WEIGHT * (said[:, :FRONT_TOKENS] - words["front"].to(said)).square().mean()

    train(run, "text", text_encoder, loss_of_step, learning_rate_at=trapezoid)
    run.log(stage="text", names_read=names_read(text_encoder, tokenizer, words, data, run.device))
    return text_encoder.requires_grad_(False)


@torch.no_grad()
def names_read(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, words: dict, data: dict[str, Squares], device: str
) -> dict[str, float]:
    """For each kind the share of fresh prompts, one for each label, whose tokens are nearest to those of its name."""
    shares = {}
    for kind in KINDS:
        numbers, labels = np.random.default_rng(1), data[kind].labels
        names = list(dict.fromkeys(label["name"] for label in labels))
        prompts = [describe(kind, label, numbers) for label in labels]
        said = text_encoder(tokenize(tokenizer, prompts, device)).last_hidden_state[:, FRONT_TOKENS:].cpu()
        nearest = torch.cdist(said.flatten(1), words[kind].flatten(1)).argmin(dim=1).tolist()
        shares[kind] = float(np.mean([i < len(names) and names[i] == e["name"] for i, e in zip(nearest, labels)]))
    return shares


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"text": 5000}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=16, steps=steps)
    data = make_squares(run.work_dir, run.num_draws)
    tokenizer = make_tokenizer(run, data)
    text_encoder = train_text_encoder(run, data, tokenizer, read_words(run.output_dir))
    save_model(text_encoder, run.output_dir / "text_encoder")
    load_as_float32(run.output_dir / "text_encoder")
    tokenizer.save_pretrained(run.output_dir / "tokenizer")


if __name__ == "__main__":
    main()
