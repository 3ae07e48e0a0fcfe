from pathlib import Path

from setuptools import setup


# Weights that ship with the package, by the names of their import packages.
EMBEDDED = {
    "images_that_sound.embedded": "model_cards/images-that-sound-embedded",
    "images_that_sound.embedded_colorization": "model_cards/images-that-sound-embedded-colorization",
}

install_requires = [
    "diffusers>=0.42.0",  # DiffusionPipeline, models, schedulers; 0.42 writes mono sound into videos
    "transformers>=5.0",  # CLIP text encoder, SpeechT5HifiGan as vocoder, mel filter bank
    "torch>=2.6",
    "accelerate>=1.0",  # offloading and low-memory loading in diffusers
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pillow",  # pictures and their metadata, captions in videos
    "scipy",  # resampling of sounds that users bring
    "soundfile",  # WAV files with metadata; libsndfile is in its wheel
    "av>=14,<19",  # video.mp4 through diffusers.utils.encode_video; FFmpeg is in its wheel
]
demo = ["gradio>=6,<7"]  # the page of demo/app.py
extras_require = {
    "train": ["tensorboard"],  # --report_to tensorboard
    "demo": demo,
    # peft: LoRA tests; tensorboard: trackers; selenium: pages in Chromium, where there is one; nbclient and ipykernel:
    # the notebook
    "test": ["pytest", "ruff", "peft", "tensorboard", "selenium", "nbclient", "ipykernel", *demo],
}

setup(
    name="images-that-sound",
    version="0.1.0",
    description="One canvas that is a picture and, played as a spectrogram, a sound: pipelines for diffusers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "images_that_sound.pipelines",
        "images_that_sound.schedulers",
        "images_that_sound.selection",
        "images_that_sound.scripts",
        "images_that_sound.scripts.embedded_world",
        *EMBEDDED,
    ],
    package_dir={
        "images_that_sound.pipelines": "pipelines",
        "images_that_sound.schedulers": "schedulers",
        "images_that_sound.selection": "selection",
        "images_that_sound.scripts": "scripts",
        "images_that_sound.scripts.embedded_world": "scripts/embedded_world",
        **EMBEDDED,
    },
    package_data={name: ["**/*"] for name in EMBEDDED},
    install_requires=install_requires,
    extras_require=extras_require,
    entry_points={"console_scripts": ["images-that-sound=images_that_sound.scripts.cli:main"]},
)
