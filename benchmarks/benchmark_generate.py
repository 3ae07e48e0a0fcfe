"""
Prints, in one run and for each batch size, the time of a full call against the sum of its bare UNet, VAE and vocoder
forwards on the same inputs, and the peak memory. The two are timed in turns; the ratio is of their medians.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils.torch_utils import get_device
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan, SpeechT5HifiGanConfig

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="embedded", help="'embedded', 'random-sd15' (random weights in full size) or a folder."
    )
    parser.add_argument("--device", default=get_device())
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--num_inference_steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    return parser.parse_args(input_args)


def load_pipeline(args: argparse.Namespace) -> ImagesThatSoundPipeline:
    dtype = getattr(torch, args.dtype)
    if args.model == "random-sd15":
        pipe = random_stable_diffusion().to(dtype)
    else:
        pipe = ImagesThatSoundPipeline.from_pretrained(
            EMBEDDED if args.model == "embedded" else args.model, dtype=dtype
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(args.device)


def random_stable_diffusion() -> ImagesThatSoundPipeline:
    """Both sides in the size of Stable Diffusion v1.5 and Auffusion, with random weights."""
    torch.manual_seed(0)
    unets = [UNet2DConditionModel(sample_size=64, cross_attention_dim=768) for _ in range(2)]
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    text_config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    vocoder_config = SpeechT5HifiGanConfig(
        model_in_dim=256,
        upsample_rates=[5, 4, 4, 2],
        upsample_kernel_sizes=[11, 8, 8, 4],
        normalize_before=False,
    )
    return ImagesThatSoundPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config),
        tokenizer=CLIPTokenizer.from_pretrained(EMBEDDED, subfolder="tokenizer"),
        unet=unets[0],
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False),
        unet_audio=unets[1],
        vocoder=SpeechT5HifiGan(vocoder_config).eval(),
        **dict.fromkeys(("vae_audio", "text_encoder_audio", "controlnet", "image_encoder", "feature_extractor")),
    )


def record_forwards(pipe: ImagesThatSoundPipeline, call: Callable) -> list[Callable]:
    """Runs the call once; returns its forwards, ready to be repeated on the inputs that they had."""
    forwards, handles = [], []

    def remember(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        forwards.append(partial(module, *args, **kwargs))

    for module in (pipe.text_encoder, pipe.unet, pipe.unet_audio):
        handles.append(module.register_forward_pre_hook(remember, with_kwargs=True))
    latents = call(output_type="latent").images
    for handle in handles:
        handle.remove()
    scaled = latents / pipe.vae.config.scaling_factor
    canvas = pipe.decode_latents(latents, pipe.vae).mean(dim=1, keepdim=True)
    forwards.append(partial(pipe.vae.decode, scaled))
    forwards.append(partial(pipe.mel_spectrogram.canvas_to_audio, canvas, pipe.vocoder))
    return forwards


def timed(function: Callable, device: str) -> float:
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def peak_memory(device: str) -> str:
    if device == "cpu":
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of main memory so far"
    return f"{torch.get_device_module(device).max_memory_allocated() / 2**30:.2f} GiB on the device so far"


@torch.no_grad()
def benchmark(pipe: ImagesThatSoundPipeline, args: argparse.Namespace, batch_size: int) -> str:
    def call(output_type: str = "pt") -> object:
        return pipe(
            "a painting of castle towers, grayscale",
            "bell ringing",
            num_inference_steps=args.num_inference_steps,
            num_images_per_prompt=batch_size,
            generator=torch.Generator().manual_seed(0),
            output_type=output_type,
        )

    forwards = record_forwards(pipe, call)

    def bare() -> None:
        for forward in forwards:
            forward()

    full_times, bare_times = [], []
    for _ in range(args.repetitions):
        full_times.append(timed(call, args.device))
        bare_times.append(timed(bare, args.device))
    full, sum_of_parts = statistics.median(full_times), statistics.median(bare_times)
    return (
        f"{batch_size:>10}{full:>12.3f}{sum_of_parts:>12.3f}{full / sum_of_parts:>9.3f}"
        f"{full / batch_size:>14.3f}   {peak_memory(args.device)}"
    )


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    pipe = load_pipeline(args)
    print(
        f"{args.model} on {args.device} in {args.dtype}, {args.num_inference_steps} steps, torch {torch.__version__}"
    )
    print("batch size   full (s)    bare (s)    ratio   s per sample   peak memory")
    for batch_size in args.batch_sizes:
        print(benchmark(pipe, args, batch_size), flush=True)


if __name__ == "__main__":
    main()
