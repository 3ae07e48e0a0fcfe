"""Score distillation on random weights: gradients, resuming, several processes, and what the call takes."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from images_that_sound.pipelines import ImagesThatSoundSDSPipeline
from images_that_sound.pipelines.images_that_sound_score_distillation import (
    FourierCanvas,
    score_distillation_loss,
)
from images_that_sound.schedulers import ScoreDistillationScheduler


PROMPTS = ("castle towers", "bell ringing")
SMALL = dict(
    width=64,
    crop_width=64,
    num_crops=2,
    num_iterations=3,
    image_start_step=1,
    crop_right=0,
    canvas_kwargs={"num_frequencies": 8, "hidden_size": 16},
    output_type="pt",
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gradient_of_the_loss_is_the_weighted_difference_of_noises():
    inputs = torch.randn(2, 3, 4, 4, requires_grad=True)
    noise_pred, noise, weights = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([0.5, 2.0])
    score_distillation_loss(inputs, noise_pred, noise, weights).backward()
    expected = weights.view(2, 1, 1, 1) * (noise_pred - noise) / 2
    torch.testing.assert_close(inputs.grad, expected, atol=1e-6, rtol=0)


def test_each_iteration_moves_the_canvas_and_no_model(sds_pipe):
    before = {name: p.clone() for name, p in sds_pipe.unet_audio.named_parameters()}
    seen = []

    def look(pipe, iteration, sample, tensors):
        seen.append(tensors)

    output = sds_pipe(
        *PROMPTS,
        **{**SMALL, "num_crops": 1},
        learning_rate=1e-2,
        generator=generator(),
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["canvas", "image_loss", "audio_loss"],
    )
    assert [entry["image_loss"] is None for entry in seen] == [True, False, False]
    assert all(entry["audio_loss"] > 0 for entry in seen)
    assert (seen[0]["canvas"] - seen[1]["canvas"]).abs().max() > 1e-4
    last_step = (output.spectrograms - seen[-1]["canvas"]).abs().max()
    assert 1e-4 < last_step < 0.5
    assert output.images.shape == (1, 3, 256, 64) and output.audios.shape == (1, 64 * 160)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in sds_pipe.unet_audio.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in (sds_pipe.vae_audio or sds_pipe.vae).parameters())


def test_silent_side_is_not_run(pixel_pipe):
    calls = {"unet": 0, "unet_audio": 0}
    for name in calls:
        getattr(pixel_pipe, name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    pixel_pipe(*PROMPTS, **SMALL, generator=generator())
    assert calls == {"unet": 2, "unet_audio": 3}
    pixel_pipe(*PROMPTS, **SMALL, audio_weight=0.0, generator=generator())
    assert calls == {"unet": 4, "unet_audio": 3}


def test_a_killed_run_goes_on_to_the_same_bits(pixel_pipe, tmp_path):
    call = {**SMALL, "num_iterations": 6}
    whole = pixel_pipe(*PROMPTS, **call, generator=generator())

    def kill(pipe, iteration, sample, tensors):
        if iteration == 4:
            raise KeyboardInterrupt

    kept = dict(checkpoint_dir=tmp_path, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        pixel_pipe(*PROMPTS, **call, **kept, generator=generator(), callback_on_step_end=kill)
    seen = []
    resumed = pixel_pipe(
        *PROMPTS, **call, **kept, generator=generator(), callback_on_step_end=lambda p, i, s, t: seen.append(i)
    )
    assert seen == [4, 5]
    assert torch.equal(resumed.spectrograms, whole.spectrograms)
    assert [file.name for file in tmp_path.iterdir()] == ["sample-0.pt"]

    (tmp_path / "sample-0.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="`checkpoint_dir` holds"):
        pixel_pipe(*PROMPTS, **call, **kept, generator=generator())


def test_a_run_takes_over_no_canvas_of_another(pixel_pipe, tmp_path):
    call = {"prompt": PROMPTS[0], "audio_prompt": PROMPTS[1], **SMALL, "checkpoint_dir": tmp_path}
    first = pixel_pipe(**call, generator=generator())
    state = (tmp_path / "sample-0.pt").read_bytes()
    for other in (
        {"prompt": "a train"},
        {"audio_prompt": "a whistle"},
        {"negative_audio_prompt": "noise"},
        {"num_iterations": 2},
        {"num_iterations": 5},
        {"audio_guidance_scale": 7.0},
        {"learning_rate": 1e-3},
        {"optimizer_kwargs": {"weight_decay": 0.1}},
        {"timestep_scheduler": ScoreDistillationScheduler(final_max_timestep=0.5)},
        {"generator": generator(1)},
    ):
        name = next(iter(other))
        with pytest.raises(ValueError, match=f"`checkpoint_dir` holds .*`{name}`") as error:
            pixel_pipe(**{**call, "generator": generator(), **other})
        assert str(error.value).count("`") == 4, "nothing else differs"
    assert (tmp_path / "sample-0.pt").read_bytes() == state
    again = pixel_pipe(**{**call, "crop_right": 8}, generator=generator())
    assert torch.equal(again.spectrograms, first.spectrograms[..., :-8])


def test_a_folder_that_can_not_be_written_is_refused_before_anything_is_computed(pixel_pipe, tmp_path):
    (tmp_path / "file").write_text("")
    pixel_pipe.unet_audio.register_forward_pre_hook(lambda *_: pytest.fail("the call has begun"))
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="`checkpoint_dir` has to be a folder"):
            pixel_pipe(*PROMPTS, **SMALL, checkpoint_dir=folder, generator=generator())


@pytest.mark.parametrize("broken, said", [("unet", "image prior `unet`"), ("unet_audio", "audio prior `unet_audio`")])
def test_a_prior_that_yields_nan_ends_the_run_and_spoils_no_checkpoint(pixel_pipe, tmp_path, broken, said):
    call = {**SMALL, "num_iterations": 5}
    whole = pixel_pipe(*PROMPTS, **call, generator=generator())
    runs = []

    def spoil(module, inputs, output):
        runs.append(0)
        return (output[0] * float("nan" if len(runs) == 3 else 1),)

    hook = getattr(pixel_pipe, broken).register_forward_hook(spoil)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 1}
    iteration = 3 if broken == "unet" else 2
    with pytest.raises(ValueError, match=f"At iteration {iteration} the {said} yields values that are not finite"):
        pixel_pipe(*PROMPTS, **call, **kept, generator=generator())
    hook.remove()
    resumed = pixel_pipe(*PROMPTS, **call, **kept, generator=generator())
    assert torch.equal(resumed.spectrograms, whole.spectrograms)


def test_batches_give_what_single_calls_give(pixel_pipe):
    prompts = [["castle", "kittens"], ["bell", "meow"]]
    batch = pixel_pipe(*prompts, **SMALL, generator=[generator(0), generator(1)])
    for i in range(2):
        single = pixel_pipe(prompts[0][i], prompts[1][i], **SMALL, generator=generator(i))
        assert torch.equal(batch.spectrograms[i], single.spectrograms[0])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
def test_any_optimiser_by_name_and_pixels(pixel_pipe, optimizer):
    call = {**SMALL, "canvas_kwargs": None}
    output = pixel_pipe(*PROMPTS, **call, canvas="pixels", optimizer=optimizer, generator=generator())
    assert (output.spectrograms - 0.5).abs().max() < 0.2


def test_gradients_accumulate_over_iterations(pixel_pipe):
    canvases = []
    pixel_pipe(
        *PROMPTS,
        **{**SMALL, "num_iterations": 4, "canvas_kwargs": None},
        canvas="pixels",
        accelerator=Accelerator(cpu=True, gradient_accumulation_steps=2),
        generator=generator(),
        callback_on_step_end=lambda pipe, iteration, sample, tensors: canvases.append(tensors["canvas"]),
        callback_on_step_end_tensor_inputs=["canvas"],
    )
    moved = [not torch.equal(first, second) for first, second in zip(canvases, canvases[1:])]
    assert moved == [False, True, False]


def test_mixed_precision_stays_close(pixel_pipe):
    def first_losses(accelerator: Accelerator) -> dict:
        seen = []
        pixel_pipe(
            *PROMPTS,
            **{**SMALL, "num_iterations": 1, "image_start_step": 0},
            generator=generator(),
            accelerator=accelerator,
            callback_on_step_end=lambda pipe, iteration, sample, tensors: seen.append(tensors),
        )
        return seen[0]

    AcceleratorState._reset_state(reset_partial_state=True)
    plain = first_losses(Accelerator(cpu=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = first_losses(Accelerator(cpu=True, mixed_precision="bf16"))
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, loss in plain.items():
        assert loss != mixed[name] and mixed[name] == pytest.approx(loss, rel=0.05)


ONE_STEP = """
import sys, torch
from accelerate import Accelerator, debug_launcher
from images_that_sound.pipelines import ImagesThatSoundSDSPipeline

def main(models, processes, result):
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    pipe = ImagesThatSoundSDSPipeline.from_pretrained(models + "/deepfloyd-if-stage-1")
    pipe.load_audio_prior(models + "/auffusion")
    pipe.set_progress_bar_config(disable=True)
    output = pipe("castle towers", "bell ringing", width=64, crop_width=64, num_crops=3, num_iterations=2,
                  image_start_step=0, crop_right=0, canvas="pixels", optimizer="SGD", learning_rate=1e-2,
                  optimizer_kwargs={}, accelerator=accelerator, generator=torch.Generator().manual_seed(0),
                  output_type="pt")
    assert accelerator.num_processes == processes
    if accelerator.is_main_process:
        torch.save(output.spectrograms, result)

models, processes, result = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if processes == 1:
    main(models, processes, result)
else:
    debug_launcher(main, (models, processes, result), processes)
"""


def test_two_processes_take_the_same_step_as_one(run_fresh, tmp_path, fixtures_folder):
    """Plain gradient descent: what the canvas moves by is the gradient."""
    canvases = {}
    for processes in (1, 2):
        result = tmp_path / f"canvas-{processes}.pt"
        arguments = [str(fixtures_folder / "models"), str(processes), str(result)]
        process = run_fresh(ONE_STEP, *arguments, directory=tmp_path)
        assert process.returncode == 0, process.stderr
        canvases[processes] = torch.load(result, weights_only=True)
    assert (canvases[1] - 0.5).abs().max() > 0.05, "a canvas of pixels starts near a half"
    torch.testing.assert_close(canvases[2], canvases[1], atol=1e-4, rtol=0)


def test_schedule_saves_loads_and_is_used(pixel_pipe, tmp_path):
    ScoreDistillationScheduler(final_max_timestep=0.5).save_pretrained(tmp_path)
    schedule = ScoreDistillationScheduler.from_pretrained(tmp_path)
    assert schedule.config.final_max_timestep == 0.5
    uniform = pixel_pipe(*PROMPTS, **SMALL, generator=generator(), timestep_scheduler=ScoreDistillationScheduler())
    plain = pixel_pipe(*PROMPTS, **SMALL, generator=generator())
    other = pixel_pipe(*PROMPTS, **SMALL, generator=generator(), timestep_scheduler=schedule)
    assert torch.equal(uniform.spectrograms, plain.spectrograms)
    assert not torch.equal(other.spectrograms, plain.spectrograms)


def test_fourier_canvas_is_drawn_alike_whenever_it_is_looked_at():
    canvas = FourierCanvas(16, 32, num_frequencies=4, hidden_size=8)
    image = canvas()
    assert image.shape == (1, 1, 16, 32) and 0 <= image.min() and image.max() <= 1
    assert torch.equal(canvas(), image)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(prompt=["a", "b", "c"], audio_prompt=["a", "b"]), "`prompt` and `audio_prompt`"),
        (dict(height=128), "`height` has to be 256"),
        (dict(width=60), "`width` has to be a multiple of 8"),
        (dict(crop_width=65), "`crop_width` has to be an integer from 1 to 64, but is 65"),
        (dict(num_crops=0), "`num_crops`"),
        (dict(num_iterations=0), "`num_iterations`"),
        (dict(canvas="oil"), "`canvas` has to be one of"),
        (dict(optimizer="Optimizers"), "`optimizer` has to name a class of `torch.optim`"),
        (dict(optimizer="LBFGS"), "`optimizer`"),
        (dict(learning_rate=float("inf")), "`learning_rate`"),
        (dict(output_type="latent"), "`output_type`"),
        (dict(callback_on_step_end_tensor_inputs=["latents"]), "`callback_on_step_end_tensor_inputs`"),
    ],
)
def test_bad_input_is_refused(pixel_pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        pixel_pipe(**{"prompt": PROMPTS[0], "audio_prompt": PROMPTS[1], **SMALL, **arguments})


def test_missing_audio_side(fixtures_folder):
    pipe = ImagesThatSoundSDSPipeline.from_pretrained(fixtures_folder / "models" / "deepfloyd-if-stage-1")
    with pytest.raises(ValueError, match="load_audio_prior"):
        pipe(*PROMPTS)


def test_model_offloading_gives_the_same(pixel_pipe):
    expected = pixel_pipe(*PROMPTS, **SMALL, generator=generator())
    pixel_pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        output = pixel_pipe(*PROMPTS, **SMALL, generator=generator())
        assert torch.equal(output.images, expected.images) and torch.equal(output.audios, expected.audios)


def test_crops_are_square_where_nobody_says_otherwise(pixel_pipe):
    crops = []
    pixel_pipe.image_loss = lambda pieces, *_, **__: crops.append(pieces.shape) or (pieces * 0).sum()
    call = {name: value for name, value in SMALL.items() if name != "crop_width"}
    pixel_pipe(*PROMPTS, **{**call, "width": 512, "num_iterations": 1, "image_start_step": 0}, generator=generator())
    assert crops == [(2, 3, 256, 256)]
