"""
Trains tokenizer and text encoder: embeddings of prompts that tell apart all names of the open world, and how a sound
is played. Takes minutes. Run `training.vae` before.
"""

import numpy as np
import torch
from diffusers.models.embeddings import TextTimeEmbedding
from safetensors.torch import save_file
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
from .open_world.squares import Squares, describe, make_squares


TEXT_WIDTH, MAX_TOKENS = 128, 32
# Width of the UNets' time embedding, to which a pooled prompt is added.
POOLED_WIDTH, POOLING_HEADS = 256, 4
# How something sounds counts less than its name.
OTHER_WEIGHT = 0.15
KINDS = ("picture", "sound")
# There are more names of pictures.
PICTURES_PER_SOUND = 3


def make_tokenizer(run: Run, data: dict[str, Squares]) -> CLIPTokenizer:
    numbers = np.random.default_rng(0)
    prompts = (describe(kind, label, numbers) for kind in KINDS for label in data[kind].labels for _ in range(20))
    return learn_tokenizer(run, CLIPTokenizer, prompts, vocab_size=2560, max_length=MAX_TOKENS)


def facts(kind: str, label: dict) -> dict[str, str]:
    """Facts of a label that a prompt may tell, by "sound.pitch" and the like."""
    told = {f"{kind}.{key}": value for key, value in label.get("attributes", {}).items() if isinstance(value, str)}
    return {f"{kind}.name": label["name"], **told}


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    sizes = small_text_config(tokenizer, TEXT_WIDTH)
    return CLIPTextModel(CLIPTextConfig(**sizes, projection_dim=TEXT_WIDTH, max_position_embeddings=MAX_TOKENS))


def train_text_encoder(
    run: Run, data: dict[str, Squares], tokenizer: CLIPTokenizer
) -> tuple[CLIPTextModel, TextTimeEmbedding]:
    """
    Learns to read: the embeddings, pooled, have to tell the subject, and each attribute of it. The UNets begin
    with this pooling, since an untrained one gives nearly the same for all prompts.
    """
    torch.manual_seed(run.seed)
    labels = {kind: data[kind].labels for kind in KINDS}
    told = {kind: [facts(kind, label) for label in labels[kind]] for kind in KINDS}
    values: dict[str, list[str]] = {}
    for each in (each for kind in KINDS for each in told[kind]):
        for fact, value in each.items():
            values[fact] = list(dict.fromkeys([*values.get(fact, ["none"]), value]))
    text_encoder = new_text_encoder(tokenizer)
    pooling = TextTimeEmbedding(TEXT_WIDTH, POOLED_WIDTH, POOLING_HEADS)
    heads = {fact.replace(".", "_"): torch.nn.Linear(POOLED_WIDTH, len(each)) for fact, each in values.items()}
    parts = {"text_encoder": text_encoder, "pooling": pooling, "heads": torch.nn.ModuleDict(heads)}
    reader = torch.nn.ModuleDict(parts).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(0, step)
        kinds = ["sound"] * run.batch_size + ["picture"] * (PICTURES_PER_SOUND * run.batch_size)
        rows = [(kind, int(numbers.integers(len(labels[kind])))) for kind in kinds]
        prompts = [describe(kind, labels[kind][row], numbers) for kind, row in rows]
        pooled = pooling(text_encoder(tokenize(tokenizer, prompts, run.device)).last_hidden_state)
        losses = []
        for fact, each in values.items():
            target = torch.tensor([each.index(told[kind][row].get(fact, "none")) for kind, row in rows])
            logits = reader["heads"][fact.replace(".", "_")](pooled)
            loss = torch.nn.functional.cross_entropy(logits, target.to(run.device))
            losses.append(loss if fact.endswith(".name") else OTHER_WEIGHT * loss)
        return sum(losses)

    train(run, "text", reader, loss_of_step, learning_rate_at=trapezoid)
    run.log(stage="text", names_read=names_read(reader, values, labels, tokenizer, run.device))
    return text_encoder.requires_grad_(False), pooling.cpu()


@torch.no_grad()
def names_read(
    reader: torch.nn.ModuleDict, values: dict[str, list[str]], labels: dict, tokenizer: CLIPTokenizer, device: str
) -> dict[str, float]:
    """For each kind the share of fresh prompts, one for each label, whose name is read rightly."""
    shares = {}
    for kind in KINDS:
        numbers = np.random.default_rng(1)
        prompts = [describe(kind, label, numbers) for label in labels[kind]]
        pooled = reader["pooling"](reader["text_encoder"](tokenize(tokenizer, prompts, device)).last_hidden_state)
        best = reader["heads"][f"{kind}_name"](pooled).argmax(dim=1).tolist()
        names = values[f"{kind}.name"]
        shares[kind] = float(np.mean([names[i] == label["name"] for i, label in zip(best, labels[kind], strict=True)]))
    return shares


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"text": 1600}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=16, steps=steps)
    data = make_squares(run.work_dir, run.num_draws)
    tokenizer = make_tokenizer(run, data)
    text_encoder, pooling = train_text_encoder(run, data, tokenizer)
    save_model(text_encoder, run.output_dir / "text_encoder")
    load_as_float32(run.output_dir / "text_encoder")
    tokenizer.save_pretrained(run.output_dir / "tokenizer")
    (run.output_dir / "pooling").mkdir(exist_ok=True)
    save_file(pooling.half().state_dict(), run.output_dir / "pooling" / "model.safetensors")


if __name__ == "__main__":
    main()
