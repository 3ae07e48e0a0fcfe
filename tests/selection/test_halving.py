"""Successive halving: what survives is what full runs give, the bookkeeping is exact, and a stopped search goes on."""

import math

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler

from images_that_sound.selection import Halving, Rung, rungs_of


CALL = {
    "prompt": "a castle",
    "audio_prompt": "a bell",
    "width": 64,
    "crop_right": 0,
    "num_inference_steps": 5,
    "guidance_scale": 2.0,
    "audio_guidance_scale": 2.0,
    "image_guidance_start": 0.2,
}
RUNGS = [Rung(0.4, 4), Rung(0.8, 2)]
SEEDS = list(range(10, 16))


class BrightnessScore:
    """Stands where a scorer stands: bright canvases are better."""

    def __call__(self, pictures, audios, sampling_rate, prompts, audio_prompts, latents, canvas_layout):
        assert len(pictures) == len(audios) == len(prompts) == len(latents)
        return {"brightness": pictures.mean(dim=(1, 2, 3)).tolist()}


class SureScore(BrightnessScore):
    """Is the surer, the darker a canvas is."""

    def __call__(self, *args):
        scores = super().__call__(*args)
        return {**scores, "clip_log_probability": [-value for value in scores["brightness"]]}


def full_runs(pipe, seeds, **arguments):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(
        **CALL, **arguments, num_images_per_prompt=len(seeds), generator=generators, output_type="latent"
    ).images


# NumPy's about what diffusers' schedulers do.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_survivors_are_what_full_runs_give(pipe, tmp_path, eta):
    halving = Halving(pipe, {**CALL, "eta": eta}, BrightnessScore(), tmp_path, batch_size=4)
    report = halving(SEEDS, RUNGS)
    assert [len(each["kept"]) for each in report] == [4, 2, 2]
    kept = report[-1]["kept"]
    expected = full_runs(pipe, SEEDS, eta=eta)[[SEEDS.index(seed) for seed in kept]]
    torch.testing.assert_close(halving.resume(kept, 1.0)["latents"], expected, atol=1e-4, rtol=0)


def test_a_scheduler_with_noise_of_its_own(pipe, tmp_path):
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    halving = Halving(pipe, CALL, BrightnessScore(), tmp_path)
    kept = halving(SEEDS, RUNGS)[-1]["kept"]
    expected = full_runs(pipe, SEEDS)[[SEEDS.index(seed) for seed in kept]]
    torch.testing.assert_close(halving.resume(kept, 1.0)["latents"], expected, atol=1e-4, rtol=1e-4)


def test_the_better_ones_go_on(pipe, tmp_path):
    batches = []
    report = Halving(pipe, CALL, BrightnessScore(), tmp_path, batch_size=4)(
        SEEDS, RUNGS, callback_on_batch_end=lambda *batch: batches.append(batch)
    )
    assert batches == [(4, 0.0, 0.4), (2, 0.0, 0.4), (4, 0.4, 0.8), (2, 0.8, 1.0)]
    for rung, survivors in zip(report, (4, 2)):
        values = {int(seed): scores["brightness"] for seed, scores in rung["scores"].items()}
        assert rung["kept"] == sorted(sorted(values, key=values.get, reverse=True)[:survivors])


def test_of_those_that_reach_the_end_the_best_are_kept(pipe, tmp_path):
    (*_, end) = Halving(pipe, CALL, BrightnessScore(), tmp_path)(SEEDS, [Rung(0.4, 4)], keep=1)
    values = {int(seed): scores["brightness"] for seed, scores in end["scores"].items()}
    assert len(values) == 4 and end["kept"] == [max(values, key=values.get)]
    pictures = pipe(**{**CALL, **Halving(pipe, CALL, BrightnessScore(), tmp_path).resume(end["kept"], 1.0)})
    assert np.asarray(pictures.images[0]).mean() / 255 == pytest.approx(values[end["kept"][0]], abs=0.01)


def test_what_is_surest_is_kept_unless_files_of_an_earlier_version_do_not_say(pipe, tmp_path):
    first, _ = Halving(pipe, CALL, SureScore(), tmp_path / "new")(SEEDS[:3], [Rung(0.4, 1)])
    values = {int(seed): scores["brightness"] for seed, scores in first["scores"].items()}
    assert first["kept"] == [min(values, key=values.get)]
    Halving(pipe, CALL, BrightnessScore(), tmp_path / "old")(SEEDS[:3], [Rung(0.4, 1)])
    next((tmp_path / "old").glob("seed-000010-0.4*")).unlink()
    first, _ = Halving(pipe, CALL, SureScore(), tmp_path / "old")(SEEDS[:3], [Rung(0.4, 1)])
    assert first["kept"] == [max(values, key=values.get)]


def test_what_has_problems_in_the_end_has_no_scores(pipe, tmp_path):
    for parameter in pipe.vocoder.parameters():
        parameter.data.zero_()
    judged, end = Halving(pipe, CALL, BrightnessScore(), tmp_path)(SEEDS[:2], [Rung(0.4, 2)])
    assert not any(math.isnan(scores["brightness"]) for scores in judged["scores"].values())
    assert all(math.isnan(scores["brightness"]) for scores in end["scores"].values()), "they are silent"


def test_rows_are_those_of_the_forward_passes(pipe, tmp_path):
    rows = []
    for unet in (pipe.unet, pipe.unet_audio):
        unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    report = Halving(pipe, CALL, BrightnessScore(), tmp_path, batch_size=4)(SEEDS, RUNGS)
    assert [(each["step_rows"], each["judge_rows"]) for each in report] == [(6, 0), (8, 0), (4, 0)]
    assert sum(rows) == sum(each["num_candidates"] * each["step_rows"] for each in report) == 6 * 6 + 4 * 8 + 2 * 4


def test_a_stopped_search_goes_on(pipe, tmp_path):
    whole = Halving(pipe, CALL, BrightnessScore(), tmp_path / "whole", batch_size=2)(SEEDS, RUNGS)

    class Stop(BrightnessScore):
        left = 4

        def __call__(self, *args):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().__call__(*args)

    with pytest.raises(KeyboardInterrupt):
        Halving(pipe, CALL, Stop(), tmp_path / "stopped", batch_size=2)(SEEDS, RUNGS)
    passes = []
    hook = pipe.unet_audio.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    again = Halving(pipe, CALL, BrightnessScore(), tmp_path / "stopped", batch_size=2)(SEEDS, RUNGS)
    hook.remove()
    # Three batches of the first rung were there.
    assert sum(passes) == 4 * 4 + 2 * 2
    assert [each["kept"] for each in again] == [each["kept"] for each in whole]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "stopped" / path.name).exists()


def test_a_scheduler_with_a_memory_is_refused(pipe, tmp_path):
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    halving = Halving(pipe, CALL, BrightnessScore(), tmp_path)
    with pytest.raises(ValueError, match="`scheduler` has to go from step to step without a memory"):
        halving(SEEDS, [Rung(0.5, 2)])


def test_rungs_of_shares():
    assert rungs_of(32, 3, [0.2, 0.5], [0.25, 0.125]) == [Rung(0.2, 8), Rung(0.5, 4)]
    assert rungs_of(10, 3, [0.5], [0.1]) == [Rung(0.5, 3)]
    for fractions, shares, message in (
        ([0.5, 0.2], [0.5, 0.2], "`rungs` have to rise"),
        ([0.0], [0.5], "`rungs` have to rise"),
        ([0.5, 1.0], [0.5, 0.2], "`rungs` have to rise"),
        ([0.5], [1.5], "`shares` have to fall"),
        ([0.2, 0.5], [0.2, 0.5], "`shares` have to fall"),
        ([0.2, 0.5], [0.5], "have to be as many"),
    ):
        with pytest.raises(ValueError, match=message):
            rungs_of(32, 3, fractions, shares)
    with pytest.raises(ValueError, match="`keep` has to be from 1 to the 2 candidates, but is 3"):
        rungs_of(2, 3, [0.5], [0.5])
    assert rungs_of(3, 1, [0.5], [0.4]) == [Rung(0.5, 2)]
