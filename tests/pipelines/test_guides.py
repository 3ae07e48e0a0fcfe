"""ControlNets, IP-Adapters and what else a user of Stable Diffusion knows, compared with the stock pipelines."""

from collections import Counter

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import STABLE_DIFFUSION, controlnet_of, save_ip_adapter, two_sides
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    MultiControlNetModel,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback

from images_that_sound.pipelines import (
    ImagesThatSoundImg2ImgPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CALL = {"num_inference_steps": 5, "guidance_scale": 2.0, "output_type": "latent"}
OWN = {"audio_guidance_scale": 2.0, "image_guidance_start": 0.0, "crop_right": 0, "audio_weight": 0.0}


def picture(seed=0, width=64, height=256):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def pipe():
    return two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)


@pytest.fixture(scope="module")
def nets(pipe):
    return [controlnet_of(pipe.unet, seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def as_it_came(pipe):
    yield
    pipe.controlnet, pipe.scheduler = None, DDIMScheduler.from_config(pipe.scheduler.config)


@pytest.fixture(scope="module")
def adapter_folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ip-adapter")
    save_ip_adapter(pipe.unet, folder / "ip-adapter.safetensors")
    return folder


@pytest.fixture
def adapted(pipe, adapter_folder):
    pipe.load_ip_adapter(adapter_folder, subfolder="", weight_name="ip-adapter.safetensors")
    yield pipe
    pipe.unload_ip_adapter()


def img2img_of(pipe):
    other = ImagesThatSoundImg2ImgPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def draw(pipe, **arguments):
    call = {"prompt": "a castle", "audio_prompt": "a bell", "generator": torch.Generator().manual_seed(0), **CALL}
    if {"timesteps", "sigmas"} & set(arguments):
        del call["num_inference_steps"]
    return pipe(**{**call, **OWN, "width": 64, **arguments}).images


def stock_latents(pipe, stock_class=StableDiffusionPipeline, side="", prompt="a castle", **arguments):
    parts = {name: getattr(pipe, name + side) for name in ("unet", "vae", "text_encoder")}
    parts |= {"tokenizer": pipe.tokenizer, "scheduler": None, "safety_checker": None}
    parts |= {"image_encoder": pipe.image_encoder, "feature_extractor": pipe.feature_extractor}
    parts |= {"controlnet": pipe.controlnet} if "ControlNet" in stock_class.__name__ else {}
    stock = stock_class(**parts, requires_safety_checker=False)
    stock.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    size = {} if "Img2Img" in stock_class.__name__ else {"height": 256, "width": 64}
    generator = torch.Generator().manual_seed(0)
    return stock(prompt, **{"generator": generator, **CALL, **size, **arguments}).images


def runs_of(nets, call):
    """How often each of the ControlNets is run in a call."""
    runs = Counter()
    hooks = [net.register_forward_hook(lambda *_, i=i: runs.update([i])) for i, net in enumerate(nets)]
    call()
    for hook in hooks:
        hook.remove()
    return [runs[i] for i in range(len(nets))]


# -------------------- ControlNet --------------------


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.2, 0.8)])
def test_the_image_side_with_a_controlnet_is_the_stock_pipelines(pipe, nets, span):
    pipe.controlnet = nets[0]
    given = {"controlnet_conditioning_scale": 0.7, "control_guidance_start": span[0], "control_guidance_end": span[1]}
    latents = draw(pipe, control_image=picture(), **given)
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=picture(), **given))
    assert not torch.allclose(latents, draw(pipe), atol=1e-2)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_guess_mode_is_the_stock_pipelines(pipe, nets, guidance_scale):
    pipe.controlnet = nets[0]
    given = {"guess_mode": True, "guidance_scale": guidance_scale}
    latents = draw(pipe, control_image=picture(), **given)
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=picture(), **given))


def test_two_controlnets_and_a_batch_are_the_stock_pipelines(pipe, nets):
    pipe.controlnet = MultiControlNetModel(nets)
    given = {"prompt": ["a castle", "a dog"], "num_images_per_prompt": 2, "control_guidance_start": [0.0, 0.4]}
    given |= {"control_guidance_end": [0.8, 1.0], "controlnet_conditioning_scale": [0.7, 1.3]}
    images = [[picture(0), picture(1)], [picture(2), picture(3)]]
    latents = draw(pipe, control_image=images, audio_prompt=["a bell", "rain"], **given)
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=images, **given))
    images = [picture(0), picture(1)]
    latents = draw(pipe, control_image=images)
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=images))


def test_a_controlnet_that_pools_is_the_stock_pipelines(pipe, nets):
    pipe.controlnet = controlnet_of(pipe.unet, 3)
    pipe.controlnet.register_to_config(global_pool_conditions=True)
    latents = draw(pipe, control_image=picture())
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=picture()))


def test_from_a_picture_with_a_controlnet_it_is_the_stock_pipelines(pipe, nets):
    pipe.controlnet = nets[0]
    given = {"strength": 0.8, "control_guidance_start": 0.3, "control_image": picture(1), "image": picture()}
    given["controlnet_conditioning_scale"] = 0.7
    latents = draw(img2img_of(pipe), **given)
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetImg2ImgPipeline, **given))


def test_a_folded_canvas_is_guided_as_it_is_seen(pipe, nets):
    pipe.controlnet = nets[0]
    square = picture(width=32, height=512)
    latents = draw(pipe, control_image=square, canvas_layout="folded", width=32)
    size = {"height": 512, "width": 32}
    assert torch.equal(latents, stock_latents(pipe, StableDiffusionControlNetPipeline, image=square, **size))


def test_a_controlnet_is_run_only_where_it_counts(pipe, nets):
    pipe.controlnet = MultiControlNetModel(nets)
    given = {"control_image": [picture(0), picture(1)], "control_guidance_end": [1.0, 0.6]}
    shares = [0.5, 1.0, 1.0, 0.5, 0.5]
    assert runs_of(nets, lambda: draw(pipe, audio_weight=shares, **given)) == [3, 1]
    assert runs_of(nets, lambda: draw(pipe, audio_weight=1.0, **given)) == [0, 0]
    assert list(pipe.controlnet.nets) == nets
    alone = draw(pipe, audio_weight=1.0)
    assert torch.equal(draw(pipe, audio_weight=1.0, **given), alone)


def test_control_images_of_another_shape_come_onto_the_canvas_on_black(pipe, nets):
    pipe.controlnet = nets[0]
    padded = np.zeros((256, 64, 3), np.uint8)
    padded[96:160] = np.asarray(picture(width=64, height=64))
    square = picture(width=64, height=64)
    expected = draw(pipe, control_image=PIL.Image.fromarray(padded))
    assert torch.equal(draw(pipe, control_image=square, resize_mode="center"), expected)
    assert not torch.equal(draw(pipe, control_image=square, resize_mode="stretch"), expected)


def test_offloading_and_fused_projections_change_nothing(nets):
    pipe = two_sides(ImagesThatSoundPipeline, STABLE_DIFFUSION)
    pipe.controlnet, images = MultiControlNetModel(nets), [picture(0), picture(1)]
    given = {"control_image": images, "control_guidance_end": [1.0, 0.6], "audio_weight": 0.5}
    expected = draw(pipe, **given)
    pipe.fuse_qkv_projections()
    torch.testing.assert_close(draw(pipe, **given), expected, atol=1e-4, rtol=0)
    fused = draw(pipe, control_image=images)
    assert torch.equal(fused, stock_latents(pipe, StableDiffusionControlNetPipeline, image=images))
    pipe.unfuse_qkv_projections()
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(pipe, **given), expected)
    pipe.remove_all_hooks()


# -------------------- IP-Adapter --------------------


def test_the_image_side_with_an_ip_adapter_is_the_stock_pipelines(pipe, adapted):
    audio = draw(pipe, audio_weight=1.0, ip_adapter_image=picture())
    images = [draw(pipe, ip_adapter_image=picture(seed)) for seed in (0, 1)]
    assert torch.equal(images[0], stock_latents(pipe, ip_adapter_image=picture(0)))
    assert not torch.allclose(*images, atol=1e-2)
    pipe.set_ip_adapter_scale(0.4)
    given = {"ip_adapter_image": [[picture(0), picture(1)]], "num_images_per_prompt": 2}
    assert torch.equal(draw(pipe, **given), stock_latents(pipe, **given))
    mask = torch.zeros(1, 1, 256, 64)
    mask[..., :32] = 1
    masked = draw(pipe, ip_adapter_image=picture(), cross_attention_kwargs={"ip_adapter_masks": [mask]})
    assert not torch.equal(masked, draw(pipe, ip_adapter_image=picture()))
    pipe.unload_ip_adapter()
    assert pipe.image_encoder is None and torch.equal(draw(pipe), stock_latents(pipe))
    assert torch.equal(draw(pipe, audio_weight=1.0), audio)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_embeddings_stand_in_for_the_picture(pipe, adapted, guidance_scale):
    given = {"guidance_scale": guidance_scale}
    parts = {name: None for name in ("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker")}
    parts |= {name: getattr(pipe, name) for name in ("unet", "image_encoder", "feature_extractor")}
    stock = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    embeds = stock.prepare_ip_adapter_image_embeds(picture(), None, "cpu", 1, guidance_scale > 1)
    latents = draw(pipe, ip_adapter_image_embeds=embeds, **given)
    assert torch.equal(latents, draw(pipe, ip_adapter_image=picture(), **given))
    assert torch.equal(latents, stock_latents(pipe, ip_adapter_image_embeds=embeds, **given))


def test_guidance_may_end_early_beside_all_guides(pipe, nets, adapted):
    pipe.controlnet = nets[0]
    given = {"ip_adapter_image": picture(), "control_image": picture(1)}
    cut = draw(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2), **given)
    assert torch.isfinite(cut).all() and not torch.equal(cut, draw(pipe, **given))


# -------------------- CLIP skip, rescaled guidance, steps of one's own --------------------


@pytest.mark.parametrize("side", ["", "_audio"])
def test_clip_skip_and_rescaled_guidance_are_the_stock_pipelines_on_either_side(pipe, side):
    encoder = getattr(pipe, f"text_encoder{side}")
    if not hasattr(encoder, "text_model"):
        # Where diffusers looks for the norm that transformers 5 has in the encoder itself.
        object.__setattr__(encoder, "text_model", encoder)
    prefix, weight, prompt = ("audio_", 1.0, "a bell") if side else ("", 0.0, "a castle")
    plain = draw(pipe, audio_weight=weight)
    for given in ({"clip_skip": 1}, {"guidance_rescale": 0.7}):
        own = {f"{prefix}{name}": value for name, value in given.items()}
        latents = draw(pipe, audio_weight=weight, **own)
        assert torch.equal(latents, stock_latents(pipe, side=side, prompt=prompt, **given))
        assert not torch.equal(latents, plain)
        assert torch.equal(draw(pipe, audio_weight=1 - weight, **own), draw(pipe, audio_weight=1 - weight))


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler])
def test_timesteps_and_sigmas_are_the_stock_pipelines(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    timesteps = [901, 700, 450, 300, 20]
    assert torch.equal(draw(pipe, timesteps=timesteps), stock_latents(pipe, timesteps=timesteps))
    mixed = draw(pipe, timesteps=timesteps, audio_weight=[0.5, 0.5, 0.9, 0.2, 0.2])
    assert torch.isfinite(mixed).all()
    if scheduler is EulerDiscreteScheduler:
        sigmas = [14.0, 5.0, 2.0, 0.5, 0.0]
        assert torch.equal(draw(pipe, sigmas=sigmas), stock_latents(pipe, sigmas=sigmas))
    if scheduler.order == 1:
        given = {"image": picture(), "strength": 0.6, "timesteps": timesteps}
        latents = draw(img2img_of(pipe), **given)
        assert torch.equal(latents, stock_latents(pipe, StableDiffusionImg2ImgPipeline, **given))


# -------------------- Loading --------------------


def test_optional_parts_are_saved_and_loaded_in_every_way(pipe, nets, adapted, tmp_path):
    pipe.register_modules(controlnet=nets[0])
    pipe.save_pretrained(tmp_path / "one")
    one = ImagesThatSoundPipeline.from_pretrained(tmp_path / "one")
    assert isinstance(one.controlnet, ControlNetModel) and one.image_encoder is not None
    assert one.feature_extractor.crop_size == pipe.feature_extractor.crop_size
    kwargs = {"dtype": torch.float16, "controlnet": [net.half() for net in nets]}
    several = ImagesThatSoundImg2ImgPipeline.from_pretrained(STABLE_DIFFUSION, **kwargs)
    several.save_pretrained(tmp_path / "two")
    two = ImagesThatSoundPipeline.from_pretrained(tmp_path / "two", dtype=torch.float32)
    for net in nets:
        net.float()
    for own, other in zip(two.controlnet.nets, nets, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), other.state_dict().values()))
    stock = StableDiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    assert ImagesThatSoundPipeline.from_pipe(stock).controlnet is None
    assert ImagesThatSoundPipeline.from_pipe(stock, controlnet=nets[0]).controlnet is nets[0]
    controlled = StableDiffusionControlNetPipeline.from_pipe(stock, controlnet=nets)
    assert list(ImagesThatSoundImg2ImgPipeline.from_pipe(controlled).controlnet.nets) == nets
    imprint = ImagesThatSoundImprintPipeline.from_pipe(pipe)
    assert imprint.controlnet is nets[0] and imprint.image_encoder is pipe.image_encoder


def test_imprint_makes_its_picture_with_guides(pipe, nets, adapted):
    pipe.controlnet = nets[0]
    given = {"control_image": picture(1), "control_guidance_end": 0.5, "ip_adapter_image": picture()}
    imprint = ImagesThatSoundImprintPipeline.from_pipe(pipe)
    imprint.set_progress_bar_config(disable=True)
    made = imprint(
        "a castle",
        audio=np.sin(np.arange(64 * 160, dtype=np.float32)),
        **CALL,
        **given,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(made.images, draw(pipe, **given))


# -------------------- Bad input --------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control_image": "a.png"}, "`control_image` has to be a picture"),
        ({"control_image": [picture(), picture(), picture()], "prompt": ["a", "b"]}, "`control_image` .*equally many"),
        ({"control_image": torch.full((1, 3, 8, 8), 2.0)}, "`control_image` has to be in 0..1"),
        ({"controlnet_conditioning_scale": 0.5}, "Without `control_image`, none of .*`control_guidance_start`"),
        ({"control_guidance_end": 0.5}, "Without `control_image`, none of"),
        ({"control_image": picture(), "controlnet_conditioning_scale": "a"}, "`controlnet_conditioning_scale` has"),
        (
            {"control_image": picture(), "controlnet_conditioning_scale": [1, 1]},
            "each of 1 ControlNets, but has 2",
        ),
        ({"control_image": picture(), "control_guidance_start": -0.1}, "`control_guidance_start` has to be in 0..1"),
        (
            {"control_image": picture(), "control_guidance_start": 0.5, "control_guidance_end": 0.5},
            "`control_guidance_start` has to be before `control_guidance_end`, but they are 0.5 and 0.5",
        ),
        ({"resize_mode": "fill"}, "`resize_mode` has to be"),
        ({"ip_adapter_image": picture()}, "`ip_adapter_image` needs an IP-Adapter"),
        ({"ip_adapter_image_embeds": [torch.zeros(2, 1, 8)]}, "`ip_adapter_image_embeds` needs an IP-Adapter"),
        ({"ip_adapter_image": picture(), "ip_adapter_image_embeds": []}, "exclude each other"),
        ({"clip_skip": 3}, "`clip_skip` has to be an integer from 0 to 2, but is 3"),
        ({"audio_clip_skip": -1}, "`audio_clip_skip` has to be an integer"),
        ({"guidance_rescale": 1.5}, "`guidance_rescale` has to be in 0..1"),
        ({"audio_guidance_rescale": "a"}, "`audio_guidance_rescale` has to be a finite number"),
        ({"timesteps": [900, 100]}, "DDIMScheduler takes no such `timesteps`"),
        ({"timesteps": [100, 900]}, "`timesteps` has to be a list of falling numbers, but is .100, 900."),
        ({"timesteps": []}, "`timesteps` has to be a list"),
        ({"sigmas": [1.0, float("nan")]}, "`sigmas` has to be a list"),
        ({"timesteps": [900], "num_inference_steps": 1}, "exclude each other"),
        ({"timesteps": [900], "sigmas": [1.0]}, "exclude each other"),
    ],
)
def test_bad_input_is_refused(pipe, nets, arguments, message):
    pipe.controlnet = nets[0]
    with pytest.raises(ValueError, match=message):
        draw(pipe, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`ip_adapter_image` or `ip_adapter_image_embeds` has to be given"),
        ({"ip_adapter_image": [picture(), picture()]}, "an entry for each of 1 IP-Adapters, but has 2"),
        ({"ip_adapter_image": "a.png"}, "`ip_adapter_image` has to be a picture"),
        ({"ip_adapter_image": torch.zeros(1, 3, 8, 8)}, r"`ip_adapter_image` has to be .* shape \(B, 3, 32, 32\)"),
        ({"ip_adapter_image_embeds": [torch.zeros(2, 1, 9)]}, r"`ip_adapter_image_embeds` .* shape \(2, N, 8\)"),
        ({"ip_adapter_image_embeds": torch.zeros(2, 1, 8)}, "`ip_adapter_image_embeds` has to be a list"),
    ],
)
def test_bad_pictures_of_an_ip_adapter_are_refused(adapted, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(adapted, **arguments)


def test_several_controlnets_want_a_list_for_each(pipe, nets):
    with pytest.raises(ValueError, match="`control_image` needs a `controlnet`"):
        draw(pipe, control_image=picture())
    pipe.controlnet = MultiControlNetModel(nets)
    for images in (picture(), [picture()], [[picture()], [picture()]], [picture(), [picture(), picture()]]):
        with pytest.raises(ValueError, match="`control_image` has to be a list of one for each of 2 ControlNets"):
            draw(pipe, control_image=images)
    with pytest.raises(ValueError, match=r"`prompt` .*`control_image\[1\]`|`control_image\[1\]`.* equally many"):
        draw(pipe, control_image=[picture(), torch.rand(3, 3, 256, 64)], prompt=["a", "b"])


@pytest.mark.parametrize("name", ["cross_attention_dim", "in_channels", "block_out_channels", "layers_per_block"])
def test_a_controlnet_of_another_architecture_is_refused(pipe, nets, name):
    values = {"cross_attention_dim": 64, "in_channels": 9, "block_out_channels": (16, 16), "layers_per_block": 2}
    other = ControlNetModel.from_config({**nets[0].config, name: values[name]})
    with pytest.raises(ValueError, match=f"`controlnet` does not fit `unet`: its `{name}`"):
        ImagesThatSoundPipeline(**{**pipe.components, "controlnet": [nets[0], other]})
    pipe.controlnet = other
    with pytest.raises(ValueError, match=f"`controlnet` does not fit `unet`: its `{name}`"):
        draw(pipe, control_image=picture())


def test_what_is_no_controlnet_for_the_canvas_is_refused(pipe, nets):
    shallow = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8))
    for controlnet, message in (
        (shallow, "`controlnet` does not fit `vae`"),
        (pipe.unet_audio, "`controlnet` has to be a `ControlNetModel`"),
        ([], "`controlnet` has to hold"),
        ([5], "`controlnet` has to be"),
    ):
        with pytest.raises(ValueError, match=message):
            ImagesThatSoundPipeline(**{**pipe.components, "controlnet": controlnet})
    pipe.controlnet = controlnet_of(pipe.unet, 1).half()
    with pytest.raises(ValueError, match="`controlnet` has to be in the precision of `unet`"):
        draw(pipe, control_image=picture())
