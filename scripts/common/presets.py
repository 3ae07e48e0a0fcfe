"""The published example settings. What they all share (steps, guidance, ...) is the pipelines' default."""


def _preset(prompt: str, audio_prompt: str, seed: int = 1234, num_samples: int = 100) -> dict:
    return {"prompt": prompt, "audio_prompt": audio_prompt, "seed": seed, "num_samples": num_samples}


GENERATE_PRESETS = {
    "bell": _preset("a painting of castle towers, grayscale", "bell ringing"),
    "corgi": _preset("a painting of corgis, grayscale, black background", "dog barking", seed=2034, num_samples=50),
    "dog": _preset("a painting of cute dogs, grayscale", "dog barking"),
    "garden": _preset("a painting of a blooming garden with many birds, grayscale", "birds singing sweetly"),
    "garden-v2": _preset("a painting of a blooming garden, grayscale", "birds singing sweetly"),
    "horse": _preset("a painting of horse heads, grayscale, black background", "horse neighing", num_samples=1000),
    "kitten": _preset("a painting of furry kittens, grayscale", "a kitten meowing for attention"),
    "pond": _preset("a pond full of water lilies, grayscale, lithograph style", "frog croaking", seed=2024),
    "race": _preset("a painting of auto racing game, grayscale", "a race car passing by and disappearing"),
    "tiger": _preset("a painting of tigers, grayscale", "tiger growling"),
    "train": _preset("a painting of trains, grayscale", "train whistling"),
}

# With the embedded checkpoint: seeds whose pictures show what they are to and whose sounds are recognised.
EMBEDDED_SEEDS = {
    **{"bell": 8, "kitten": 7, "dog": 9, "corgi": 3, "train": 0, "tiger": 7},
    **{"garden": 2, "garden-v2": 12, "race": 8, "pond": 3, "horse": 11},
}
# Differences from the published examples, if that checkpoint makes them.
EMBEDDED_PRESETS = {name: {"seed": seed, "num_samples": 1} for name, seed in EMBEDDED_SEEDS.items()}

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RIFFUSION = {"model": STABLE_DIFFUSION, "audio_model": "riffusion/riffusion-model-v1"}
# For Stable Diffusion beside Riffusion. Nobody has tried them: they are guesses from how the canvases are drawn.
RIFFUSION_PRESETS = {
    "saxophone": _preset("a line drawing of a saxophone, black ink on white paper", "smooth saxophone jazz solo"),
    "cathedral": _preset("a woodcut of a cathedral, black ink on white paper", "church organ"),
    "forest": _preset("a linocut of bare trees, black ink on white paper", "acoustic folk guitar"),
    "skyline": _preset("a linocut of a city skyline, black on white", "funky bass line with a jazzy drum solo"),
    "waves": _preset("an ink brush drawing of waves, white background", "ambient synth pads"),
    "bamboo": _preset("a sumi-e painting of bamboo, black ink on white paper", "koto and shakuhachi flute"),
}
RIFFUSION_PRESETS = {name: {**preset, **RIFFUSION} for name, preset in RIFFUSION_PRESETS.items()}

IMPRINT_PRESETS = {
    name: {**GENERATE_PRESETS[name], "num_samples": 40}
    for name in ("bell", "dog", "garden", "kitten", "race", "tiger", "train")
}

SDS_PRESETS = {name: {**GENERATE_PRESETS[name], "num_samples": 1} for name in ("bell", "dog", "garden", "kitten")}
SDS_PRESETS["bell"] |= {"prompt": "a painting of a castle towers, grayscale", "audio_prompt": "Bell ringing"}

COLORIZE_PRESETS = {
    "bell": {"prompt": "a colorful photo of a castle with bell towers"},
    "dog": {"prompt": "a colorful photo of puppies on green grass"},
    "garden": {"prompt": "a blooming garden with many birds"},
    "kitten": {"prompt": "a colorful photo of kittens"},
    "race": {"prompt": "a colorful photo of a auto racing game"},
    "tiger": {"prompt": "a colorful photo of tigers"},
    "train": {"prompt": "a colorful photo of a long train"},
}

# Prompts that the embedded checkpoint knows: ten pictures and ten sounds, each by a prompt of a published example.
WORLD_PROMPTS = {
    "picture": {
        name: GENERATE_PRESETS["bell" if name == "castle" else name]["prompt"]
        for name in ("castle", "kitten", "dog", "corgi", "train", "tiger", "garden", "race", "pond", "horse")
    },
    "sound": {
        "bell": GENERATE_PRESETS["bell"]["audio_prompt"],
        "meow": GENERATE_PRESETS["kitten"]["audio_prompt"],
        "bark": GENERATE_PRESETS["dog"]["audio_prompt"],
        "whistle": GENERATE_PRESETS["train"]["audio_prompt"],
        "growl": GENERATE_PRESETS["tiger"]["audio_prompt"],
        "birds": GENERATE_PRESETS["garden"]["audio_prompt"],
        "race": GENERATE_PRESETS["race"]["audio_prompt"],
        "frog": GENERATE_PRESETS["pond"]["audio_prompt"],
        "neigh": GENERATE_PRESETS["horse"]["audio_prompt"],
        "waves": "ocean waves",
    },
}
# The pairs among them that belong together, as in the published examples.
_SOUNDS = ("bell", "meow", "bark", "bark", "whistle", "growl", "birds", "race", "frog", "neigh")
MATCHED = dict(zip(WORLD_PROMPTS["picture"], _SOUNDS))
# For measurements: the pairs that belong together, and as many that don't.
MIXED_PAIRS = [
    *MATCHED.items(),
    *((picture, list(WORLD_PROMPTS["sound"])[(i + 3) % 10]) for i, picture in enumerate(MATCHED)),
]

# Schedulers of diffusers by what they are called, with what of their config is otherwise than the checkpoint's.
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "ddim-trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {}),
    "dpm++-2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
# Distilled from Stable Diffusion v1.5 for few steps: the LoRA, its scheduler, and a number of steps.
FEW_STEPS = {
    "lcm": ("latent-consistency/lcm-lora-sdv1-5", "lcm", 8),
    "tcd": ("h1t/TCD-SD15-LoRA", "tcd", 8),
    "hyper-sd": ("ByteDance/Hyper-SD/Hyper-SD15-8steps-lora.safetensors", "ddim-trailing", 8),
}
# Distilled from the embedded checkpoint, in its folder.
EMBEDDED_FEW_STEPS = {"lcm": ("lcm_lora", "tcd", 4)}

# Of the training of a LoRA: those of diffusers' examples, and those tried with the embedded checkpoint.
LORA_DEFAULTS = {
    "embedded": {"learning_rate": 2e-3, "max_train_steps": 120, "checkpointing_steps": 40, "validation_steps": 40},
    "others": {"learning_rate": 1e-4, "max_train_steps": 1000, "checkpointing_steps": 100, "validation_steps": 100},
}
