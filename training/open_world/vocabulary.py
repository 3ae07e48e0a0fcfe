"""
What the open world holds and what it is called: `vocabulary.json`, in one place. A word's plural is formed by rule
unless it is given after a slash, as in "wolf/wolves".
"""

import json
from pathlib import Path


VOCABULARY = json.loads(Path(__file__).with_name("vocabulary.json").read_text())
PICTURES: dict[str, dict] = VOCABULARY["pictures"]
SOUNDS: dict[str, dict] = VOCABULARY["sounds"]
SENTENCES: list[str] = VOCABULARY["sentences"]


def one_and_many(word: str) -> tuple[str, str]:
    """Singular and plural of a word of the vocabulary."""
    one, _, many = word.partition("/")
    if many:
        return one, many
    if one.endswith(("s", "x", "z", "ch", "sh")):
        return one, one + "es"
    if one.endswith("y") and one[-2] not in "aeiou":
        return one, one[:-1] + "ies"
    return one, one + "s"


def article(word: str) -> str:
    """A word with its indefinite article."""
    return f"{'an' if word[0] in 'aeioAEIO' or word.startswith(('hour', 'umb', 'und', 'unh', 'urn')) else 'a'} {word}"


def one_of(one: str, many: str) -> str:
    """A singular with its article, or without one if it is a plural too: "an owl", "sunglasses"."""
    return one if one == many else article(one)
