"""
Prints, in one run and for each batch size, the time of a full call against the sum of its bare UNet, VAE and vocoder
forwards on the same inputs, against the loop of the method's published script, and the peak memory; then the time of
the whole command for one sample against that of the call. All are timed in turns; ratios are of their medians.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils.torch_utils import get_device
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan, SpeechT5HifiGanConfig

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED


PROMPT, AUDIO_PROMPT = "a painting of castle towers, grayscale", "bell ringing"
# The published script's guidance of both sides, and the fraction of the steps before the image side begins.
GUIDANCE_SCALE, IMAGE_START = 10.0, 0.1


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
        **dict.fromkeys(("vae_audio", "text_encoder_audio", "tokenizer_audio")),
        **dict.fromkeys(("controlnet", "audio_controlnet", "image_encoder", "feature_extractor")),
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


@torch.no_grad()
def published_loop(pipe: ImagesThatSoundPipeline, num_samples: int, num_steps: int) -> list[torch.Tensor]:
    """
    Computes as the published script, with prompts read once: one sample after the other, two rows in each UNet at each
    step, and two decodes, for the picture and for the spectrogram. Returns latents.
    """
    sides = [
        (pipe.unet, embed(pipe, pipe.text_encoder, PROMPT), round(IMAGE_START * num_steps)),
        (pipe.unet_audio, embed(pipe, pipe.audio_side.text_encoder, AUDIO_PROMPT), 0),
    ]
    finished = []
    for seed in range(num_samples):
        latents = first_latents(pipe, seed)
        pipe.scheduler.set_timesteps(num_steps)
        for step, timestep in enumerate(pipe.scheduler.timesteps):
            noises = []
            for unet, embeds, start in sides:
                if step >= start:
                    noise = unet(latents.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=embeds).sample
                    unconditional, conditional = noise.chunk(2)
                    noises.append(unconditional + GUIDANCE_SCALE * (conditional - unconditional))
            latents = pipe.scheduler.step(sum(noises) / len(noises), timestep, latents).prev_sample
        _, canvas = (pipe.decode_latents(latents, vae) for vae in (pipe.vae, pipe.audio_side.vae))
        pipe.mel_spectrogram.canvas_to_audio(canvas.mean(dim=1, keepdim=True), pipe.vocoder)
        finished.append(latents)
    return finished


def embed(pipe: ImagesThatSoundPipeline, text_encoder: CLIPTextModel, prompt: str) -> torch.Tensor:
    """Embeddings of nothing and of a prompt."""
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(["", prompt], padding="max_length", max_length=length, return_tensors="pt").input_ids
    return text_encoder(ids.to(text_encoder.device))[0]


def first_latents(pipe: ImagesThatSoundPipeline, seed: int) -> torch.Tensor:
    """The noise that a call begins with."""
    size = [pipe.resolve_default(name, None) // pipe.vae_scale_factor for name in ("height", "width")]
    noise = torch.randn(1, pipe.unet.config.in_channels, *size, generator=torch.Generator().manual_seed(seed))
    return noise.to(pipe.unet.device, pipe.unet.dtype)


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


def timed_in_turns(functions: list[Callable], args: argparse.Namespace) -> list[float]:
    """Medians of seconds."""
    times = [[timed(function, args.device) for function in functions] for _ in range(args.repetitions)]
    return [statistics.median(column) for column in zip(*times)]


def call_of(pipe: ImagesThatSoundPipeline, args: argparse.Namespace, batch_size: int) -> Callable:
    """A full call."""

    def call(output_type: str = "pt") -> object:
        return pipe(
            PROMPT,
            AUDIO_PROMPT,
            num_inference_steps=args.num_inference_steps,
            num_images_per_prompt=batch_size,
            generator=[torch.Generator().manual_seed(seed) for seed in range(batch_size)],
            output_type=output_type,
        )

    return call


@torch.no_grad()
def benchmark(pipe: ImagesThatSoundPipeline, args: argparse.Namespace, batch_size: int) -> str:
    call = call_of(pipe, args, batch_size)
    forwards = record_forwards(pipe, call)

    def bare() -> None:
        for forward in forwards:
            forward()

    published = partial(published_loop, pipe, batch_size, args.num_inference_steps)
    full, sum_of_parts, loop = timed_in_turns([call, bare, published], args)
    return (
        f"{batch_size:>10}{full:>12.3f}{sum_of_parts:>12.3f}{full / sum_of_parts:>9.3f}{loop:>16.3f}"
        f"{loop / full:>11.2f}{full / batch_size:>15.3f}   {peak_memory(args.device)}"
    )


def benchmark_command(pipe: ImagesThatSoundPipeline, args: argparse.Namespace) -> str:
    """The command `generate` for one sample, from its start to its end, video included, against the call."""
    options = ["--prompt", PROMPT, "--audio_prompt", AUDIO_PROMPT, "--model", args.model, "--dtype", args.dtype]
    options += ["--device", args.device, "--num_inference_steps", str(args.num_inference_steps)]

    def command() -> None:
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "images_that_sound.scripts.generate", *options, "--output_dir", folder]
            subprocess.run(line, check=True, capture_output=True)

    whole, call = timed_in_turns([command, call_of(pipe, args, 1)], args)
    return f"the command for one sample: {whole:.1f} s, the call: {call:.1f} s, ratio {whole / call:.1f}"


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    pipe = load_pipeline(args)
    print(
        f"{args.model} on {args.device} in {args.dtype}, {args.num_inference_steps} steps, torch {torch.__version__}"
    )
    print("batch size    full (s)    bare (s)    ratio   published (s)   speed-up   s per sample   peak memory")
    for batch_size in args.batch_sizes:
        print(benchmark(pipe, args, batch_size), flush=True)
    if args.model != "random-sd15":
        print(benchmark_command(pipe, args))


if __name__ == "__main__":
    main()
