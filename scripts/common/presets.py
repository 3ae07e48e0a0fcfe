"""The published example settings. What they all share (steps, guidance, ...) is the pipelines' default."""

GENERATE_PRESETS = {
    "bell": {
        "prompt": "a painting of castle towers, grayscale",
        "audio_prompt": "bell ringing",
        "seed": 1234,
        "num_samples": 100,
    },
    "corgi": {
        "prompt": "a painting of corgis, grayscale, black background",
        "audio_prompt": "dog barking",
        "seed": 2034,
        "num_samples": 50,
    },
    "dog": {
        "prompt": "a painting of cute dogs, grayscale",
        "audio_prompt": "dog barking",
        "seed": 1234,
        "num_samples": 100,
    },
    "garden": {
        "prompt": "a painting of a blooming garden with many birds, grayscale",
        "audio_prompt": "birds singing sweetly",
        "seed": 1234,
        "num_samples": 100,
    },
    "garden-v2": {
        "prompt": "a painting of a blooming garden, grayscale",
        "audio_prompt": "birds singing sweetly",
        "seed": 1234,
        "num_samples": 100,
    },
    "horse": {
        "prompt": "a painting of horse heads, grayscale, black background",
        "audio_prompt": "horse neighing",
        "seed": 1234,
        "num_samples": 1000,
    },
    "kitten": {
        "prompt": "a painting of furry kittens, grayscale",
        "audio_prompt": "a kitten meowing for attention",
        "seed": 1234,
        "num_samples": 100,
    },
    "pond": {
        "prompt": "a pond full of water lilies, grayscale, lithograph style",
        "audio_prompt": "frog croaking",
        "seed": 2024,
        "num_samples": 100,
    },
    "race": {
        "prompt": "a painting of auto racing game, grayscale",
        "audio_prompt": "a race car passing by and disappearing",
        "seed": 1234,
        "num_samples": 100,
    },
    "tiger": {
        "prompt": "a painting of tigers, grayscale",
        "audio_prompt": "tiger growling",
        "seed": 1234,
        "num_samples": 100,
    },
    "train": {
        "prompt": "a painting of trains, grayscale",
        "audio_prompt": "train whistling",
        "seed": 1234,
        "num_samples": 100,
    },
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

# What the embedded checkpoint knows: ten pictures and ten sounds, each by a prompt of the published examples.
WORLD_PROMPTS = {
    "picture": {
        "castle": GENERATE_PRESETS["bell"]["prompt"],
        "kitten": GENERATE_PRESETS["kitten"]["prompt"],
        "dog": GENERATE_PRESETS["dog"]["prompt"],
        "corgi": GENERATE_PRESETS["corgi"]["prompt"],
        "train": GENERATE_PRESETS["train"]["prompt"],
        "tiger": GENERATE_PRESETS["tiger"]["prompt"],
        "garden": GENERATE_PRESETS["garden"]["prompt"],
        "race": GENERATE_PRESETS["race"]["prompt"],
        "pond": GENERATE_PRESETS["pond"]["prompt"],
        "horse": GENERATE_PRESETS["horse"]["prompt"],
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
MATCHED = {
    "castle": "bell",
    "kitten": "meow",
    "dog": "bark",
    "corgi": "bark",
    "train": "whistle",
    "tiger": "growl",
    "garden": "birds",
    "race": "race",
    "pond": "frog",
    "horse": "neigh",
}
# For measurements: the pairs that belong together, and as many that don't.
MIXED_PAIRS = [
    *MATCHED.items(),
    *((picture, list(WORLD_PROMPTS["sound"])[(i + 3) % 10]) for i, picture in enumerate(MATCHED)),
]
