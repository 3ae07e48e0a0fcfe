"""
Processor time and memory of canvases by their length, each in a process of its own. Memory is the most that the
process had before the call, and at all.

    python -m benchmarks.length --seconds 10 60 600
    python -m benchmarks.length --seconds 10 60 --model stable-diffusion     # random weights of that size
"""

import argparse
import json
import resource
import subprocess
import sys
from time import process_time

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600])
    parser.add_argument("--model", choices=("embedded", "stable-diffusion"), default="embedded")
    parser.add_argument("--num_inference_steps", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="Measure one length in this process.")
    return parser.parse_args()


def random_pipeline() -> ImagesThatSoundPipeline:
    """Both sides in the size of Stable Diffusion v1.5, without a vocoder."""
    channels = (128, 256, 512, 512)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED, subfolder="tokenizer")
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    unets = [UNet2DConditionModel(cross_attention_dim=768) for _ in range(2)]
    return ImagesThatSoundPipeline(
        vae=AutoencoderKL(block_out_channels=channels, layers_per_block=2, **blocks),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unets[0],
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        unet_audio=unets[1],
        **dict.fromkeys(("vocoder", "vae_audio", "text_encoder_audio", "tokenizer_audio", "controlnet")),
        **dict.fromkeys(("audio_controlnet", "image_encoder", "feature_extractor")),
    )


def megabytes() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(seconds: float, model: str, num_inference_steps: int) -> dict[str, float]:
    """Processor seconds of the call, and megabytes before it and at most."""
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED) if model == "embedded" else random_pipeline()
    pipe.set_progress_bar_config(disable=True)
    before, begin = megabytes(), process_time()
    pipe(
        "castle towers",
        "bell ringing",
        audio_length_in_s=seconds,
        num_inference_steps=num_inference_steps,
        generator=torch.Generator().manual_seed(0),
    )
    return {"seconds": process_time() - begin, "before": before, "at most": megabytes()}


def main() -> None:
    args = parse_args()
    if args.alone:
        print(json.dumps(measure(args.seconds[0], args.model, args.num_inference_steps)))
        return
    for seconds in args.seconds:
        command = [sys.executable, "-m", "benchmarks.length", "--alone", "--seconds", str(seconds)]
        command += ["--model", args.model, "--num_inference_steps", str(args.num_inference_steps)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        made = json.loads(ran.stdout.splitlines()[-1])
        print(
            f"{seconds:g} s: {made['seconds'] / seconds:.2f} processor seconds for each second,"
            f" {made['before']:.0f} MB before, {made['at most']:.0f} MB at most",
            flush=True,
        )


if __name__ == "__main__":
    main()
