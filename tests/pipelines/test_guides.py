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
    pipe.controlnet = pipe.audio_controlnet = None
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)


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
    controlnet = pipe.audio_controlnet if side else pipe.controlnet
    parts |= {"controlnet": controlnet} if "ControlNet" in stock_class.__name__ else {}
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


# -------------------- The audio side --------------------


@pytest.fixture(scope="module")
def onset_net(pipe):
    return controlnet_of(pipe.unet_audio, 3, conditioning_channels=1)


def as_stock_hears(pipe, stock_class=StableDiffusionControlNetPipeline, **arguments):
    arguments = {name.removeprefix("audio_"): value for name, value in arguments.items()}
    return stock_latents(pipe, stock_class, "_audio", "a bell", **arguments)


def strip(values):
    """A canvas for a ControlNet that sees onsets: -1 and 1 by column."""
    return torch.tensor(values, dtype=torch.float32).expand(1, 1, 256, len(values))


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.2, 0.8)])
def test_the_audio_side_with_a_controlnet_is_the_stock_pipelines(pipe, nets, span):
    pipe.audio_controlnet = controlnet_of(pipe.unet_audio, 4)
    edges = {"audio_control_guidance_start": span[0], "audio_control_guidance_end": span[1]}
    given = {"audio_controlnet_conditioning_scale": 0.7, **edges}
    latents = draw(pipe, audio_weight=1.0, audio_control_image=picture(), **given)
    assert torch.equal(latents, as_stock_hears(pipe, image=picture(), **given))
    assert not torch.allclose(latents, draw(pipe, audio_weight=1.0), atol=1e-2)
    assert torch.equal(draw(pipe, audio_control_image=picture()), draw(pipe)), "the image side knows nothing of it"


def test_onsets_are_what_a_net_of_one_channel_sees(pipe, onset_net):
    pipe.audio_controlnet = onset_net
    columns = [-1.0] * 16 + [1.0] * 8 + [-1.0] * 30 + [1.0] * 10
    given = {"audio_weight": 1.0, "audio_controlnet_conditioning_scale": 0.2}
    expected = as_stock_hears(pipe, image=strip(columns), controlnet_conditioning_scale=0.2)
    spans = [(0.16, 0.24), (0.54, 0.64)]
    assert torch.equal(draw(pipe, audio_onsets=spans, **given), expected)
    sound = np.zeros(64 * 160, np.float32)
    for start, end in spans:
        sound[round(start * 16000) : round(end * 16000)] = np.sin(np.arange(round((end - start) * 16000)) / 3)
    assert torch.equal(draw(pipe, audio_onsets=sound, **given), expected)
    assert torch.equal(draw(pipe, audio_onsets=torch.from_numpy(sound), **given), expected)
    shown = np.zeros((256, 64, 3), np.uint8)
    shown[100, 16:24] = shown[200, 54:] = 255
    shown = PIL.Image.fromarray(shown)
    assert torch.equal(draw(pipe, audio_onsets=shown, **given), expected)
    start = {"audio_onsets": "picture", "strength": 1.0, "audio": None}
    assert torch.equal(draw(img2img_of(pipe), image=shown, **start, **given), expected)


def test_onsets_follow_what_the_controlnet_of_the_image_side_sees(pipe, nets, onset_net):
    pipe.controlnet, pipe.audio_controlnet = nets[0], onset_net
    lines = np.zeros((256, 64), np.uint8)
    lines[30:60, 8:24] = 255
    given = {"audio_weight": 0.5, "control_image": PIL.Image.fromarray(lines)}
    assert torch.equal(draw(pipe, audio_onsets="picture", **given), draw(pipe, audio_onsets=[(0.08, 0.24)], **given))


def test_onsets_of_a_folded_canvas_are_those_of_its_strip(pipe, onset_net):
    pipe.audio_controlnet = onset_net
    noise = torch.randn(1, 4, 64, 8, generator=torch.Generator().manual_seed(0))
    given = {"audio_weight": 1.0, "audio_onsets": [(0.0, 0.2), (0.9, 1.28)]}
    folded = draw(pipe, latents=noise, canvas_layout="folded", width=64, **given)
    unfolded = torch.cat(noise.chunk(2, dim=-2), dim=-1)
    expected = draw(pipe, latents=unfolded, width=128, **given)
    assert torch.equal(torch.cat(folded.chunk(2, dim=-2), dim=-1), expected)
    square = np.zeros((512, 64), np.uint8)
    square[:256, :20] = square[300:, 26:] = 255
    given["audio_onsets"] = PIL.Image.fromarray(square)
    assert torch.equal(draw(pipe, latents=noise, canvas_layout="folded", width=64, **given), folded)


def test_onsets_of_a_canvas_in_windows_lie_where_they_were(pipe, onset_net):
    """Windows beside each other make what a batch of canvases makes, each with its part of the onsets."""
    pipe.audio_controlnet = onset_net
    noise = torch.randn(1, 4, 32, 16, generator=torch.Generator().manual_seed(0))
    windows = {"audio_window_width": 64, "audio_window_stride": 64, "width": 128, "latents": noise}
    wide = draw(pipe, audio_weight=1.0, audio_onsets=[(0.1, 0.2), (1.0, 1.28)], **windows)
    for half, span, expected in zip(noise.chunk(2, dim=-1), ((0.1, 0.2), (0.36, 0.64)), wide.chunk(2, dim=-1)):
        alone = draw(pipe, audio_weight=1.0, audio_onsets=[span], latents=half)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_the_audio_side_with_an_ip_adapter_is_the_stock_pipelines(pipe, tmp_path):
    save_ip_adapter(pipe.unet_audio, tmp_path / "ip-adapter.safetensors")
    before, picture_alone = draw(pipe, audio_weight=1.0), draw(pipe)
    pipe.audio.load_ip_adapter(tmp_path, subfolder="", weight_name="ip-adapter.safetensors")
    heard = draw(pipe, audio_weight=1.0, audio_ip_adapter_image=picture())
    assert torch.equal(heard, as_stock_hears(pipe, StableDiffusionPipeline, ip_adapter_image=picture()))
    assert not torch.allclose(heard, before, atol=1e-2)
    assert torch.equal(draw(pipe, audio_ip_adapter_image=picture()), picture_alone), "the image side has none"
    embeds = torch.stack([torch.zeros(1, 8), torch.randn(1, 8)])
    given = {"audio_weight": 1.0, "audio_ip_adapter_image_embeds": [embeds]}
    expected = as_stock_hears(pipe, StableDiffusionPipeline, ip_adapter_image_embeds=[embeds])
    assert torch.equal(draw(pipe, **given), expected)
    with pytest.raises(ValueError, match=r"`audio_ip_adapter_image` or .* `pipe.audio.unload_ip_adapter\(\)`"):
        draw(pipe)
    pipe.audio.unload_ip_adapter()
    assert torch.equal(draw(pipe, audio_weight=1.0), before)
    pipe.register_modules(image_encoder=None, feature_extractor=None)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_temporal_adapter_is_read_as_foleycrafter_stores_it(pipe, tmp_path, wrapped):
    net = ControlNetModel.from_unet(pipe.unet_audio, conditioning_channels=1)
    generator = torch.Generator().manual_seed(5)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    weights = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": weights} if wrapped else weights, tmp_path / "temporal_adapter.ckpt")
    pipe.load_audio_controlnet(tmp_path, weight_name="temporal_adapter.ckpt")
    heard = draw(pipe, audio_weight=1.0, audio_onsets=[(0.1, 0.3)])
    net.save_pretrained(tmp_path / "net")
    pipe.load_audio_controlnet(tmp_path, subfolder="net")
    assert torch.equal(draw(pipe, audio_weight=1.0, audio_onsets=[(0.1, 0.3)]), heard)
    expected = strip([-1.0] * 10 + [1.0] * 20 + [-1.0] * 34)
    assert torch.equal(heard, as_stock_hears(pipe, image=expected))


def test_a_file_that_is_no_temporal_adapter_is_refused_and_not_executed(pipe, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    torch.save({"module.conv_in.weight": Evil()}, tmp_path / "evil.ckpt")
    torch.save({"module.conv_in.weight": torch.zeros(3)}, tmp_path / "small.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    for name, message in (
        ("evil.ckpt", "can't be read as a file of plain tensors"),
        ("small.ckpt", "does not fit `unet_audio`"),
        ("list.ckpt", "has to hold a dict of tensors"),
        ("none.ckpt", "has to hold `none.ckpt`, but holds none"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.load_audio_controlnet(tmp_path, weight_name=name)
    assert not (tmp_path / "executed").exists() and pipe.audio_controlnet is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio_onsets": "bells"}, "`audio_onsets` has to be 'picture', .* but is 'bells'"),
        ({"audio_onsets": "picture"}, "`audio_onsets` has to be 'picture', .* no picture is given"),
        ({"audio_onsets": [(0.2, 0.1)]}, "`audio_onsets` has to hold spans that end after they start"),
        ({"audio_onsets": [(0.2, 7.0)]}, "`audio_onsets` has to be in 0..0.64, but is 7"),
        ({"audio_onsets": [0.2]}, "`audio_onsets` has to be a list of pairs"),
        ({"audio_onsets": 5}, "`audio_onsets` has to be a list of pairs"),
        ({"audio_onsets": []}, "`audio_onsets` has to hold a column that sounds"),
        ({"audio_onsets": np.zeros(9000, np.float32)}, "`audio_onsets` has to hold a column that sounds"),
        ({"audio_onsets": np.ones(90000, np.float32)}, "`audio_onsets` as a waveform .* at most the sound's 10240"),
        ({"audio_onsets": [(0, 0.1)], "audio_control_image": picture()}, "excludes `audio_control_image`"),
        ({"audio_control_guidance_end": 0.5}, "Without `audio_control_image`, none of .*`audio_control_guidance_end`"),
        ({"audio_control_image": "a.png"}, "`audio_control_image` has to be a picture"),
        ({"audio_ip_adapter_image": picture()}, r"needs an IP-Adapter: call `pipe.audio.load_ip_adapter"),
    ],
)
def test_bad_guides_of_the_audio_side_are_refused(pipe, onset_net, arguments, message):
    pipe.audio_controlnet = onset_net
    with pytest.raises(ValueError, match=message):
        draw(pipe, **arguments)
    pipe.audio_controlnet = None
    with pytest.raises(ValueError, match="`audio_onsets` needs a `audio_controlnet`"):
        draw(pipe, audio_onsets=[(0, 0.1)])


# -------------------- Loading --------------------


def test_optional_parts_are_saved_and_loaded_in_every_way(pipe, nets, onset_net, adapted, tmp_path):
    pipe.register_modules(controlnet=nets[0], audio_controlnet=onset_net)
    pipe.save_pretrained(tmp_path / "one")
    one = ImagesThatSoundPipeline.from_pretrained(tmp_path / "one")
    assert isinstance(one.controlnet, ControlNetModel) and one.image_encoder is not None
    assert one.audio_controlnet.config.conditioning_channels == 1
    assert one.feature_extractor.crop_size == pipe.feature_extractor.crop_size
    kwargs = {"dtype": torch.float16, "controlnet": [net.half() for net in nets], "audio_controlnet": nets}
    several = ImagesThatSoundImg2ImgPipeline.from_pretrained(STABLE_DIFFUSION, **kwargs)
    several.save_pretrained(tmp_path / "two")
    two = ImagesThatSoundPipeline.from_pretrained(tmp_path / "two", dtype=torch.float32)
    for net in nets:
        net.float()
    for own, other in zip((*two.controlnet.nets, *two.audio_controlnet.nets), nets * 2, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), other.state_dict().values()))
    stock = StableDiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    assert ImagesThatSoundPipeline.from_pipe(stock).controlnet is None
    assert ImagesThatSoundPipeline.from_pipe(stock, controlnet=nets[0]).controlnet is nets[0]
    controlled = StableDiffusionControlNetPipeline.from_pipe(stock, controlnet=nets)
    assert list(ImagesThatSoundImg2ImgPipeline.from_pipe(controlled).controlnet.nets) == nets
    imprint = ImagesThatSoundImprintPipeline.from_pipe(pipe)
    assert imprint.controlnet is nets[0] and imprint.image_encoder is pipe.image_encoder
    assert imprint.audio_controlnet is onset_net


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
