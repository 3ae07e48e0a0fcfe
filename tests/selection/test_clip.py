"""CLIP's score against the published formula: cosines of single windows, one by one, through the model itself."""

import numpy as np
import PIL.Image
import pytest
import torch

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import CLIPScore
from images_that_sound.selection.clip import canvas_windows
from training.world import draw_picture


@pytest.fixture(scope="module")
def clip() -> CLIPScore:
    return CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)


@pytest.mark.parametrize(
    ("height", "width", "starts"),
    [(256, 1024, range(0, 769, 32)), (256, 992, range(0, 737, 32)), (128, 512, range(0, 385, 16)), (64, 65, [0])],
)
def test_windows_slide_by_an_eighth(height, width, starts):
    canvas = torch.rand(2, 3, height, width)
    windows = canvas_windows(canvas)
    assert windows.shape == (2, len(starts), 1, height, height)
    for window, start in zip(windows[1], starts):
        torch.testing.assert_close(window[0], canvas[1, :, :, start : start + height].mean(dim=0))


def test_a_canvas_that_is_not_wide_stays_whole():
    assert canvas_windows(torch.rand(2, 3, 64, 64)).shape == (2, 1, 1, 64, 64)
    assert canvas_windows(torch.rand(2, 1, 64, 48)).shape == (2, 1, 1, 64, 48)


def test_score_is_the_published_formula(clip):
    canvases = torch.rand(3, 3, 64, 160)
    prompts = ["a castle", "a row of kittens", "a train"]
    scores = clip(canvases, prompts)
    for canvas, prompt, score in zip(canvases.numpy(), prompts, scores):
        gray = (canvas.mean(axis=0) * 255).astype(np.uint8)
        cosines = []
        for start in range(0, 97, 8):
            window = PIL.Image.fromarray(np.repeat(gray[:, start : start + 64, None], 3, axis=2))
            inputs = clip.processor(text=[prompt], images=window, return_tensors="pt", padding=True)
            with torch.no_grad():
                output = clip.model(**inputs)
            cosines.append((output.logits_per_image / clip.model.logit_scale.exp()).item())
        assert score.item() == pytest.approx(max(np.mean(cosines), 0), abs=1e-5)


def test_log_probability_is_that_of_the_own_prompt_among_others(clip):
    canvases, others = torch.rand(2, 1, 64, 128), ["a dog", "a train", "a horse"]
    scores, log_probabilities = clip.with_log_probabilities(canvases, ["a castle", "a dog"], others)
    torch.testing.assert_close(scores, clip(canvases, ["a castle", "a dog"]), atol=1e-6, rtol=0)
    for canvas, bank, found in zip(canvases, (["a castle", *others], others), log_probabilities.tolist()):
        cosines = clip.embed_canvases(canvas[None])[0].numpy() @ clip.embed_prompts(bank).numpy().T
        odds = np.exp(np.exp(clip.model.logit_scale.item()) * cosines.mean(axis=0))
        assert found == pytest.approx(np.log(odds[0] / odds.sum()), abs=1e-4)
    with pytest.raises(ValueError, match="`prompts` has to be a list of strings, but is 'a castle'"):
        clip.with_log_probabilities(canvases, "a castle", others)


def test_cosines_below_zero_count_as_zero(clip):
    canvases = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2)).expand(10, -1, -1, -1)
    scores = clip(canvases, list(WORLD_PROMPTS["picture"].values()))
    cosines = clip.embed_canvases(canvases[:1])[0] @ clip.embed_prompts(list(WORLD_PROMPTS["picture"].values())).T
    assert (cosines < 0).any()
    torch.testing.assert_close(scores, cosines[0].clamp(min=0), atol=1e-6, rtol=0)


def test_pixels_are_truncated_to_bytes(clip):
    pattern = (torch.rand(1, 1, 64, 64) > 0.5).float()
    almost, below, full = (clip(pattern * level, ["a castle"]).item() for level in (0.9999, 254 / 255, 1.0))
    assert almost == below != full


def test_score_does_not_depend_on_the_batch(clip):
    canvases, prompts = torch.rand(6, 1, 64, 128), ["a castle", "a dog"] * 3
    together = clip(canvases, prompts)
    alone = torch.cat([clip(canvas[None], [prompt]) for canvas, prompt in zip(canvases, prompts)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_what_is_not_finite_has_no_score(clip):
    canvases = torch.rand(2, 1, 64, 64)
    canvases[1, 0, 3, 3] = float("inf")
    scores = clip(canvases, ["a castle"] * 2)
    assert scores[0].isfinite() and scores[1].isnan()


def test_as_many_prompts_as_canvases(clip):
    with pytest.raises(ValueError, match="`prompts` has to hold 2, one per canvas, but holds 1"):
        clip(torch.rand(2, 1, 64, 64), ["a castle"])


def test_embedded_clip_tells_fresh_drawings_apart(clip):
    """The card's measurement in small: 60 draws of a seed that nothing was trained on."""
    generator, right = np.random.default_rng([104, 0]), 0
    names = list(WORLD_PROMPTS["picture"])
    prompts = clip.embed_prompts(list(WORLD_PROMPTS["picture"].values()))
    for i in range(60):
        picture, _ = draw_picture(names[i % 10], generator, 128, 512)
        canvas = torch.from_numpy(np.asarray(picture, np.float32) / 255)[None, None]
        cosines = (clip.embed_canvases(canvas) @ prompts.T).mean(dim=1)
        right += int(cosines.argmax()) == i % 10
    assert right >= 54
