"""The card of a LoRA of somebody's sounds, for them to complete."""

import json
from collections import Counter
from pathlib import Path

from .values import Training


# Licences of audio models, by words in their names: the Hub's word, and what it says of LoRAs.
LICENCES = {
    "auffusion": ("cc-by-nc-sa-4.0", "CC BY-NC-SA 4.0, which carries on to this LoRA: no commercial use"),
    "riffusion": ("creativeml-openrail-m", "CreativeML OpenRAIL-M, whose restrictions of use carry on to this LoRA"),
    "embedded": (None, "Apache-2.0, which leaves the licence of this LoRA to you"),
}
MOST_CAPTIONS = 20


def card_of(model: str, captions: list[str], training: Training) -> str:
    """A `README.md` for the Hub: what was learned, how to use it, and whose sounds and which licences to name."""
    name = next((each for each in LICENCES if each in model.lower()), None)
    licence, terms = LICENCES.get(name, (None, "to be named here, since it may carry on to this LoRA"))
    on_hub = "/" in model and not Path(model).exists()
    head = ["library_name: diffusers", "tags:", "- lora", "- text-to-audio", "- spectrogram", "- images-that-sound"]
    head += [f"base_model: {json.dumps(model)}"] if on_hub else []
    head += [f"license: {licence}"] if licence else []
    counts = Counter(captions)
    # Indented lines are shown as they are, whatever stands in a caption.
    rows = [f"    {caption} ({number})" for caption, number in counts.most_common(MOST_CAPTIONS)]
    rows += [f"    and {len(counts) - MOST_CAPTIONS} more"] if len(counts) > MOST_CAPTIONS else []
    source = model if on_hub else Path(model).name
    return "\n".join(
        [
            *("---", *head, "---", "", "# A LoRA of sounds", ""),
            f"It teaches the audio side `{source}` these sounds, named in prompts by the same words:",
            *("", *rows, ""),
            *("## Use", "", "```bash", "images-that-sound generate --audio_lora FOLDER_OR_REPO \\"),
            *('  --prompt "a painting of castle towers, grayscale" --audio_prompt "THE WORDS ABOVE"', "```", ""),
            "It is in diffusers' format: `pipe.audio.load_lora_weights`, or `load_lora_weights` of a stock",
            *("`StableDiffusionPipeline` of the audio side.", "", "## Training", ""),
            f"{len(captions)} sounds, {training.max_train_steps} steps of {training.train_batch_size} canvases"
            f" in {training.gradient_accumulation_steps} batches, rank {training.rank},",
            f"learning rate {training.learning_rate:g}, by `images-that-sound train-lora`.",
            *("", "## Whose sounds, and licences", ""),
            "- Sounds: TO BE WRITTEN: who recorded them, who is heard, under which licence, and who agreed.",
            f"- The audio model's licence: {terms}.",
            "",
        ]
    )
