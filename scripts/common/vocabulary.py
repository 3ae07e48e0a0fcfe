"""Words that a checkpoint knows by its `vocabulary.json`, and words of prompts that it does not."""

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from .files import read_json
from .models import SHIPPED
from .own_files import listed, source_and_weight


WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
# Words that name nothing to be seen or heard.
FUNCTION_WORDS = frozenset(
    "a an the this that these those some my your his her its our their it and or of to for from by as at in on with is"
    " are".split()
)
# Words and names that one sentence holds.
MOST = 10
# How alike a word that may have been meant is, from 0 to 1.
LIKENESS = 0.8


def unknown_words(settings: dict[str, Any]) -> list[str]:
    """
    A sentence for each prompt with words that its side of a sample's models does not know, with the nearest ones that
    it does.

    Args:
        settings (`dict`): The sample's: `prompt`, `audio_prompt`, `model` and `audio_model`, and perhaps `audio_lora`,
            of which folders with a `vocabulary.json` bring further words.

    Returns:
        `list[str]`: At most one sentence for each side; none if a model has no `vocabulary.json`, such as Stable
        Diffusion, which reads everything.
    """
    loras = [source_and_weight(text)[0] for text in listed(settings.get("audio_lora"))]
    sides = {
        "picture": (settings["prompt"], settings["model"], []),
        "sound": (settings["audio_prompt"], settings["audio_model"] or settings["model"], loras),
    }
    return [text for kind, (prompt, *sources) in sides.items() if (text := _sentence(kind, prompt or "", *sources))]


def unknown_in(prompt: str, model: str, kind: str, loras: list[str] = []) -> list[str]:
    """Words of a prompt that neither a model nor its LoRAs know; none if the model has no `vocabulary.json`."""
    if not vocabulary(model, kind)[0]:
        return []
    words = {*FUNCTION_WORDS, *(word for each in (model, *loras) for word in vocabulary(each, kind)[1])}
    said = words_of(prompt) or [each for each in prompt.split() if each.isprintable()]
    return list(dict.fromkeys(word for word in said if word not in words))


def _sentence(kind: str, prompt: str, model: str, loras: list[str]) -> str | None:
    unknown = unknown_in(prompt, model, kind, loras)
    if not unknown:
        return None
    names, words = vocabulary(model, kind)
    shown = [_with_nearest(word, words) for word in unknown[:MOST]]
    if len(unknown) > MOST:
        shown.append(f"and {len(unknown) - MOST} more")
    some = names[:: -(-len(names) // MOST)]
    such = ":" if len(some) == len(names) else ", such as"
    return (
        f"Unknown to the checkpoint in the {kind}'s prompt: {', '.join(shown)}."
        f" It knows {len(names)} {kind}s{such} {', '.join(some)}."
    )


def _with_nearest(word: str, words: list[str]) -> str:
    nearest = get_close_matches(word, [each for each in words if each not in FUNCTION_WORDS], cutoff=LIKENESS)
    return f"“{word}” (nearest: {', '.join(nearest)})" if nearest else f"“{word}”"


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, in lower case."""
    return WORD.findall(prompt.lower())


@cache
def vocabulary(model: str, kind: str) -> tuple[list[str], list[str]]:
    """
    Names of what a model knows of a kind, "picture" or "sound", and all words of its prompts; both are empty if its
    `vocabulary.json` has none of the kind, or there is none. Raises `ValueError` for one that holds something else.
    """
    file = Path(SHIPPED.get(model, model), "vocabulary.json")
    if not file.is_file():
        return [], []
    known = read_json(file).get(kind, {"names": [], "words": []})
    lists = [known.get(name) if isinstance(known, dict) else None for name in ("names", "words")]
    if not all(isinstance(each, list) and all(isinstance(word, str) for word in each) for each in lists):
        raise ValueError(f"`model` has a vocabulary that lists no `names` and `words` of a {kind}: {file}")
    return lists[0], lists[1]
