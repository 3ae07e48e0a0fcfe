"""LoRA of the audio side: the same as stock Stable Diffusion's of that side, and apart from the image side's."""

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from images_that_sound.pipelines import ImagesThatSoundImprintPipeline, ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_lora import check_lora


CALL = {
    "prompt": "a castle",
    "audio_prompt": "a bell",
    "width": 64,
    "crop_right": 0,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "audio_guidance_scale": 2.0,
    "image_guidance_start": 0.0,
    "output_type": "latent",
}


def audio_latents(pipe, **arguments):
    return pipe(**CALL, audio_weight=1.0, generator=torch.Generator().manual_seed(0), **arguments).images


def image_latents(pipe):
    return pipe(**CALL, audio_weight=0.0, generator=torch.Generator().manual_seed(0)).images


def stock_of(folder, pipe):
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.scheduler = pipe.scheduler
    stock.set_progress_bar_config(disable=True)
    return stock


def stock_latents(stock, prompt, **arguments):
    call = {name: CALL[name] for name in ("width", "num_inference_steps", "guidance_scale", "output_type")}
    return stock(prompt, height=256, generator=torch.Generator().manual_seed(0), **call, **arguments).images


def random_lora(module, targets, seed):
    torch.manual_seed(seed)
    adapted = copy.deepcopy(module)
    adapted.add_adapter(LoraConfig(r=4, lora_alpha=2, init_lora_weights=False, target_modules=targets))
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(adapted))


def unet_lora(unet, seed=0):
    return {f"unet.{key}": value for key, value in random_lora(unet, ["to_q", "to_v", "conv1"], seed).items()}


def text_lora(text_encoder):
    return {f"text_encoder.{key}": value for key, value in random_lora(text_encoder, ["q_proj", "fc1"], 0).items()}


@pytest.fixture
def audio_lora(pipe):
    return {**unet_lora(pipe.unet_audio), **text_lora(pipe.text_encoder_audio)}


def audio_weights(pipe):
    models = (pipe.unet_audio, pipe.text_encoder_audio)
    return [(key, value.clone()) for model in models if model for key, value in model.state_dict().items()]


def same_weights(pipe, weights):
    found = audio_weights(pipe)
    return [key for key, _ in found] == [key for key, _ in weights] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(found, weights)
    )


def test_audio_side_alone_is_stable_diffusion_with_that_lora(pipe, audio_lora, auffusion_folder, tmp_path):
    parts = ("unet", "text_encoder")
    layers = [{k.removeprefix(f"{part}."): v for k, v in audio_lora.items() if k.startswith(part)} for part in parts]
    StableDiffusionPipeline.save_lora_weights(tmp_path, *layers)
    plain, image, weights = audio_latents(pipe), image_latents(pipe), audio_weights(pipe)
    stock = stock_of(auffusion_folder, pipe)
    stock.load_lora_weights(tmp_path)
    pipe.audio.load_lora_weights(tmp_path)
    assert not torch.allclose(audio_latents(pipe), plain, atol=1e-3)
    assert torch.equal(audio_latents(pipe), stock_latents(stock, CALL["audio_prompt"]))
    scaled = {"cross_attention_kwargs": {"scale": 0.5}}
    assert torch.equal(audio_latents(pipe, **scaled), stock_latents(stock, CALL["audio_prompt"], **scaled))
    assert torch.equal(image_latents(pipe), image)
    pipe.audio.disable_lora()
    torch.testing.assert_close(audio_latents(pipe), plain)
    pipe.audio.unload_lora_weights()
    assert pipe.audio.get_list_adapters() == {} and same_weights(pipe, weights)


def test_both_sides_have_adapters_of_one_name(pipe, audio_lora, auffusion_folder, stable_diffusion_folder):
    pipe.load_lora_weights(unet_lora(pipe.unet, seed=1), adapter_name="style")
    pipe.audio.load_lora_weights(audio_lora, adapter_name="style")
    pipe.audio.load_lora_weights(unet_lora(pipe.unet_audio, seed=2), adapter_name="other")
    assert pipe.get_list_adapters() == {"unet": ["style"]}
    assert pipe.audio.get_list_adapters() == {"unet": ["style", "other"], "text_encoder": ["style"]}

    pipe.set_adapters("style", 0.3)
    pipe.audio.set_adapters(["style", "other"], [{"unet": 0.8, "text_encoder": 0.2}, 0.5])
    image_stock, audio_stock = stock_of(stable_diffusion_folder, pipe), stock_of(auffusion_folder, pipe)
    image_stock.load_lora_weights(unet_lora(image_stock.unet, seed=1), adapter_name="style")
    image_stock.set_adapters("style", 0.3)
    audio_stock.load_lora_weights(audio_lora, adapter_name="style")
    audio_stock.load_lora_weights(unet_lora(audio_stock.unet, seed=2), adapter_name="other")
    audio_stock.set_adapters(["style", "other"], [{"unet": 0.8, "text_encoder": 0.2}, 0.5])
    image, audio = image_latents(pipe), audio_latents(pipe)
    assert torch.equal(image, stock_latents(image_stock, CALL["prompt"]))
    assert torch.equal(audio, stock_latents(audio_stock, CALL["audio_prompt"]))

    pipe.audio.delete_adapters("other")
    pipe.audio.set_adapters("style")
    assert pipe.audio.get_active_adapters() == ["style"]
    assert torch.equal(image_latents(pipe), image)
    audio = audio_latents(pipe)
    pipe.disable_lora()
    pipe.enable_lora()
    pipe.fuse_lora()
    pipe.delete_adapters("style")
    pipe.unload_lora_weights()
    assert pipe.get_list_adapters() == {}
    assert torch.equal(audio_latents(pipe), audio)
    image = image_latents(pipe)
    pipe.audio.fuse_lora()
    pipe.audio.unload_lora_weights()
    assert torch.equal(image_latents(pipe), image)


def test_fused_weights_are_saved(pipe, audio_lora, tmp_path):
    weights = dict(audio_weights(pipe))
    pipe.audio.load_lora_weights(audio_lora)
    with_lora = audio_latents(pipe)
    pipe.audio.fuse_lora(lora_scale=0.5)
    assert not torch.allclose(audio_latents(pipe), with_lora, atol=1e-3)
    pipe.audio.unfuse_lora()
    for key, value in pipe.unet_audio.state_dict().items():
        if "lora" not in key:
            torch.testing.assert_close(value, weights[key.replace(".base_layer", "")])
    pipe.audio.unload_lora_weights()
    pipe.audio.load_lora_weights(audio_lora)
    pipe.audio.fuse_lora()
    pipe.audio.unload_lora_weights()
    fused = audio_latents(pipe)
    torch.testing.assert_close(fused, with_lora, atol=1e-4, rtol=0)
    pipe.save_pretrained(tmp_path)
    again = ImagesThatSoundPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(audio_latents(again), fused)


def test_a_lora_is_loaded_into_offloaded_models(pipe, audio_lora):
    pipe.audio.load_lora_weights(audio_lora)
    expected = audio_latents(pipe)
    pipe.audio.unload_lora_weights()
    pipe.enable_model_cpu_offload(device="cpu")
    pipe.audio.load_lora_weights(audio_lora)
    assert torch.equal(audio_latents(pipe), expected)
    assert hasattr(pipe.unet_audio, "_hf_hook") and hasattr(pipe.unet, "_hf_hook")


def test_siblings_have_it_too(pipe, pixel_pipe, audio_lora):
    pipe.audio.load_lora_weights(audio_lora, adapter_name="birds")
    expected = pipe.encode_prompt(None, "a bell")[2]
    imprint = ImagesThatSoundImprintPipeline.from_pipe(pipe)
    pixel_pipe.audio.load_lora_weights(audio_lora, adapter_name="birds")
    for sibling in (imprint, pixel_pipe):
        assert sibling.audio.get_list_adapters() == {"unet": ["birds"], "text_encoder": ["birds"]}
        assert torch.equal(sibling.encode_prompt(None, "a bell")[2], expected)


def test_a_shared_text_encoder_is_copied_before_it_takes_a_lora(pipe, audio_lora):
    image_lora = {**unet_lora(pipe.unet), **text_lora(pipe.text_encoder)}
    pipe.register_modules(text_encoder_audio=None)
    plain = pipe.encode_prompt("a castle", "a bell")
    pipe.audio.load_lora_weights(unet_lora(pipe.unet_audio), adapter_name="pictures")
    assert pipe.text_encoder_audio is None and pipe.audio.get_list_adapters() == {"unet": ["pictures"]}

    pipe.audio.load_lora_weights(audio_lora)
    embeds = pipe.encode_prompt("a castle", "a bell")
    assert torch.equal(embeds[0], plain[0]) and not torch.allclose(embeds[2], plain[2], atol=1e-3)
    pipe.audio.unload_lora_weights()

    pipe.register_modules(text_encoder_audio=None)
    pipe.load_lora_weights(image_lora)
    for method in (pipe.fuse_lora, pipe.unfuse_lora, pipe.disable_lora, pipe.unload_lora_weights):
        embeds = pipe.encode_prompt("a castle", "a bell")
        assert torch.equal(embeds[2], plain[2]), "the audio prompt is read as before"
        method()
    torch.testing.assert_close(pipe.encode_prompt("a castle", "a bell"), plain)


def test_the_audio_side_is_a_stock_pipeline_of_the_same_modules(pipe, auffusion_folder):
    stock = stock_of(auffusion_folder, pipe)
    expected = stock.encode_prompt("a bell", "cpu", 1, True, "noise")
    found = pipe.audio.encode_prompt("a bell", "cpu", 1, True, "noise")
    ours = pipe.encode_prompt(None, "a bell", negative_audio_prompt="noise")[2:]
    for each in (found, ours):
        assert all(torch.equal(a, b) for a, b in zip(each, expected, strict=True))
    assert pipe.audio.unet is pipe.unet_audio and pipe.audio.vae is pipe.vae_audio


def other_unet(pipe):
    return unet_lora(UNet2DConditionModel.from_config(pipe.unet_audio.config, cross_attention_dim=48))


def other_text_encoder(pipe):
    lora = {**unet_lora(pipe.unet_audio), **text_lora(pipe.text_encoder_audio)}
    return {key: value[:, 1:] if "text_encoder" in key and "down" in key else value for key, value in lora.items()}


@pytest.mark.parametrize(
    "weights, message",
    [
        (other_unet, "architecture of `unet_audio`.*size mismatch"),
        (other_text_encoder, "architecture of `text_encoder_audio` and `unet_audio`"),
        (lambda pipe: {"unet.blocks.to_q.lora_A.weight": torch.ones(4, 32)}, "architecture of `unet_audio`"),
        (lambda pipe: {"transformer.to_q.lora_A.weight": torch.ones(4, 32)}, "LoRA of Stable Diffusion.*transformer"),
        (lambda pipe: {}, "LoRA of Stable Diffusion"),
    ],
)
def test_a_lora_that_does_not_fit_is_found_before_it_is_loaded(pipe, weights, message):
    before = audio_weights(pipe)
    with pytest.raises(ValueError, match=f"`pretrained_model_name_or_path_or_dict`.*{message}"):
        check_lora(weights(pipe), pipe.audio_side, is_audio=True)
    assert pipe.audio.get_list_adapters() == {} and same_weights(pipe, before)


def test_an_audio_side_is_needed(stable_diffusion_folder):
    pipe = ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder)
    with pytest.raises(ValueError, match="`unet_audio` is not loaded"):
        pipe.audio.load_lora_weights({})
