"""The stages of the checkpoint's training in small: their beginnings, a stop, and what they save."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import TextTimeEmbedding
from killed_trainings import kill_at, train
from safetensors.torch import load_file

from training import text, unets, vae
from training.loop import parse_run
from training.open_world.squares import Squares


ROOT = Path(__file__).parents[2]
MUSIC = {"figure": "melody", "pitch": "high", "speed": "slow"}


@pytest.fixture(scope="module")
def data() -> dict[str, Squares]:
    """A few smooth random squares of each kind."""
    numbers = np.random.default_rng(0)
    squares = {}
    for kind, names in (
        ("picture", ("castle", "owl", "anchor")),
        ("wild", ("wild",) * 2),
        ("sound", ("violin", "flute")),
        ("fresh sound", ("violin",)),
    ):
        coarse = torch.from_numpy(numbers.uniform(0, 255, (len(names), 1, 24, 24)).astype(np.float32))
        pixels = torch.nn.functional.interpolate(coarse, (256, 256), mode="bilinear")[:, 0].byte().numpy()
        squares[kind] = Squares(pixels, [{"name": name, "attributes": MUSIC} for name in names])
    return squares


@pytest.fixture
def folder(data, tmp_path) -> Path:
    """A work folder in which the squares are drawn already."""
    (tmp_path / "work").mkdir()
    for kind, squares in data.items():
        file = tmp_path / "work" / f"squares-{kind.replace(' ', '-')}.npz"
        np.savez_compressed(file, pixels=squares.pixels, labels=np.array(json.dumps(squares.labels)))
    return tmp_path


def command(folder: Path, stage: str, *numbers: str) -> list[str]:
    folders = [f"--work_dir={folder / 'work'}", f"--output_dir={folder / 'checkpoint'}"]
    return [sys.executable, "-m", f"training.{stage}", *folders, "--batch_size=2", "--save_every=1", *numbers]


def test_the_code_keeps_as_much_as_any_linear_code_can(data):
    """Against the singular values of the patches, which bound it (Eckart and Young)."""
    squares = torch.from_numpy(data["picture"].pixels) / 127.5 - 1
    rows = vae.patches(squares).transpose(0, 1).flatten(1).T.double()
    code = vae.PatchCode(rows.mean(dim=0), torch.cov(rows.T, correction=0), 4)
    latents = code.encode(squares)
    spread = torch.cov(latents.transpose(0, 1).flatten(1), correction=0)
    assert spread.numpy() == pytest.approx(np.eye(4), abs=1e-3)
    lost = (code.decode(latents) - squares).square().sum().item()
    singular = np.linalg.svd((rows - rows.mean(dim=0)).numpy(), compute_uv=False)
    assert lost == pytest.approx((singular[4:] ** 2).sum(), rel=1e-3)


def test_a_new_vae_encodes_by_the_code(data):
    code = vae.PatchCode.learn(data, 12)
    model = vae.new_vae(code).eval()
    squares = np.concatenate([data["picture"].pixels, data["sound"].pixels])
    expected = code.encode(torch.from_numpy(squares) / 127.5 - 1)
    assert vae.encode(model.requires_grad_(False), squares).numpy() == pytest.approx(expected.numpy(), abs=0.02)
    wide = np.concatenate([*squares[:2]], axis=1)[None]
    assert vae.encode(model, wide)[0, :, :, :16].numpy() == pytest.approx(expected[0].numpy(), abs=0.02)


def test_crops_are_of_squares_and_repeat(data):
    first, again = (vae.crops_of_step(data, np.random.default_rng(3), 6, 128) for _ in range(2))
    assert first.shape == (6, 128, 128) and np.array_equal(first, again)
    assert first.min() >= 0 and first.max() <= 255 and first.std() > 10


def test_facts_tell_what_prompts_may_tell():
    assert text.facts("picture", {"name": "owl"}) == {"picture.name": "owl"}
    told = text.facts("sound", {"name": "violin", "attributes": {**MUSIC, "count": 2}})
    assert told == {"sound.name": "violin", **{f"sound.{key}": value for key, value in MUSIC.items()}}


def test_an_untrained_unet_predicts_its_input_and_pools_as_the_text_encoder_learned_to():
    torch.manual_seed(0)
    pooling = TextTimeEmbedding(text.TEXT_WIDTH, text.POOLED_WIDTH, text.POOLING_HEADS)
    unet = unets.new_unet(pooling, 12)
    latents, embeddings = torch.randn(2, 12, 16, 16), torch.randn(2, 8, text.TEXT_WIDTH)
    assert torch.equal(unet.add_embedding(embeddings), pooling(embeddings))
    predicted = unet(latents, torch.tensor([20, 980]), embeddings).sample
    assert (predicted - latents).square().mean() < 3e-3
    predicted.square().sum().backward()
    assert unet.conv_out.weight.grad.abs().amin(dim=(0, 2, 3)).gt(0).all()


def test_batches_hold_squares_with_their_prompts_and_a_share_of_wild_ones():
    """Latents and embeddings carry the number of the label that they belong to; wild squares carry -1."""
    rows = torch.arange(3.0)
    latents = {"picture": rows[:, None, None, None].expand(3, 1, 2, 2), "wild": -torch.ones(5, 1, 2, 2)}
    words = {"picture": rows[:, None, None, None].expand(3, 4, 1, 1), "wild": -torch.ones(1, 4, 1, 1)}
    empty = torch.full((1, 1), 9.0)
    clean, embeddings = unets.batches(latents, words, empty, "picture", 800)(0, np.random.default_rng(0))
    shown, read = clean[:, 0, 0, 0], torch.stack(embeddings)[:, 0, 0]
    assert (shown[read != 9] == read[read != 9]).all()
    assert float((read == 9).float().mean()) == pytest.approx(0.125, abs=0.04)
    assert float((shown == -1).float().mean()) == pytest.approx(unets.WILD_SHARE, abs=0.04)


def test_a_saved_unet_is_trained_further(tmp_path):
    run = parse_run("", ["--output_dir", str(tmp_path)], work_dir="unused", num_draws=1, batch_size=1, steps={})
    sizes = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "mid_block_type": None}
    saved, given = (UNet2DConditionModel(**sizes, **blocks, cross_attention_dim=8) for _ in range(2))
    saved.save_pretrained(tmp_path / "unet")
    assert torch.equal(unets.begun(run, "unet", given).conv_in.weight, saved.conv_in.weight)
    assert unets.begun(run, "unet_audio", given) is given


@pytest.mark.slow
def test_stages_follow_each_other_and_go_on_where_they_were_killed(folder):
    train(command(folder, "vae", "--vae_steps=2"))
    kill_at(folder / "work" / "text.pt", command(folder, "text", "--text_steps=4"))
    train(command(folder, "text", "--text_steps=4"))
    kill_at(folder / "work" / "image.pt", command(folder, "unets", "--image_steps=3", "--audio_steps=1"))
    train(command(folder, "unets", "--image_steps=3", "--audio_steps=1"))
    checkpoint = folder / "checkpoint"
    model = AutoencoderKL.from_pretrained(checkpoint / "vae")
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    assert unet.config.in_channels == model.config.latent_channels == vae.LATENT_CHANNELS
    image, audio = (
        load_file(checkpoint / name / "diffusion_pytorch_model.safetensors") for name in ("unet", "unet_audio")
    )
    assert image.keys() == audio.keys() and any(not torch.equal(image[name], audio[name]) for name in image)
