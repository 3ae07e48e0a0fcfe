"""
Trains a checkpoint of the open world: the embedded one's architecture, its features spread otherwise, hundreds of
pictures and a hundred sounds. Stages: data, tokenizer, VAE (on from the one that ships), text encoder, image UNet,
audio UNet (from the image one). A killed run that is started again goes on where it was, also to another number of
steps.

`python -m training.open_world` makes the material first; `OPEN_WORLD_MATERIAL` names its folder.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import TextTimeEmbedding
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED

from .embedded import (
    CROP_WIDTH,
    LATENT_CHANNELS,
    encode_data,
    known_words,
    mostly,
    new_pipeline,
    tokenize,
    train_unet,
    vae_loss,
    whiten,
)
from .loop import (
    Run,
    learn_tokenizer,
    make_data,
    parse_run,
    save,
    small_text_config,
    train,
    trapezoid,
    velocity_weights,
)
from .open_world import HEIGHT, KINDS, WIDTH, describe, draw
from .open_world.pictures import describe_picture


TEXT_WIDTH, MAX_TOKENS = 128, 48
# More where a canvas is small and a feature costs little: a sample takes as long as with the checkpoint that ships.
CHANNELS = (64, 64, 144)
# The time embedding is this wide in diffusers; a ControlNet has no other.
POOLED_WIDTH, POOLING_HEADS = 4 * CHANNELS[0], 4
# The image UNet learns what things look like from squares around one of them, four times as many a step, in the first
# so many of its steps; then whole canvases.
SQUARE_SHARE, SQUARES = 0.6, 4
# The drawn world's pictures vary more than a drawing that is only moved and scaled, and are seen more often.
DRAWN_REPEATS = 2
# What a prompt is about counts for more than how it looks or sounds.
NAMES, OTHER_WEIGHT = ("picture.name", "picture.other", "sound.name"), 0.15


def make_tokenizer(run: Run, data: dict) -> CLIPTokenizer:
    generator = np.random.default_rng(0)
    prompts = (describe(kind, label, generator) for kind in data for label in data[kind][1] for _ in range(2))
    return learn_tokenizer(run, CLIPTokenizer, prompts, vocab_size=2560, max_length=MAX_TOKENS)


# -------------------- VAE --------------------


def train_vae(run: Run, data: dict) -> AutoencoderKL:
    """Goes on from the VAE that ships, on pictures, spectrograms and mixtures of the two."""
    torch.manual_seed(run.seed)
    vae = AutoencoderKL.from_pretrained(EMBEDDED / "vae").to(run.device, memory_format=torch.channels_last)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, generator = run.generators(1, step)
        crops = _mixed_crops(data, numbers, max(run.batch_size // 4, 1))
        return vae_loss(run, vae, crops, generator, divergence_weight=1e-4)

    train(run, "vae", vae, loss_of_step, learning_rate_at=lambda share: 0.5 * trapezoid(share))
    return vae.requires_grad_(False)


def _mixed_crops(data: dict, numbers: np.random.Generator, batch_size: int) -> np.ndarray:
    crops = np.empty((batch_size, HEIGHT, CROP_WIDTH), np.float32)
    for row in range(batch_size):
        picture, sound = (_busy_crop(data[kind][0], numbers) for kind in ("picture", "sound"))
        weight = (1.0, 0.0, 1.0, numbers.random())[row % 4]
        crops[row] = weight * picture + (1 - weight) * sound
    return crops


def _busy_crop(canvases: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """The one of two crops that holds more, since much of a canvas is empty."""
    canvas = canvases[int(numbers.integers(len(canvases)))]
    lefts = numbers.integers(WIDTH - CROP_WIDTH + 1, size=2)
    crops = [canvas[:, left : left + CROP_WIDTH].astype(np.float32) for left in lefts]
    return max(crops, key=np.std)


# -------------------- Text encoder --------------------


def train_text_encoder(run: Run, data: dict, tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, TextTimeEmbedding]:
    """
    Learns to read: the embeddings, pooled, have to tell what is described, and each attribute of it. The pooling is
    what the UNets begin with: an untrained one gives nearly the same for all prompts.
    """
    torch.manual_seed(run.seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            **small_text_config(tokenizer, TEXT_WIDTH),
            projection_dim=TEXT_WIDTH,
            max_position_embeddings=MAX_TOKENS,
        )
    )
    told = {kind: [facts(kind, label) for label in data[kind][1]] for kind in data}
    values: dict[str, list[str]] = {}
    for each in (each for kind in told for each in told[kind]):
        for name, value in each.items():
            values.setdefault(name, ["none"])
            if value not in values[name]:
                values[name].append(value)
    pooling = TextTimeEmbedding(TEXT_WIDTH, POOLED_WIDTH, POOLING_HEADS)
    heads = {name.replace(".", "_"): torch.nn.Linear(POOLED_WIDTH, len(each)) for name, each in values.items()}
    parts = {"text_encoder": text_encoder, "pooling": pooling, "heads": torch.nn.ModuleDict(heads)}
    reader = torch.nn.ModuleDict(parts).to(run.device)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(0, step)
        prompts, targets = [], []
        for row in range(4 * run.batch_size):
            kind = ("picture", "picture", "picture", "sound")[row % 4]
            index = int(numbers.integers(len(told[kind])))
            prompts.append(describe(kind, data[kind][1][index], numbers))
            targets.append(told[kind][index])
        with run.autocast():
            pooled = pooling(text_encoder(tokenize(tokenizer, prompts, run.device)).last_hidden_state)
        losses = []
        for name, each in values.items():
            target = torch.tensor([each.index(told_of.get(name, "none")) for told_of in targets], device=run.device)
            loss = torch.nn.functional.cross_entropy(reader["heads"][name.replace(".", "_")](pooled.float()), target)
            losses.append(loss if name in NAMES else OTHER_WEIGHT * loss)
        return sum(losses)

    train(run, "text", reader, loss_of_step)
    return text_encoder.requires_grad_(False), pooling.cpu()


def facts(kind: str, label: dict) -> dict[str, str]:
    """What a prompt may tell of a label, by "picture.style" and the like."""
    attributes = label["attributes"]
    told = {f"{kind}.{key}": value for key, value in attributes.items() if isinstance(value, str)}
    if "count" in attributes and kind == "picture":
        told["picture.count"] = str(min(attributes["count"], 7))
    return {f"{kind}.name": label["name"], **told}


# -------------------- UNets --------------------


def new_unet(run: Run, pooling: TextTimeEmbedding) -> UNet2DConditionModel:
    """One that reads prompts by `pooling` and predicts of any latents that they are nothing but noise."""
    torch.manual_seed(run.seed)
    unet = UNet2DConditionModel(
        sample_size=(HEIGHT // 8, WIDTH // 8),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        # The prompt, pooled, joins the time embedding, which scales and shifts all features: the cheapest memory for
        # many things, since it is spent once a canvas and not once a pixel.
        addition_embed_type="text",
        addition_embed_type_num_heads=POOLING_HEADS,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.add_embedding.load_state_dict(pooling.state_dict())
    predict_input(unet)
    return unet.to(run.device, memory_format=torch.channels_last)


@torch.no_grad()
def predict_input(unet: UNet2DConditionModel) -> None:
    """
    Sets an untrained UNet's weights such that it predicts its input, which strong noise nearly is. Otherwise it first
    has to learn to copy noise exactly, and what a prompt tells of it hides in its errors until then.

    Each channel of the latents travels in two of `conv_in`'s, once negated, over the last skip connection to
    `conv_out`. In pairs they pass the normalisation on the way, since their mean is zero and the variance of whitened
    latents one, and the activation, since silu(x) - silu(-x) = x.
    """
    first, last, final = unet.conv_in, unet.up_blocks[-1].resnets[-1], unet.conv_out
    pairs = torch.eye(first.in_channels).repeat_interleave(2, dim=0)
    pairs[1::2] *= -1
    count, skipped = len(pairs), last.in_channels - first.out_channels
    for layer in (first, last.conv2, last.conv_shortcut):
        layer.weight[:count] = layer.bias[:count] = 0
    first.weight[:count, :, 1, 1] = pairs
    last.conv_shortcut.weight[:count, skipped : skipped + count, 0, 0] = torch.eye(count)
    final.weight.zero_()
    final.bias.zero_()
    final.weight[:, :count, 1, 1] = pairs.T


def squares(
    latents: torch.Tensor, labels: list[dict], rows: np.ndarray, numbers: np.random.Generator
) -> tuple[torch.Tensor, list[dict]]:
    """Square crops (B, C, H, H) of some rows, around one thing each, and labels of what they show."""
    height, width = latents.shape[-2:]
    crops, shown = [], []
    for row in rows:
        name, attributes = labels[row]["name"], labels[row]["attributes"]
        if "centers" in attributes:
            thing = int(numbers.integers(len(attributes["centers"])))
            center = attributes["centers"][thing] * width + numbers.uniform(-2, 2)
            left = int(np.clip(round(center - height / 2), 0, width - height))
            name = attributes["other"] if "other" in attributes and thing % 2 else name
            attributes = {key: value for key, value in attributes.items() if key not in ("other", "centers")}
        else:
            lefts = numbers.integers(width - height + 1, size=3).tolist()
            left = max(lefts, key=lambda left: float(latents[row, :, :, left : left + height].std()))
        crops.append(latents[row, :, :, left : left + height])
        shown.append({"name": name, "attributes": attributes})
    return torch.stack(crops), shown


def train_unets(
    run: Run,
    data: dict,
    latents: dict[str, torch.Tensor],
    read: Callable[[list[str]], torch.Tensor],
    pooling: TextTimeEmbedding,
) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """The image UNet, from squares to canvases, and the audio UNet, which starts as the image one."""

    def canvases_of(kind: str) -> Callable:
        labels = data[kind][1]
        drawn = [row for row, label in enumerate(labels) if "drawn" in label["attributes"]]
        pool = np.array([*range(len(labels)), *drawn * (DRAWN_REPEATS - 1)])

        def batch_of_step(step: int, numbers: np.random.Generator) -> tuple[torch.Tensor, list[str]]:
            if kind == "picture" and step < SQUARE_SHARE * run.steps["image"]:
                rows = numbers.choice(pool, SQUARES * run.batch_size)
                clean, shown = squares(latents[kind], labels, rows, numbers)
                words = [
                    mostly(lambda: describe_picture(**label, generator=numbers, whole=False), numbers)  # noqa: B023
                    for label in shown
                ]
                return clean, words
            rows = numbers.choice(pool, run.batch_size)
            words = [mostly(lambda: describe(kind, labels[row], numbers), numbers) for row in rows]  # noqa: B023
            return latents[kind][rows], words

        return batch_of_step

    unet, unet_audio = new_unet(run, pooling), new_unet(run, pooling)
    schedule = {
        "weights_of": velocity_weights,
        "learning_rate_at": lambda share: 0.8 * trapezoid(share),
        "average_decay": 0.999,
    }
    train_unet(run, "picture", unet, canvases_of("picture"), read, **schedule)
    unet_audio.load_state_dict(unet.state_dict())
    train_unet(run, "sound", unet_audio, canvases_of("sound"), read, **schedule)
    return unet, unet_audio


def main(input_args: list[str] | None = None) -> None:
    steps = {"vae": 2400, "text": 1500, "image": 15000, "audio": 6000}
    work_dir = "outputs/train_open_embedded"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=16000, batch_size=32, steps=steps)
    data = make_data(run, draw, ("picture", "sound"))
    vae = train_vae(run, data)
    latents = whiten(vae, encode_data(run, data, vae))
    tokenizer = make_tokenizer(run, data)
    text_encoder, pooling = train_text_encoder(run, data, tokenizer)

    @torch.no_grad()
    def read(prompts: list[str]) -> torch.Tensor:
        return text_encoder(tokenize(tokenizer, prompts, run.device)).last_hidden_state

    unet, unet_audio = train_unets(run, data, latents, read, pooling)
    save(new_pipeline(vae, text_encoder, tokenizer, unet, unet_audio), run.output_dir)
    write_json(run.output_dir / "vocabulary.json", known_words(data, KINDS, describe))


if __name__ == "__main__":
    main()
