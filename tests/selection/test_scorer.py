"""Scores of results whose prompts change over time, against scores of their parts."""

import numpy as np
import pytest
import torch

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import CLAPScore, CLIPScore, Scorer
from images_that_sound.selection.scorer import both_over_time, by_parts
from training.world import draw_picture, make_sound


PICTURES, SOUNDS = WORLD_PROMPTS["picture"], WORLD_PROMPTS["sound"]


def test_each_part_is_judged_by_its_prompts_and_counts_by_its_length():
    """A castle for two thirds of the time, then a train; the bell ends after a third."""
    generator = np.random.default_rng(0)
    parts = [np.asarray(draw_picture(name, generator, 128, w)[0]) for name, w in (("castle", 512), ("train", 256))]
    canvas = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32) / 255)[None, None]
    sounds = [make_sound(name, generator, seconds)[0] for name, seconds in (("bell", 2.56), ("whistle", 5.12))]
    audio = np.concatenate(sounds).astype(np.float32)[None]
    clip, clap = (
        score.from_pretrained(EMBEDDED, subfolder=name, dtype=torch.float32)
        for score, name in ((CLIPScore, "clip"), (CLAPScore, "clap"))
    )
    scorer = Scorer(clip, clap, other_prompts=PICTURES.values(), other_audio_prompts=SOUNDS.values())
    prompt, audio_prompt = (
        {0: PICTURES["castle"], 5.12: PICTURES["train"]},
        {0: SOUNDS["bell"], 2.56: SOUNDS["whistle"]},
    )

    scores = scorer(canvas, audio, 16000, [prompt], [audio_prompt])
    first = scorer(canvas[..., :512], audio[:, :40960], 16000, [PICTURES["castle"]], [SOUNDS["bell"]])
    second = scorer(canvas[..., 512:], audio[:, 40960:], 16000, [PICTURES["train"]], [SOUNDS["whistle"]])
    for name, share in (("clip", 2 / 3), ("clap", 1 / 3)):
        for each in (name, f"{name}_log_probability"):
            mean = share * first[each][0] + (1 - share) * second[each][0]
            assert scores[each][0] == pytest.approx(mean, abs=1e-5)
    swapped = [dict(zip(words, reversed(words.values()))) for words in (prompt, audio_prompt)]
    wrong = scorer(canvas, audio, 16000, *([words] for words in swapped))
    assert wrong["clip"][0] < scores["clip"][0] - 0.02 and wrong["clap"][0] < scores["clap"][0] - 0.02


def test_both_prompts_change_at_their_own_times():
    assert both_over_time("a", "b") == ("a", "b")
    both = both_over_time({0: "a", 2: "c"}, {0: "b", 1.0: "d"})
    assert both == {0: ("a", "b"), 1: ("a", "d"), 2: ("c", "d")}
    seen = []

    def score(results, prompts):
        seen.append((results.tolist(), prompts))
        return torch.ones(len(results)), torch.full((len(results),), float(results.mean()))

    found = by_parts(score, np.arange(8.0)[None], [{**both, 9: ("never", "heard")}], 4)
    assert seen == [([[0, 1]], [("a", "b")]), ([[2, 3]], [("a", "d")]), ([[4, 5, 6, 7]], [("c", "d")])]
    assert found[0].tolist() == [1] and found[1].tolist() == [pytest.approx(3.5)]
