"""Bad input is refused by an error that names the argument, the value and what is allowed."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline, load_hifigan_vocoder
from images_that_sound.schedulers import ModalityScheduler


CALL = {"prompt": "a castle", "audio_prompt": "a bell", "width": 64, "crop_right": 0, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipe(stable_diffusion_folder, auffusion_folder) -> ImagesThatSoundPipeline:
    """One for all, since a call that is refused changes nothing."""
    pipeline = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    pipeline.load_audio_prior(auffusion_folder)
    for unet in (pipeline.unet, pipeline.unet_audio):
        unet.register_forward_pre_hook(fail)
    return pipeline


def assert_refused(pipe, arguments, *parts):
    with pytest.raises(ValueError) as error:
        pipe(**{**CALL, **arguments})
    for part in parts:
        assert part in str(error.value)


def fail(*_):
    raise AssertionError("nothing may be computed before the input is checked")


@pytest.mark.parametrize("name", ["prompt", "audio_prompt"])
@pytest.mark.parametrize(
    "value, said",
    [
        (None, "neither is"),
        ([], "[]"),
        (7, "7"),
        (["a bell", 7], "['a bell', 7]"),
    ],
)
def test_prompts(pipe, name, value, said):
    assert_refused(pipe, {name: value}, f"`{name}`", said)


@pytest.mark.parametrize("name", ["prompt", "audio_prompt"])
def test_prompt_beside_its_embeddings(pipe, name):
    assert_refused(pipe, {f"{name}_embeds": torch.zeros(1, 77, 32)}, f"`{name}`", f"`{name}_embeds`", "both are")


@pytest.mark.parametrize("name", ["prompt", "audio_prompt"])
def test_embeddings_of_a_wrong_shape(pipe, name):
    embeds = {name: None, f"{name}_embeds": torch.zeros(77, 32)}
    assert_refused(pipe, embeds, f"`{name}_embeds`", "(77, 32)", "(B, L, 32)")


def test_lists_of_different_lengths(pipe):
    lists = {"prompt": ["a castle", "a train", "a tiger"], "audio_prompt": ["a bell", "a whistle"]}
    assert_refused(pipe, lists, "`prompt`", "`audio_prompt`", "3 and 2")


@pytest.mark.parametrize("name", ["negative_prompt", "negative_audio_prompt"])
@pytest.mark.parametrize("value", [["blurry", "dark"], 3, [3]])
def test_negative_prompts(pipe, name, value):
    assert_refused(pipe, {name: value}, f"`{name}`", repr(value), "1 strings")


@pytest.mark.parametrize("side", ["", "audio_"])
def test_negative_embeddings(pipe, side):
    name = f"negative_{side}prompt"
    embeds = torch.zeros(2, 77, 32)
    assert_refused(pipe, {name: "dark", f"{name}_embeds": embeds}, f"`{name}`", f"`{name}_embeds`", "both")
    assert_refused(pipe, {f"{name}_embeds": embeds}, f"`{name}_embeds`", "1 rows", "2")
    shorter = {f"{side}prompt": None, f"{side}prompt_embeds": torch.zeros(1, 76, 32), f"{name}_embeds": embeds[:1]}
    assert_refused(pipe, shorter, f"`{name}_embeds`", "(1, 77, 32)", "(1, 76, 32)")


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ({"height": 250}, ("`height`", "250", "256 mel bins")),
        ({"width": 60}, ("`width`", "60", "multiple of 8")),
        ({"width": 0}, ("`width`", "0", "positive")),
        ({"width": -64}, ("`width`", "-64", "positive")),
        ({"width": 64.0}, ("`width`", "64.0")),
        ({"height": 128}, ("`height`", "128", "256 mel bins")),
        ({"canvas_layout": "folded", "height": 256}, ("`height`", "256", "512", "'folded'")),
        ({"canvas_layout": "spiral"}, ("`canvas_layout`", "'spiral'", "'strip' or 'folded'")),
        ({"crop_right": -1}, ("`crop_right`", "-1", "from 0 on")),
        ({"crop_right": 64}, ("`crop_right`", "64", "below the 64 columns")),
        ({"crop_right": 1.5}, ("`crop_right`", "1.5")),
        ({"audio_length_in_s": 1.0}, ("`width`", "`audio_length_in_s`", "64 and 1.0")),
        ({"width": None, "audio_length_in_s": 0}, ("`audio_length_in_s`", "0", "positive")),
        ({"width": None, "audio_length_in_s": -2.5}, ("`audio_length_in_s`", "-2.5", "positive")),
        ({"width": None, "audio_length_in_s": float("inf")}, ("`audio_length_in_s`", "inf", "positive")),
        ({"width": None, "audio_length_in_s": "1"}, ("`audio_length_in_s`", "'1'", "positive")),
        ({"width": None, "audio_length_in_s": 0.5, "crop_right": -1}, ("`crop_right`", "-1")),
        ({"width": None, "audio_length_in_s": 0.5, "crop_right": "8"}, ("`crop_right`", "'8'")),
    ],
)
def test_sizes(pipe, arguments, parts):
    assert_refused(pipe, arguments, *parts)


@pytest.mark.parametrize(
    "name",
    ["audio_weight", "image_guidance_start", "image_guidance_end", "audio_guidance_start", "audio_guidance_end"],
)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5"])
def test_weights_and_fractions(pipe, name, value):
    assert_refused(pipe, {name: value}, f"`{name}`", repr(value), "between 0 and 1")


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ({"audio_weight": [0.5]}, ("`audio_weight`", "2 steps", "1 entries")),
        ({"audio_weight": [0.5, 2]}, ("`audio_weight`", "2", "between 0 and 1")),
        (
            {"image_guidance_start": 0.8, "image_guidance_end": 0.2},
            ("`image_guidance_start`", "`image_guidance_end`", "0.8 against 0.2"),
        ),
        (
            {"audio_guidance_start": 0.8, "audio_guidance_end": 0.2},
            ("`audio_guidance_start`", "`audio_guidance_end`", "0.8 against 0.2"),
        ),
        (
            {"image_guidance_start": 0.5, "audio_guidance_start": 0.5},
            ("No side acts at step 0 of 2", "`audio_weight`", "from 0.5 to 1.0"),
        ),
        (
            {"audio_weight": [0.5, 0.0], "image_guidance_end": 0.5},
            ("No side acts at step 1 of 2", "`audio_weight` is 0.0 there"),
        ),
        ({"num_inference_steps": 0}, ("`num_inference_steps`", "0", "from 1 to 1000")),
        ({"num_inference_steps": 2.5}, ("`num_inference_steps`", "2.5", "from 1 to 1000")),
        ({"guidance_scale": float("nan")}, ("`guidance_scale`", "nan", "finite")),
    ],
)
def test_schedules_and_scales(pipe, arguments, parts):
    assert_refused(pipe, arguments, *parts)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ({"num_images_per_prompt": 0}, ("`num_images_per_prompt`", "0", "positive integer")),
        ({"num_images_per_prompt": 1.5}, ("`num_images_per_prompt`", "1.5", "positive integer")),
        ({"generator": [torch.Generator()] * 3}, ("`generator`", "list of 1", "3")),
        (
            {"generator": [torch.Generator()] * 2, "num_images_per_prompt": 4},
            ("`generator`", "list of 4", "2"),
        ),
        ({"latents": torch.zeros(1, 4, 32, 9)}, ("`latents`", "(1, 4, 32, 8)", "(1, 4, 32, 9)")),
        ({"latents": torch.zeros(1, 4, 256, 64)}, ("`latents`", "(1, 4, 32, 8)", "(1, 4, 256, 64)")),
        ({"output_type": "jpg"}, ("`output_type`", "'jpg'", "'pil', 'np', 'pt' or 'latent'")),
        (
            {"callback_on_step_end_tensor_inputs": ["latents", "noise"]},
            ("`callback_on_step_end_tensor_inputs`", "noise", "prompt_embeds"),
        ),
    ],
)
def test_batches_and_outputs(pipe, arguments, parts):
    assert_refused(pipe, arguments, *parts)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ({"num_inference_steps": 10**400}, ("`num_inference_steps`", "from 1 to 1000")),
        ({"num_inference_steps": 1000}, ("`num_inference_steps`", "below the timestep 1000", "1000 begin at 1000")),
        ({"prompt": "a castle" * 50_000, "negative_prompt": [3]}, ("`negative_prompt`",)),
        ({"eta": 2}, ("`eta`", "0..1", "2")),
        ({"latents": [[0.0]]}, ("`latents`", "(1, 4, 32, 8)", "[[0.0]]")),
        ({"latents": torch.zeros(1, 4, 32, 8, dtype=torch.int64)}, ("`latents`", "floating-point", "torch.int64")),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 77, 33)},
            ("`prompt_embeds`", "(B, L, 32)", "(1, 77, 33)"),
        ),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 5, 32)}, ("`prompt`", "(1, 5, 32)", "(1, 77, 32)")),
        ({"generator": 5}, ("`generator`", "torch.Generator", "5")),
        ({"generator": [None]}, ("`generator`", "[None]")),
    ],
)
def test_further_arguments(pipe, arguments, parts):
    with pytest.raises(ValueError) as error:
        pipe(**{**CALL, **arguments})
    for part in parts:
        assert part in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "returned", [{"latents": 5}, {"latents": torch.zeros(1, 4, 32, 2)}, {"prompt_embeds": torch.zeros(2, 5, 33)}]
)
def test_what_a_callback_may_not_return(stable_diffusion_folder, auffusion_folder, returned):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    pipe.load_audio_prior(auffusion_folder)
    with pytest.raises(ValueError, match="`callback_on_step_end`"):
        pipe(**CALL, callback_on_step_end=lambda *_: returned)
    expected = pipe(**CALL, latents=torch.ones(1, 4, 32, 8), output_type="latent").images
    nothing = pipe(**CALL, latents=torch.ones(1, 4, 32, 8), output_type="latent", callback_on_step_end=lambda *_: None)
    assert torch.equal(nothing.images, expected)


@pytest.mark.parametrize("name, value", [("n_fft", 2**31), ("num_mel_bins", 10**6), ("sampling_rate", 10**400)])
def test_spectrograms_of_many_gigabytes(pipe, name, value):
    with pytest.raises(ValueError, match=f"`{name}` of the spectrogram has to be a positive integer up to"):
        ImagesThatSoundPipeline(**pipe.components, spectrogram={name: value})


def test_wrong_types_are_type_errors_at_the_latest(pipe):
    for arguments in (
        {"cross_attention_kwargs": 1},
        {"guidance_scale": "7"},
        {"callback_on_step_end_tensor_inputs": None},
        {"audio_weight": ModalityScheduler},
    ):
        with pytest.raises(TypeError):
            pipe(**{**CALL, **arguments})


def test_numbers_of_numpy_and_torch_are_numbers(stable_diffusion_folder, auffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    pipe.load_audio_prior(auffusion_folder)
    numbers = {"width": 64, "num_inference_steps": 2, "guidance_scale": 7.0, "audio_weight": 0.25, "crop_right": 0}
    call = {**CALL, "latents": torch.ones(1, 4, 32, 8), "output_type": "latent"}
    expected = pipe(**{**call, **numbers}).images
    for kind in (np.asarray, torch.tensor):
        given = {name: kind(value)[()] for name, value in numbers.items()}
        assert torch.equal(pipe(**{**call, **given}).images, expected)


def test_a_call_without_the_audio_side_says_what_to_do(stable_diffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    with pytest.raises(ValueError, match=r"`unet_audio` is not loaded.*load_audio_prior"):
        pipe(**CALL)


def test_default_arguments_that_are_no_arguments(pipe):
    with pytest.raises(ValueError, match=r"`default_arguments`.*dict.*\[3\]"):
        ImagesThatSoundPipeline(**pipe.components, default_arguments=[3])


# load_audio_prior


@pytest.fixture
def image_pipe(stable_diffusion_folder):
    return ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)


@pytest.fixture
def prior(auffusion_folder, tmp_path):
    """A copy of the audio side's folder, to be damaged."""
    return shutil.copytree(auffusion_folder, tmp_path / "auffusion")


def assert_prior_refused(pipe, folder, *parts):
    with pytest.raises(ValueError) as error:
        pipe.load_audio_prior(folder)
    for part in parts:
        assert str(part) in str(error.value)
    assert pipe.unet_audio is None and pipe.vocoder is None


def edit_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_folder_that_is_no_checkpoint(image_pipe, tmp_path):
    assert_prior_refused(image_pipe, tmp_path, tmp_path, "vocoder")


def test_a_folder_that_does_not_exist(image_pipe, tmp_path):
    assert_prior_refused(image_pipe, tmp_path / "nowhere", tmp_path / "nowhere")


def test_no_vocoder(image_pipe, prior):
    shutil.rmtree(prior / "vocoder")
    assert_prior_refused(image_pipe, prior, prior, "vocoder/config.json")


def test_no_vocoder_weights(image_pipe, prior):
    (prior / "vocoder" / "vocoder.pt").unlink()
    assert_prior_refused(image_pipe, prior, prior, "vocoder/vocoder.pt")


@pytest.mark.parametrize("folder", ["unet", "vae", "text_encoder", "tokenizer"])
def test_a_part_is_missing(image_pipe, prior, folder):
    shutil.rmtree(prior / folder)
    assert_prior_refused(image_pipe, prior, prior, folder)


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_part_is_damaged(image_pipe, prior, file):
    (prior / file).write_text("{")
    assert_prior_refused(image_pipe, prior, prior, file.split("/")[0])


def test_unknown_keyword(image_pipe, prior):
    with pytest.raises(ValueError, match="`load_audio_prior`.*'weights'"):
        image_pipe.load_audio_prior(prior, weights="fp16")


def test_unknown_quantization_of_the_audio_side(image_pipe, prior):
    with pytest.raises(ValueError, match="`unet` of .*: Unknown quantization type, got nothing"):
        image_pipe.load_audio_prior(prior, quantization_config={"quant_method": "nothing"})
    assert image_pipe.unet_audio is None


def test_audio_side_of_other_latents(image_pipe, prior):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(prior / "unet")
    UNet2DConditionModel.from_config({**config, "in_channels": 3}).save_pretrained(prior / "unet")
    assert_prior_refused(image_pipe, prior, "`unet_audio`", "4 channels", "takes 3")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 cut off", pickle.dumps([1, 2]), b"(lp0\n", b"\x80\x02.", b"\x80\x02X"],
    ids=["empty", "text", "zip-cut-off", "list", "old-pickle", "nothing-to-pop", "length-cut-off"],
)
def test_a_corrupt_vocoder(image_pipe, prior, content):
    (prior / "vocoder" / "vocoder.pt").write_bytes(content)
    assert_prior_refused(image_pipe, prior, "vocoder.pt")


def test_a_truncated_vocoder(image_pipe, prior):
    file = prior / "vocoder" / "vocoder.pt"
    file.write_bytes(file.read_bytes()[:100_000])
    assert_prior_refused(image_pipe, prior, "vocoder.pt")


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_malicious_vocoder_is_not_executed(image_pipe, prior, tmp_path, protocol):
    checkpoint, file = {"generator": Attack(tmp_path / "owned")}, prior / "vocoder" / "vocoder.pt"
    torch.save(checkpoint, file) if protocol == "torch" else file.write_bytes(pickle.dumps(checkpoint))
    assert_prior_refused(image_pipe, prior, "vocoder.pt", "not executed")
    assert not (tmp_path / "owned").exists()
    with open(file, "rb") as stream:
        torch.load(stream, weights_only=False) if protocol == "torch" else pickle.load(stream)
    assert (tmp_path / "owned").exists(), "the attack itself has to work, or the test shows nothing"


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"resblock": "2"}, ("`resblock`", "'2'", "'1'")),
        ({"upsample_kernel_sizes": [11, 8, 8]}, ("`upsample_kernel_sizes`", "[11, 8, 8]", "[5, 4, 4, 2]")),
        ({"upsample_kernel_sizes": [4, 8, 8, 4]}, ("`upsample_kernel_sizes`", "[4, 8, 8, 4]", "[5, 4, 4, 2]")),
        ({"upsample_initial_channel": 64}, ("vocoder.pt", "does not fit")),
        ({"resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 3, 5]] * 2}, ("does not fit",)),
        ({"sampling_rate": 22050}, ("`sampling_rate`", "22050", "16000")),
        ({"upsample_initial_channel": 10**7}, ("`upsample_initial_channel`", "10000000", "2048")),
        ({"upsample_rates": 5}, ("`upsample_rates`", "5")),
        ({"resblock_kernel_sizes": [3, "7"]}, ("`resblock_kernel_sizes`", "'7'")),
    ],
)
def test_vocoder_configs_that_do_not_fit(image_pipe, prior, changes, parts):
    edit_json(prior / "vocoder" / "config.json", **changes)
    assert_prior_refused(image_pipe, prior, *parts)


def test_a_vocoder_config_without_a_needed_entry(image_pipe, prior):
    file = prior / "vocoder" / "config.json"
    config = json.loads(file.read_text())
    del config["upsample_rates"]
    file.write_text(json.dumps(config))
    assert_prior_refused(image_pipe, prior, "config.json", "upsample_rates")


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '"x"'])
def test_a_vocoder_config_that_is_no_object(image_pipe, prior, content):
    file = prior / "vocoder" / "config.json"
    file.write_text(content)
    assert_prior_refused(image_pipe, prior, "config.json")
    with pytest.raises(ValueError, match=re.escape(str(file))):
        load_hifigan_vocoder(file, prior / "vocoder" / "vocoder.pt")


def test_a_vocoder_of_other_mel_bins(auffusion_folder, stable_diffusion_folder):
    from diffusers import DiffusionPipeline

    parts = DiffusionPipeline.from_pretrained(stable_diffusion_folder).components
    parts = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    absent = [*ImagesThatSoundPipeline._optional_components]
    pipe = ImagesThatSoundPipeline(**parts, **dict.fromkeys(absent), spectrogram={"num_mel_bins": 128})
    assert_prior_refused(pipe, auffusion_folder, "`model_in_dim`", "256", "128")


def test_loading_the_audio_side_after_offloading(image_pipe, auffusion_folder):
    image_pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(ValueError, match="`load_audio_prior`.*before offloading"):
        image_pipe.load_audio_prior(auffusion_folder)
