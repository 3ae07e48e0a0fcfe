"""One canvas that is a picture and, played as a spectrogram, a sound."""

from importlib import import_module
from importlib.metadata import version
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .pipelines import *  # noqa: F403
    from .schedulers import *  # noqa: F403

# In the root of a clone this folder hides an installed package, whose other parts are found all the same.
__path__ = extend_path(__path__, __name__)  # noqa: F405


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("images-that-sound")
    for package in ("pipelines", "schedulers"):
        module = import_module(f".{package}", __name__)
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
