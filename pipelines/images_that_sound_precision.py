"""Modules that half precision ruins stay in float32, whatever their pipeline is cast to."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from transformers import SpeechT5HifiGan


@contextmanager
def kept_in_float32(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Undoes casts inside to half precision, of these modules; their device may change."""
    kept = [(module, {k: v.detach().cpu().float() for k, v in module.state_dict().items()}) for module in modules]
    yield
    for module, weights in kept:
        if any(weight.dtype in (torch.float16, torch.bfloat16) for weight in module.parameters()):
            module.float().load_state_dict(weights)


def exact_vocoder(vocoder: SpeechT5HifiGan | None) -> SpeechT5HifiGan | None:
    """
    The vocoder in float32. One that was rounded while it was loaded is read again from where it came: cast up it would
    stay rounded.
    """
    if vocoder is None or vocoder.dtype == torch.float32:
        return vocoder
    rounded = vocoder.state_dict()
    if os.path.isdir(vocoder.name_or_path):
        exact = SpeechT5HifiGan.from_pretrained(vocoder.name_or_path, dtype=torch.float32).state_dict()
        # Else somebody has changed the weights since, and means those.
        if all(torch.equal(exact[name].to(value.dtype), value.cpu()) for name, value in rounded.items()):
            rounded = exact
    vocoder.float().load_state_dict(rounded)
    return vocoder
