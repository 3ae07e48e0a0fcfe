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

# What the embedded checkpoint knows: ten pictures and ten sounds, each by a prompt of a published example.
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
