"""A complete request: the command line, then a file made earlier, then an example, then the defaults."""

import argparse
import hashlib
import inspect
import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

from .call_arguments import CallArgument
from .files import check_text
from .own_files import COMPONENTS, READ_BY, OwnFile, joined, listed, own_files, read_score, recorded, values_over_time
from .parsers import DEFAULTS, parser_options
from .values import MADE_BY, Models, Request, Samples, Values, json_dict, options_of, values_of


# No honest call asks for more, by the argument, else by all: a canvas of 45 minutes.
MOST = {"width": 2**18, "audio_length_in_s": 2700, "num_images_per_prompt": 1024}
LARGEST_NUMBER = 1e6
# Models that ship with the package, and are loaded because a file says so.
SHIPPED_MODELS = ("embedded", "embedded-colorization")
# Options that decide how the samples of `sds` come out, besides the arguments of the call.
OPTIMIZED_BY = ("final_max_timestep", "mixed_precision", "gradient_accumulation_steps")
PROMPTS = ("prompt", "audio_prompt")
# Searches share a folder only if the same scores judge.
JUDGED_BY = ("scores", "clip_model", "clap_model")


def read_request(
    args: argparse.Namespace,
    presets: dict,
    arguments: dict[str, CallArgument],
    request_class: type[Values] = Request,
    embedded_presets: dict | None = None,
    instead: dict[str, str] | None = None,
    needs: list[tuple[str, tuple[str, ...]]] | None = None,
    saved: dict[str, Any] | None = None,
    **given: Any,
) -> Values:
    """
    The values of `add_sample_arguments`. Missing ones come from `--params_from` (or from `saved`, its settings), then
    from the example (if the embedded checkpoint makes it, first from `embedded_presets`), then from the defaults of
    the call. `instead` says which file stands in for which prompt, and `needs` which arguments are nothing without one
    of some files.
    """
    if {args.model, args.audio_model} <= {None, "embedded"}:
        presets = {name: preset | (embedded_presets or {}).get(name, {}) for name, preset in presets.items()}
    saved, instead = _saved(args) if saved is None else saved, instead or {}
    known = DEFAULTS | _known(args, presets, arguments, saved, request_class)
    components = {name: known.get(name) if value is None else value for name, value in _components(args).items()}
    # The command line counts more than a file made earlier: a prompt too, if a file stands in for it.
    left_open = {name: saved[name] for name in saved if getattr(args, instead.get(name, name), None) is None}
    files = own_files(args, left_open, args.params_from)
    onsets = known.get("onsets") if getattr(args, "onsets", None) is None else args.onsets
    present = {name for name, value in {**files, **components, "onsets": onsets}.items() if value is not None}
    for name, any_of in needs or []:
        if (name in present or getattr(args, name, None) is not None) and not present & set(any_of):
            raise ValueError(f"`{name}` can't be given without {' or '.join(f'`{each}`' for each in any_of)}.")
    if (score := _score(args, known)) is None:
        known.pop("score", None)
    else:
        # Settings, captions and folders name all prompts of a score.
        over_time = {name: values for name, values in values_over_time(score).items() if name != "audio_weight"}
        known |= {name: joined(texts) for name, texts in over_time.items()}
    replaced = [prompt for file, prompt in instead.items() if file in files]
    known = {name: value for name, value in known.items() if name.removeprefix("negative_") not in replaced}
    complete = argparse.Namespace(
        **{name: known.get(name) if value is None else value for name, value in vars(args).items()}
    )
    call = complete_call(arguments, vars(args), known)
    _check_prompts(call, files, instead)
    read_by = {name: getattr(complete, name) for name in READ_BY if hasattr(args, name)}
    read_by = {name: value for name, value in read_by.items() if value is not None}
    own_parts = {**recorded(files, _components(complete)), **read_by}
    if complete.output_dir is None:
        usual = {name: each.default for name, each in arguments.items()} | DEFAULTS | presets.get(args.example, {})
        complete.output_dir = _default_folder(complete, {**call, **own_parts}, files, usual)
    return values_of(
        request_class,
        complete,
        call=call,
        models=values_of(Models, complete),
        samples=values_of(Samples, complete),
        files=files,
        recorded=own_parts,
        **given,
    )


def _score(args: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any] | None:
    """The prompts over time that the command line gives, or a file made earlier if no prompt is given."""
    given = [name for name in PROMPTS if getattr(args, name) is not None]
    if getattr(args, "score", None) is None:
        return None if given else known.get("score")
    given += [name for name in values_over_time(args.score) if getattr(args, name, None) is not None]
    if given:
        raise ValueError(f"`score` and `{given[0]}` exclude each other, but both are given.")
    check_value("score", args.score)
    return args.score


def complete_call(arguments: dict[str, CallArgument], parsed: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call: the parsed ones, else the known ones, else the call's defaults."""
    call = {}
    for name, argument in arguments.items():
        value = known.get(name, argument.default) if parsed.get(name) is None else parsed[name]
        if argument.annotation.startswith("float | list") and isinstance(value, list) and len(value) == 1:
            value = value[0]
        call[name] = None if value is inspect.Parameter.empty else value
        check_value(name, call[name])
    return call


def check_value(name: str, value: Any) -> None:
    """Raises `ValueError` for a text or a number that no honest call holds. The library takes them as they are."""
    if isinstance(value, str):
        check_text(name, value)
    elif isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            check_value(name, each)
    elif isinstance(value, (int, float)):
        most = MOST.get(name, LARGEST_NUMBER)
        if abs(value) > most:
            raise ValueError(f"`{name}` has to be a number of at most {most:g}, but is {str(value)[:100]}.")


def _check_prompts(call: dict[str, Any], files: dict[str, list[OwnFile]], instead: dict[str, str]) -> None:
    """Raises `ValueError` unless a prompt, or a file in its place, says what to see and what to hear."""
    missing, file_of = [], {prompt: file for file, prompt in instead.items()}
    for name in PROMPTS:
        file = file_of.get(name)
        given = [each for each in (name, f"negative_{name}") if call.get(each) is not None]
        if file in files:
            if given:
                raise ValueError(f"`{file}` and `{given[0]}` exclude each other, but both are given.")
        elif call[name] is None:
            missing.append(f"`{name}` or `{file}`" if file else f"`{name}`")
        elif not call[name].strip():
            raise ValueError(f"`{name}` may not be empty, but is {call[name]!r}.")
    if missing:
        have = "has" if len(missing) == 1 else "have"
        raise ValueError(f"{' and '.join(missing)} {have} to be given. --example bell is one way to.")


def _default_folder(
    args: argparse.Namespace, settings: dict[str, Any], files: dict[str, list[OwnFile]], usual: dict[str, Any]
) -> Path:
    """
    Folder of samples that were given none: named by words that can be read, and by a hash of all that is not `usual`,
    so that nothing that is made in another way goes there.
    """
    made_by = {**{name: getattr(args, name, None) for name in (*MADE_BY, *OPTIMIZED_BY, *JUDGED_BY)}, **settings}
    unusual = {name: value for name, value in made_by.items() if value is not None and value != usual.get(name)}
    words = [args.command, args.example]
    if args.example is None:
        words += [_slug(settings[name]) for name in PROMPTS if settings[name]]
    if args.example is None or files:
        words += [_slug(Path(file.name).stem) for several in files.values() for file in several]
    if unusual:
        words.append(hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8])
    return Path("outputs", "-".join(filter(None, words)))


def _slug(text: str) -> str:
    """The part of a text that every file system takes, shortened."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "-".join(re.findall("[a-z0-9]+", plain))[:40].strip("-")


def _saved(args: argparse.Namespace) -> dict[str, Any]:
    """The settings in the file of `--params_from`."""
    if args.params_from and args.example:
        raise ValueError("`--params_from` and `--example` exclude each other.")
    if not args.params_from:
        return {}
    from .samples import read_settings

    saved = read_settings(args.params_from)
    if "extended" in saved:
        raise ValueError("`params_from` was made by `extend`, of a sample before it. Repeat that one, and extend it.")
    return saved


def _components(args: argparse.Namespace) -> dict[str, str | list[str] | None]:
    return {name: getattr(args, name) for name in COMPONENTS if hasattr(args, name)}


def _known(
    args: argparse.Namespace,
    presets: dict,
    arguments: dict[str, CallArgument],
    saved: dict[str, Any],
    request_class: type,
) -> dict[str, Any]:
    """
    What the example or `saved`, the settings in a file, says. Of a file, which anybody may have made, that is the
    arguments of the call and some of the request as the command line could give them, the seed, the precision, models
    that ship, and how the audio side draws, if it is the same.
    """
    if not args.params_from:
        return presets.get(args.example, {})
    kinds = {name: parser_options(argument) for name, argument in arguments.items()}
    further = {"seed", *OPTIMIZED_BY, *MADE_BY}
    for values_class in (Models, request_class, Samples):
        kinds |= {name: options for name, options in options_of(values_class).items() if name in further}
    kinds |= {name: options for name, options in READ_BY.items() if hasattr(args, name)}
    known = {name: saved[name] for name in kinds if saved.get(name) is not None}
    for name, value in known.items():
        _check_kind(name, value, kinds[name])
    if args.model in (None, saved.get("model")):
        left = [name for name in ("model", "audio_model", *COMPONENTS) if getattr(args, name, None) is None]
        models = shipped_models({name: saved.get(name) for name in left}, "params_from")
        if foreign := [name for name in models if not hasattr(args, name)]:
            raise ValueError(f"`params_from` was made with `{foreign[0]}`, which this command can't take.")
        known |= models
    audio_model = args.audio_model or known.get("audio_model")
    if audio_model is not None and audio_model == saved.get("audio_model"):
        known["spectrogram"] = saved.get("spectrogram")
    return known


def _check_kind(name: str, value: Any, options: dict[str, Any]) -> None:
    """Raises `ValueError` for what the command line could not give."""
    if "choices" in options:
        right = value in options["choices"]
    elif "type" not in options:
        right = isinstance(value, bool)
    else:
        kinds = {json_dict: dict, read_score: dict, float: (int, float)}
        kind = kinds.get(options["type"], options["type"])
        values = value if "nargs" in options and isinstance(value, list) else [value]
        right = all(isinstance(each, kind) and not isinstance(each, bool) for each in values)
    if not right:
        raise ValueError(f"`params_from` holds a `{name}` that is none: {str(value)[:100]!r}.")


def shipped_models(models: dict[str, str | list[str] | None], argument: str) -> dict[str, str | list[str]]:
    """
    The models that files given by `argument` name. Raises `ValueError` for others than those that ship with the
    package: nothing is loaded because a file says so.
    """
    named = {name: model for name, model in models.items() if model is not None}
    if not all(set(listed(model)) <= set(COMPONENTS.get(name, SHIPPED_MODELS)) for name, model in named.items()):
        once_more = " ".join(f"--{name} {shlex.join(listed(model))}" for name, model in named.items())
        raise ValueError(f"`{argument}` names models, which are loaded only if you name them once more: {once_more}")
    return named
