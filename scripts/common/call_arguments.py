"""Arguments of a pipeline's call, read from its source, which costs no import of torch."""

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CallArgument:
    """
    An argument of a pipeline's call: its name, the source of its annotation, its default (`inspect.Parameter.empty`
    if it has to be given), and its text in the docstring, on one line.
    """

    name: str
    annotation: str
    default: Any
    description: str


def read_call(file: Path, class_name: str) -> dict[str, CallArgument]:
    """
    The arguments of a class's `__call__` by name, in the order of the signature and without `self`, from the Python
    file that defines it. Raises `ValueError` if that defines no such class, or a default that is no literal.
    """
    call = _find_call(ast.parse(Path(file).read_text(encoding="utf-8")), class_name)
    if call is None:
        raise ValueError(f"`class_name` has to name a class of {file} with a `__call__`, but is {class_name!r}.")
    positional = [*call.args.posonlyargs, *call.args.args]
    required = [None] * (len(positional) - len(call.args.defaults))
    defaults = [*required, *call.args.defaults, *call.args.kw_defaults]
    descriptions = _descriptions(ast.get_docstring(call) or "")
    return {
        each.arg: CallArgument(
            name=each.arg,
            annotation=ast.unparse(each.annotation) if each.annotation else "",
            default=ast.literal_eval(default) if default else inspect.Parameter.empty,
            description=descriptions.get(each.arg, ""),
        )
        for each, default in list(zip([*positional, *call.args.kwonlyargs], defaults))[1:]
    }


def _find_call(module: ast.Module, class_name: str) -> ast.FunctionDef | None:
    for owner in module.body:
        if isinstance(owner, ast.ClassDef) and owner.name == class_name:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__call__":
                    return node
    return None


def _descriptions(docstring: str) -> dict[str, str]:
    """Texts of the section "Args", by names: an entry begins at the first indentation with `name (type):`."""
    entries: list[str] = []
    lines = docstring.splitlines()
    start = lines.index("Args:") + 1 if "Args:" in lines else len(lines)
    for line in lines[start:]:
        indentation = len(line) - len(line.lstrip())
        if line and not indentation:
            break
        if indentation == 4:
            entries.append(line)
        elif line:
            entries[-1] += line
    folded = [" ".join(entry.split()).partition("):") for entry in entries]
    return {header.split()[0]: text.strip() for header, _, text in folded}
