"""The stages of the checkpoint's training in small: their beginnings, a stop, and what they save."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from killed_trainings import kill_at, train
from safetensors.torch import load_file, save_file

from training import unets, vae
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


def test_an_untrained_unet_predicts_its_input():
    torch.manual_seed(0)
    unet = unets.new_unet(12)
    latents, embeddings = torch.randn(2, 12, 16, 16), torch.randn(2, 8, unets.TEXT_WIDTH)
    predicted = unet(latents, torch.tensor([20, 980]), embeddings).sample
    assert (predicted - latents).square().mean() < 3e-3
    predicted.square().sum().backward()
    assert unet.conv_out.weight.grad.abs().amin(dim=(0, 2, 3)).gt(0).all()


def test_batches_hold_squares_with_their_names_and_a_share_of_wild_ones():
    """Latents carry the number of the name that they belong to; wild squares carry 3."""
    rows = torch.arange(3.0)
    latents = {"picture": rows[:, None, None, None].expand(3, 1, 2, 2), "wild": 3 * torch.ones(5, 1, 2, 2)}
    names = ["owl", "castle", "wolf", "wild"]
    labels = {"picture": [{"name": name} for name in names[:3]], "wild": [{"name": "wild"}] * 5}
    clean, read = unets.batches(latents, labels, names, "picture", 800)(0, np.random.default_rng(0))
    shown, read = clean[:, 0, 0, 0], torch.tensor(read)
    assert (shown[read >= 0] == read[read >= 0]).all()
    assert float((read < 0).float().mean()) == pytest.approx(0.125, abs=0.04)
    assert float((shown == 3).float().mean()) == pytest.approx(unets.WILD_SHARE, abs=0.04)


def test_names_have_tokens_of_their_own_behind_those_that_all_share():
    torch.manual_seed(0)
    model = unets.Named(torch.nn.Identity(), ["owl", "castle"])
    none, owl, castle = model.tokens(torch.tensor([-1, 0, 1]))
    assert owl.shape == (unets.MAX_TOKENS, unets.TEXT_WIDTH)
    front = unets.FRONT_TOKENS
    assert torch.equal(owl[:front], castle[:front]) and torch.equal(owl[:front], none[:front])
    assert all(not torch.allclose(a[front:], b[front:]) for a, b in ((owl, castle), (owl, none)))
    # On the sphere where a layer norm ends, as text encoders do.
    torch.testing.assert_close(owl.square().mean(dim=1), torch.ones(unets.MAX_TOKENS), atol=1e-3, rtol=0)
    # The second stage leaves what both share as the first learned it.
    learned = {name: value.detach() for name, value in model.common.items()}
    second = unets.Named(torch.nn.Identity(), ["bell"], learned)
    second.tokens(torch.tensor([0, -1])).sum().backward()
    assert second.words.weight.grad is not None and second.common["front"].grad is None
    assert torch.equal(second.tokens(torch.tensor([-1]))[0], none)


def test_a_saved_unet_and_its_words_are_trained_further(tmp_path):
    sizes = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "mid_block_type": None}
    saved, given = (
        unets.Named(UNet2DConditionModel(**sizes, **blocks, cross_attention_dim=8), ["owl", "wolf"]) for _ in range(2)
    )
    saved.unet.save_pretrained(tmp_path / "unet")
    words = {"words": saved.words.weight, **saved.common}
    save_file({name: value.detach() for name, value in words.items()}, tmp_path / "words.safetensors")
    unets.go_on(given, tmp_path / "unet", tmp_path / "words.safetensors")
    assert torch.equal(given.unet.conv_in.weight, saved.unet.conv_in.weight)
    rows = torch.tensor([-1, 0, 1])
    assert torch.equal(given.tokens(rows), saved.tokens(rows))


@pytest.mark.slow
def test_stages_follow_each_other_and_go_on_where_they_were_killed(folder):
    train(command(folder, "vae", "--vae_steps=2"))
    kill_at(folder / "work" / "image.pt", command(folder, "unets", "--image_steps=3", "--audio_steps=1"))
    train(command(folder, "unets", "--image_steps=3", "--audio_steps=1"))
    kill_at(folder / "work" / "text.pt", command(folder, "text", "--text_steps=4"))
    train(command(folder, "text", "--text_steps=4"))
    checkpoint = folder / "checkpoint"
    model = AutoencoderKL.from_pretrained(checkpoint / "vae")
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    assert unet.config.in_channels == model.config.latent_channels == vae.LATENT_CHANNELS
    image, audio = (
        load_file(checkpoint / name / "diffusion_pytorch_model.safetensors") for name in ("unet", "unet_audio")
    )
    assert image.keys() == audio.keys() and any(not torch.equal(image[name], audio[name]) for name in image)
