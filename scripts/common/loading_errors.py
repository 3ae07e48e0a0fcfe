"""Errors of the Hub, with a hint at what to do about them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .border import one_line
from .files import read_json


# In one model, or one block of it; and endings of lists that have an entry for each.
MAX_LAYERS = 1000
OF_LAYERS = ("_types", "_channels", "_rates", "_sizes", "depths")
SIGN_IN = "Sign in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens."


@contextmanager
def hub_errors(repo: str, argument: str | None = None) -> Iterator[None]:
    """
    Turns what huggingface_hub raises inside into an error of the user's.

    Args:
        repo (`str`): Name of the repo or namespace that is read or written inside.
        argument (`str`, *optional*): Name of the argument that gave it, if that takes folders too.

    Raises:
        ValueError: Names `repo` and what to do. Errors that are not the Hub's pass as they are.
    """
    try:
        yield
    except Exception as error:
        from ...pipelines.images_that_sound_deepfloyd import raise_if_gated

        raise_if_gated(error, repo)
        for cause in _causes(error):
            remedy = _remedy(cause, repo)
            if remedy is not None:
                prefix = f"`{argument}` names no folder. " if argument else ""
                raise ValueError(prefix + remedy) from error
        raise


@contextmanager
def checkpoint_errors(source: str, argument: str) -> Iterator[None]:
    """
    Does the same as `hub_errors`, and raises `ValueError` if `source`, given by `argument`, holds no checkpoint. Only
    files of somebody else are loaded inside, so that whatever libraries raise is about these.
    """
    import torch

    default_dtype = torch.get_default_dtype()
    with hub_errors(source, argument):
        try:
            _check_configs(source)
            yield
        except MemoryError:
            raise
        except Exception as error:
            reason = error if isinstance(error, (OSError, ValueError)) else repr(error)
            raise ValueError(
                f"`{argument}` has to be a repo or folder of a checkpoint, but {source!r} is none: {reason}"
            ) from error
        finally:
            # Loading changes it, and leaves it so if it fails.
            torch.set_default_dtype(default_dtype)


def _check_configs(source: str) -> None:
    """
    Raises `ValueError` for configs of a folder, a file's folder or a repo that name more layers than any honest model,
    since models are built before their weights are found missing.
    """
    path = Path(source)
    folder = path.parent if path.is_file() else path
    repo = "/".join(source.split("/")[:2]) if path.suffix == ".safetensors" else source
    if not path.exists() and _is_repo(repo):
        # Those that are loaded next are then in the cache.
        folder = Path(snapshot_download(repo, allow_patterns="*config.json"))
    for pattern in ("*config.json", "*/*config.json", "*/*/*config.json"):
        for file in folder.glob(pattern):
            _check_depth(file, read_json(file))


def _is_repo(name: str) -> bool:
    """Whether a name is that of somebody's repo; models that ship have names without a namespace."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _check_depth(file: Path, config: dict[str, Any]) -> None:
    for name, value in config.items():
        values = list(_flat(value))
        numbers = [each for each in values if isinstance(each, int)] if re.search("layers|depth", name) else []
        least = 1 if name == "layers_per_block" else 0
        wrong = any(not least <= each <= MAX_LAYERS for each in numbers)
        if wrong or name.endswith(OF_LAYERS) and len(values) > MAX_LAYERS:
            raise ValueError(f"`{name}` in `{file}` has to name {least} to {MAX_LAYERS} layers.")
        for each in values:
            if isinstance(each, dict):
                _check_depth(file, each)


def _flat(value: Any) -> Iterator[Any]:
    for each in value if isinstance(value, list) else ():
        yield from _flat(each)
    if not isinstance(value, list):
        yield value


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _remedy(error: BaseException, repo: str) -> str | None:
    said = one_line(error).rstrip(".")
    if isinstance(error, LocalTokenNotFoundError):
        return f"There is no token for `{repo}`. {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"The Hub has no repo `{repo}` that it shows to you. Check the name. If it is private: {SIGN_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"The Hub's repo `{repo}` has no such revision: {said}"
    # hf_xet, which carries the large files, raises Python's own errors.
    if isinstance(error, EntryNotFoundError) or not isinstance(error, (HTTPError, ConnectionError, TimeoutError)):
        return None
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return f"The Hub does not know the token that was sent for `{repo}`. {SIGN_IN}"
    if status == 403:
        return (
            f"The token may not do this with `{repo}`. Check the namespace, and that the token has the right to write."
        )
    return (
        f"The Hub did not answer for `{repo}`: {said}. Check the name and the connection, then run the same command"
        " again; what has arrived already is kept."
    )
