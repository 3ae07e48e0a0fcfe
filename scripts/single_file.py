"""Merges the pipeline and its siblings into one file, the form that diffusers' `examples/community` asks for."""

import ast
import re
import sys
from pathlib import Path

from .. import pipelines
from .common.arguments import new_parser
from .common.files import write_text


MAIN = "pipeline_images_that_sound"
LINE_LENGTH = 119


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("single-file", __doc__)
    parser.add_argument("--output", type=Path, required=True, help="The Python file to write.")
    args = parser.parse_args(input_args)
    if args.output.suffix != ".py":
        parser.error(f"`--output` has to end in .py, but is {args.output}.")
    write_text(args.output, merge(Path(pipelines.__path__[0])))
    print(args.output)


def merge(folder: Path, name: str = MAIN) -> str:
    """
    One module that holds what a module and its siblings hold.

    Args:
        folder (`Path`): Where the modules are.
        name (`str`): The module to begin with; the others are those that it imports by `from .x import y`.

    Returns:
        `str`: Its source: the docstring of the first, all imports, and all definitions, none before what it needs.

    Raises:
        ValueError: If a name means one thing in one module and another in another, or a module imports a sibling's
            definition under another name.
    """
    sources = _sources(folder, name, {})
    imports, bodies, seen = set(), [], {}
    for source in sources.values():
        imports |= _third_party_imports(ast.parse(source))
        bodies.append(_body(source, seen))
    for module, attribute, alias in sorted(imports, key=str):
        local = alias or attribute or module.split(".")[0]
        meaning = f"{module}.{attribute}" if attribute or alias else "a package"
        if seen.setdefault(local, meaning) != meaning:
            raise ValueError(f"`{local}` is defined differently in two modules, so that one file can't hold both.")
    docstring = ast.get_docstring(ast.parse(sources[name]), clean=False)
    header = f'"""{docstring}"""\n\n{_format_imports(imports)}'
    return re.sub(r"\n{4,}", "\n\n\n", "\n\n\n".join([header, *filter(None, bodies)])) + "\n"


def _sources(folder: Path, name: str, sources: dict[str, str]) -> dict[str, str]:
    """Sources by module name, siblings before those that import them."""
    source = (folder / f"{name}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.ImportFrom) and node.level == 1):
            continue
        renamed = [alias.name for alias in node.names if alias.asname]
        if renamed:
            raise ValueError(f"`{name}` imports {renamed} of `{node.module}` under another name; one file can't.")
        if node.module not in sources:
            _sources(folder, node.module, sources)
    sources[name] = source
    return sources


def _third_party_imports(module: ast.Module) -> set[tuple[str, str | None, str | None]]:
    """Triples of a module, a name in it (`None` for `import module`) and an alias."""
    found = set()
    for node in module.body:
        if isinstance(node, ast.Import):
            found |= {(alias.name, None, alias.asname) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {(node.module, alias.name, alias.asname) for alias in node.names}
    return found


def _format_imports(imports: set[tuple[str, str | None, str | None]]) -> str:
    """Import statements as ruff sorts them: the standard library's, then the others'."""
    sections = []
    for standard in (True, False):
        section = {each for each in imports if (each[0].split(".")[0] in sys.stdlib_module_names) == standard}
        whole = sorted({(module, alias) for module, name, alias in section if name is None}, key=_by_module)
        lines = [f"import {module}" + (f" as {alias}" if alias else "") for module, alias in whole]
        for module in sorted({module for module, name, _ in section if name is not None}, key=str.lower):
            names = sorted({(n, alias) for m, n, alias in section if m == module and n is not None}, key=_by_kind)
            lines.append(_from_import(module, [f"{n} as {alias}" if alias else n for n, alias in names]))
        sections.append("\n".join(lines))
    return "\n\n".join(filter(None, sections))


def _by_module(whole: tuple[str, str | None]) -> str:
    return whole[0].lower()


def _by_kind(name_and_alias: tuple[str, str | None]) -> tuple[int, str]:
    name = name_and_alias[0]
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name.lower()


def _from_import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE_LENGTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _body(source: str, seen: dict[str, str]) -> str:
    """What a module holds besides its docstring, its imports and what `seen` holds already."""
    lines = source.splitlines()
    dropped = set()
    for node in ast.parse(source).body:
        text = ast.get_source_segment(source, node)
        repeated = False
        for name in _defined(node):
            repeated = name in seen
            if seen.setdefault(name, text) != text:
                raise ValueError(f"`{name}` is defined differently in two modules, so that one file can't hold both.")
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        if repeated or is_import or _is_docstring(node):
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            # A comment right above an import is about it.
            while is_import and first > 1 and lines[first - 2].startswith("#"):
                first -= 1
            dropped |= set(range(first, node.end_lineno + 1))
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in dropped).strip("\n")


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    return [target.id for target in targets if isinstance(target, ast.Name)]


if __name__ == "__main__":
    main()
