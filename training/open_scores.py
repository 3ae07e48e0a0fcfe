"""
Trains the open world's scores: a small CLIP and a small CLAP that know all its names. Run `training.text` before,
whose tokenizer CLIP shares. Writes `clip`, `clap` and scores.json, which holds what they name of held-out draws.

Each learns a vector for every name; pictures (or sounds) are to lie near the vector of what they show, prompts near
that of what they name. So hundreds of names are learned as a classifier learns them, and not from a batch's contrasts.
"""

import json
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import avg_pool1d, avg_pool2d, cross_entropy, normalize
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

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts.common.files import write_json
from images_that_sound.selection.clap import clap_features

from .judges import share
from .loop import Run, learn_tokenizer, parse_run, small_text_config, train, trapezoid, write_tensors
from .open_world.pictures import SQUARE, WILD
from .open_world.sounds import VARIANTS
from .open_world.squares import Squares, describe, make_squares, sound_square
from .open_world.vocabulary import SOUNDS


IMAGE_SIZE, PATCH_SIZE = 64, 16
# Pixels by which windows slide along a canvas, an eighth of its height, as CLIP sees them.
SLIDE = IMAGE_SIZE // 8
TEXT_WIDTH, PROJECTION = 64, 128
# Weight of the distance to a name's vector, beside that of naming it.
NEAR_WEIGHT = 3.0
# The most of the other kind in a composed square.
OVERLAID = 0.6
# Squares of a canvas.
SQUARES = 4
# Sounds from this variant on are used nowhere else, and draws of this seed neither.
VARIANTS_HELD_OUT = 4000
HELD_OUT_SEED, HELD_OUT = 104, 500
HEARING = MelSpectrogram(inverse_filter_iterations=20, griffin_lim_iterations=12)
# The loudest that CLAP hears in sounds whose peak is full scale, and silence.
LOUDEST_IN_DB, SILENCE_IN_DB = (18.0, 36.0), -100.0


class Matched(torch.nn.Module):
    """
    CLIP or CLAP with a vector for each name.

    Args:
        model ([`CLIPModel`] or [`ClapModel`]): Embeds prompts, and pictures or sounds.
        embed (`Callable`): From the model and its inputs to embeddings (B, D) of pictures or sounds.
        logit_scale (`str`): Name of the model's parameter that scales cosines.
        num_names (`int`): Names to learn.
    """

    def __init__(self, model: torch.nn.Module, embed: Callable, logit_scale: str, num_names: int) -> None:
        super().__init__()
        self.model, self.embed, self.logit_scale = model, embed, logit_scale
        self.names = torch.nn.Embedding(num_names, PROJECTION)

    def loss(self, embeddings: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """
        Embeddings (B, D) are to name their rows (B,), and to lie near them: pictures and prompts that both name a row
        may otherwise be far from each other.
        """
        scale = getattr(self.model, self.logit_scale).exp().clamp(max=100)
        cosines = normalize(embeddings.float(), dim=-1) @ normalize(self.names.weight, dim=-1).T
        away = 1 - cosines.gather(1, rows[:, None]).mean()
        return cross_entropy(scale * cosines, rows, label_smoothing=0.05) + NEAR_WEIGHT * away

    def forward(self, inputs: torch.Tensor, tokens: dict, rows: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """The loss of pictures or sounds that show `rows` and of prompts that say the names `said`."""
        read = self.model.get_text_features(**tokens).pooler_output
        return self.loss(self.embed(self.model, inputs), rows) + self.loss(read, said)


def prompts_of(kind: str, labels: list[dict], names: list[str], numbers: np.random.Generator, count: int) -> tuple:
    """Prompts of labels by chance, and the rows of their names."""
    chosen = [labels[row] for row in numbers.integers(len(labels), size=count)]
    prompts = [describe(kind, label, numbers) for label in chosen]
    return prompts, torch.tensor([names.index(label["name"]) for label in chosen])


def tokens_of(tokenizer: PreTrainedTokenizerBase, prompts: list[str], device: str = "cpu") -> dict:
    return tokenizer(prompts, return_tensors="pt", padding=True, truncation=True).to(device)


# -------------------- Pictures --------------------


def shrunk(processor: CLIPImageProcessorPil, pixels: np.ndarray) -> torch.Tensor:
    """Squares (N, 256, 256) in 0..255 as CLIP sees them, before it normalises: (N, 64, 64) in 0..1."""
    images = list(np.repeat(pixels[:, None], 3, axis=1))
    small = processor(images, do_normalize=False, input_data_format="channels_first", return_tensors="pt")
    return small.pixel_values[:, 0].clamp(0, 1)


def composed(pictures: torch.Tensor, sounds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Squares (B, h, w) in 0..1 of which a random part shines through sounds, blurred and noisy at random. They are seen
    through a window that need not begin where a square does, since squares stand beside each other on a canvas.
    """
    weight, blur, noise = torch.rand(3, len(pictures), 1, 1, generator=generator)
    weight = OVERLAID * weight
    mixed = (1 - weight) * pictures + weight * sounds
    mixed = mixed + blur * (avg_pool2d(mixed[:, None], 3, 1, 1)[:, 0] - mixed)
    mixed = (mixed + 0.1 * noise * torch.randn(mixed.shape, generator=generator)).clamp(0, 1)
    return slid(mixed, generator)


def slid(squares: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Squares (B, h, w), each turned sideways as a window that slides along a canvas of such squares sees it."""
    steps = torch.randint(IMAGE_SIZE // SLIDE, (len(squares),), generator=generator)
    return torch.stack([square.roll(SLIDE * int(step), 1) for square, step in zip(squares, steps)])


def clip_input(processor: CLIPImageProcessorPil, squares: torch.Tensor) -> torch.Tensor:
    """Squares (B, h, w) in 0..1 to normalised pixels (B, 3, h, w)."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (processor.image_mean, processor.image_std))
    return (squares[:, None] - mean) / std


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    text = {**small_text_config(tokenizer, TEXT_WIDTH), "max_position_embeddings": tokenizer.model_max_length}
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION))


def embed_pictures(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    return model.get_image_features(pixel_values=pixels).pooler_output


def train_clip(run: Run, data: dict[str, Squares], tokenizer: CLIPTokenizer) -> tuple[CLIPModel, CLIPProcessor, dict]:
    """Learns to match square windows of pictures, also of faint ones, with prompts; and what it names afterwards."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    small = {kind: shrunk(image_processor, data[kind].pixels) for kind in data}
    pictures, sounds = torch.cat([small["picture"], small[WILD]]), torch.cat([small["sound"], small["fresh sound"]])
    labels = [*data["picture"].labels, {"name": WILD}]
    names = [label["name"] for label in labels]
    torch.manual_seed(run.seed)
    model = Matched(new_clip(tokenizer), embed_pictures, "logit_scale", len(names)).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(20, step)
        shown = numbers.integers(len(names), size=run.batch_size)
        drawn = np.where(shown < len(names) - 1, shown, numbers.integers(len(names) - 1, len(pictures), len(shown)))
        overlays = sounds[numbers.integers(len(sounds), size=len(shown))]
        squares = composed(pictures[drawn], overlays, generator)
        squares[::4] = slid(pictures[drawn[::4]], generator)
        prompts, said = prompts_of("picture", labels, names, numbers, run.batch_size)
        inputs = clip_input(image_processor, squares).to(run.device)
        tokens = tokens_of(tokenizer, prompts, run.device)
        return model(inputs, tokens, torch.from_numpy(shown).to(run.device), said.to(run.device))

    train(run, "clip", model, loss_of_step, learning_rate_at=trapezoid)
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    shown = torch.randint(len(names) - 1, (HELD_OUT,), generator=generator)
    overlays = sounds[torch.randint(len(sounds), (HELD_OUT,), generator=generator)]
    squares = {"clean": pictures[shown], "composed": composed(pictures[shown], overlays, generator)}
    inputs = {each: clip_input(image_processor, squares[each]) for each in squares}
    found = named(model.cpu(), "picture", inputs, shown, labels[:-1], tokenizer)
    return model.model, CLIPProcessor(image_processor, tokenizer), found


# -------------------- Sounds --------------------


def clap_feature_extractor() -> ClapFeatureExtractor:
    """CLAP's front end with its resolution of pitch and a quarter of that of time."""
    return ClapFeatureExtractor(
        feature_size=64,
        hop_length=1920,
        fft_window_size=4096,
        frequency_max=8000,
        truncation="rand_trunc",
        top_db=None,
    )


def learned_turns(data: dict[str, Squares]) -> list[np.ndarray]:
    """Sounds that the checkpoint learns: squares (100, 256, 256), one of each name."""
    return list(data["sound"].pixels.reshape(len(SOUNDS), VARIANTS, SQUARE, SQUARE).swapaxes(0, 1))


def overlaid(squares: np.ndarray, pictures: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Squares (N, H, W) in 0..255 of sounds under as many pictures, each at a random weight, in 0..1 as float32."""
    weight = (OVERLAID * numbers.random((len(squares), 1, 1))).astype(np.float32)
    return ((1 - weight) * squares + weight * pictures) / 255


def heard_roughly(squares: torch.Tensor) -> torch.Tensor:
    """
    What CLAP hears of squares (N, 256, 256) in 0..1, told from them and not from their sounds: (N, T, M) in dB, up to
    a gain. Griffin-Lim takes a hundred times as long. Both scales are Slaney's, so that CLAP's filters are triangles
    over the rows of a canvas.
    """
    power = HEARING.canvas_to_log_mel(squares[:, None]).mul(2).exp()  # (N, 256, 256)
    extractor = clap_feature_extractor()
    width = (SQUARE + 1) / (extractor.feature_size + 1)
    centers = width * torch.arange(1.0, extractor.feature_size + 1)
    triangles = (1 - (torch.arange(1.0, SQUARE + 1) - centers[:, None]).abs() / width).clamp(min=0)
    columns = extractor.hop_length * HEARING.sampling_rate // (extractor.sampling_rate * HEARING.hop_length)
    heard = triangles / triangles.sum(dim=1, keepdim=True) @ power
    heard = avg_pool1d(heard, 2 * columns - 1, columns, columns - 1, count_include_pad=False)
    return 10 * heard.clamp(min=1e-10).log10().transpose(1, 2)


def draw_heard(run: Run, turns: list[np.ndarray], pictures: np.ndarray) -> torch.Tensor:
    """Sounds (N, T, M) as CLAP roughly hears them, those of `turns` again and again under pictures."""
    numbers, heard = np.random.default_rng([run.seed, 22]), []
    for index in range(run.num_draws // len(SOUNDS)):
        overlays = pictures[numbers.integers(len(pictures), size=len(SOUNDS))]
        heard.append(heard_roughly(torch.from_numpy(overlaid(turns[index % len(turns)], overlays, numbers))))
    return torch.cat(heard)


def canvases_heard(heard: torch.Tensor, rows: np.ndarray, numbers: np.random.Generator) -> torch.Tensor:
    """
    For each sound of the vocabulary in `rows` (B,) four of its squares one after the other, (B, 1, 4 T, M), as loud as
    sounds are whose peak is full scale.
    """
    each = len(heard) // len(SOUNDS)
    places = rows[:, None] + len(SOUNDS) * numbers.integers(each, size=(len(rows), SQUARES))
    canvases = heard[places].flatten(1, 2)[:, None]
    loudest = torch.from_numpy(numbers.uniform(*LOUDEST_IN_DB, (len(rows), 1, 1, 1)).astype(np.float32))
    return (canvases - canvases.amax(dim=(2, 3), keepdim=True) + loudest).clamp(min=SILENCE_IN_DB)


def canvases_played(run: Run, kind: str, turns: list[np.ndarray], pictures: np.ndarray) -> torch.Tensor:
    """
    A canvas of each sound of the vocabulary, four of its squares under one picture, played by Griffin-Lim and heard
    as the score hears it: (100, 1, T, M), from disk if it is there.
    """
    file = run.work_dir / f"heard-{kind}.pt"
    if not file.exists():
        numbers, heard = np.random.default_rng([HELD_OUT_SEED, len(kind)]), []
        for row in range(len(SOUNDS)):
            squares = np.concatenate([turns[i][row] for i in numbers.integers(len(turns), size=SQUARES)], axis=1)
            picture = np.tile(pictures[int(numbers.integers(len(pictures)))], (1, SQUARES))
            canvas = torch.from_numpy(overlaid(squares[None], picture[None], numbers))
            audio = HEARING.canvas_to_audio(canvas[:, None]).numpy()
            heard.append(clap_features(clap_feature_extractor(), audio, HEARING.sampling_rate))
        write_tensors(file, torch.cat(heard))
        print(f"played {file.stem}", flush=True)
    return torch.load(file, weights_only=True)


def new_clap(tokenizer: RobertaTokenizer) -> ClapModel:
    text = {**small_text_config(tokenizer, TEXT_WIDTH), "max_position_embeddings": tokenizer.model_max_length + 2}
    audio = {
        "num_mel_bins": 64,
        "spec_size": 128,
        "patch_size": 8,
        "patch_stride": [8, 8],
        "patch_embeds_hidden_size": 64,
        "hidden_size": 128,
        "depths": [1, 3],
        "num_attention_heads": [4, 8],
        "num_hidden_layers": 2,
        "hidden_dropout_prob": 0.0,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=PROJECTION))


def embed_sounds(model: ClapModel, features: torch.Tensor) -> torch.Tensor:
    return model.get_audio_features(features).pooler_output


def train_clap(run: Run, data: dict[str, Squares]) -> tuple[ClapModel, ClapProcessor, dict]:
    """Learns to match sounds, also those that a picture bends, with prompts; and what it names afterwards."""
    labels, names = [*data["sound"].labels, *data["fresh sound"].labels], list(SOUNDS)
    numbers = np.random.default_rng(0)
    prompts = (describe("sound", label, numbers) for label in labels for _ in range(10))
    tokenizer = learn_tokenizer(run, RobertaTokenizer, prompts, vocab_size=1024, max_length=77)
    pictures = np.concatenate([data["picture"].pixels, data[WILD].pixels])
    fresh = data["fresh sound"].pixels.reshape(-1, len(SOUNDS), SQUARE, SQUARE)
    heard = draw_heard(run, [*learned_turns(data), *fresh], pictures)
    torch.manual_seed(run.seed)
    model = Matched(new_clap(tokenizer), embed_sounds, "logit_scale_a", len(names)).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(21, step)
        rows = numbers.integers(len(names), size=run.batch_size)
        inputs = canvases_heard(heard, rows, numbers).to(run.device)
        prompts, said = prompts_of("sound", labels, names, numbers, run.batch_size)
        tokens = tokens_of(tokenizer, prompts, run.device)
        return model(inputs, tokens, torch.from_numpy(rows).to(run.device), said.to(run.device))

    train(run, "clap", model, loss_of_step, learning_rate_at=trapezoid)
    fresh = [np.stack([sound_square(name, VARIANTS_HELD_OUT + i)[0] for name in SOUNDS]) for i in range(2)]
    inputs = {
        "composed": canvases_played(run, "composed", learned_turns(data), pictures),
        "fresh, clean": canvases_played(run, "fresh-clean", fresh, np.zeros_like(pictures[:1])),
        "fresh, composed": canvases_played(run, "fresh-composed", fresh, pictures),
    }
    rows = np.arange(len(names))
    found = named(model.cpu(), "sound", inputs, torch.from_numpy(rows), labels, tokenizer)
    return model.model, ClapProcessor(clap_feature_extractor(), tokenizer), found


# -------------------- What they name --------------------


@torch.no_grad()
def named(
    model: Matched,
    kind: str,
    inputs: dict[str, torch.Tensor],
    rows: torch.Tensor,
    labels: list[dict],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, dict]:
    """
    How often the prompt of what is shown is nearest of all names' prompts, or among the nearest five, of pictures or
    sounds `inputs[...]` (N, ...) of the names `rows` (N,). Prompts are freshly worded for every hundred.
    """
    numbers, found = np.random.default_rng(HELD_OUT_SEED), {}
    names = list(dict.fromkeys(label["name"] for label in labels))
    by_name = {name: [label for label in labels if label["name"] == name] for name in names}
    for each in inputs:
        right = []
        for batch, wanted in zip(inputs[each].split(100), rows.split(100)):
            prompts = [
                describe(kind, by_name[name][int(numbers.integers(len(by_name[name])))], numbers) for name in names
            ]
            read = normalize(model.model.get_text_features(**tokens_of(tokenizer, prompts)).pooler_output, dim=-1)
            embeddings = torch.cat([model.embed(model.model, part) for part in batch.split(25)])
            best = (embeddings @ read.T).topk(5, dim=1).indices == wanted[:, None]
            right.append(torch.stack([best[:, 0], best.any(dim=1)]))
        tops = torch.cat(right, dim=1).sum(dim=1).tolist()
        found[each] = {f"top {top}": share(count, len(rows)) for top, count in zip((1, 5), tops)}
    return found


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"clip": 2000, "clap": 1000}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=4800, batch_size=64, steps=steps)
    data = make_squares(run.work_dir, num_draws=1000)
    tokenizer = CLIPTokenizer.from_pretrained(run.output_dir / "tokenizer")
    stages = {"clip": lambda: train_clip(run, data, tokenizer), "clap": lambda: train_clap(run, data)}
    for name in [each for each in stages if run.steps[each]]:
        model, processor, found = stages[name]()
        model.to("cpu", torch.float16).save_pretrained(run.output_dir / name)
        (run.output_dir / name / "model.safetensors").chmod(0o644)
        processor.save_pretrained(run.output_dir / name)
        run.log(stage=name, named=found)
        file = run.output_dir / "scores.json"
        write_json(file, {**(json.loads(file.read_text()) if file.exists() else {}), name: found})


if __name__ == "__main__":
    main()
