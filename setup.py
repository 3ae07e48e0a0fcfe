from pathlib import Path

from setuptools import setup


# Weights that ship with the package, by the names of their import packages.
EMBEDDED = {
    "images_that_sound.embedded": "model_cards/images-that-sound-embedded",
    "images_that_sound.embedded_colorization": "model_cards/images-that-sound-embedded-colorization",
    "images_that_sound.embedded_controlnet": "model_cards/images-that-sound-embedded-controlnet",
}

# The floors are the oldest versions that the tests pass with; constraints-oldest.txt pins them all at once.
install_requires = [
    "diffusers>=0.40.0",  # DiffusionPipeline, models, schedulers; 0.40 has `diffusers-cli run` and `dtype`
    # CLIP text encoder, whose weights 5.5 names otherwise; SpeechT5HifiGan, mel filter bank; 5.24 takes LoRAs of text
    # encoders only with PEFT 0.22, which is not released
    "transformers>=5.6.0,!=5.24.0",
    "torch>=2.7.0",  # 2.6 offloads no groups without an accelerator and compiles no text encoder of transformers
    "accelerate>=1.7.0",  # offloading and low-memory loading in diffusers; 1.7 finds a free port for processes
    "safetensors>=0.8.0",
    "huggingface_hub>=1.27.0",  # 1.26 raises where a Hub refuses connections, and asks no cache
    "numpy>=1.25.0",  # 1.25 has `Generator.spawn`
    "pillow>=11.2.1",  # pictures and their metadata, captions in videos; 11.2 knows AVIF
    "scipy>=1.9.2",  # resampling of sounds that users bring
    "scikit-image>=0.22.0",  # edges of pictures that a ControlNet is told; 0.22 has wheels for Python 3.11 and above
    "soundfile>=0.11.0",  # WAV files with metadata; libsndfile is in its wheel
    "tqdm>=4.66.0",  # bars that take what is not given from the environment
    "av>=15.0.0,<19",  # video.mp4 through diffusers.utils.encode_video, phones' recordings; 14's copies do not play
]
demo = ["gradio>=6.31.0,<7"]  # the page of demo/app.py; 6.10 starts no new run after a stopped one
extras_require = {
    # FID and FAD of `compare`: torch-fidelity has the Inception network of FID, torchvggish the VGGish of FAD; the
    # packages that compute FAD itself want numpy below 2 or transformers below 5
    "compare": ["torch-fidelity", "torchvggish"],
    "train": ["tensorboard", "matplotlib"],  # --report_to tensorboard; curves of what is measured
    "demo": demo,
    # pytest-xdist: the suite on all cores; peft: LoRA tests; tensorboard: trackers; selenium: pages in Chromium, where
    # there is one; nbclient and ipykernel: the notebook
    "test": ["pytest", "pytest-xdist", "ruff", "peft", "tensorboard", "selenium", "nbclient", "ipykernel", *demo],
}

setup(
    name="images-that-sound",
    version="0.1.0",
    description="One canvas that is a picture and, played as a spectrogram, a sound: pipelines for diffusers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Multimedia :: Sound/Audio",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=[
        "images_that_sound",
        "images_that_sound.pipelines",
        "images_that_sound.schedulers",
        "images_that_sound.selection",
        "images_that_sound.scripts",
        "images_that_sound.scripts.common",
        *EMBEDDED,
    ],
    package_dir={
        "images_that_sound": "images_that_sound",
        "images_that_sound.pipelines": "pipelines",
        "images_that_sound.schedulers": "schedulers",
        "images_that_sound.selection": "selection",
        "images_that_sound.scripts": "scripts",
        "images_that_sound.scripts.common": "scripts/common",
        **EMBEDDED,
    },
    package_data={name: ["**/*"] for name in EMBEDDED},
    install_requires=install_requires,
    extras_require=extras_require,
    entry_points={"console_scripts": ["images-that-sound=images_that_sound.scripts.cli:main"]},
)
