"""Puts this project's repos on the Hub: code, cards and weights, each loaded by a fresh process before it goes."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from .. import __version__
from .common.border import run
from .common.files import check_writable, write_json, written
from .common.loading_errors import hub_errors
from .common.parsers import FILES, add_spectrogram_argument, new_parser
from .common.values import values_of


MAIN_REPO = "images-that-sound"
# The same method as blocks of Modular Diffusers, which only the main repo holds.
BLOCKS = "images_that_sound_blocks.py"
CODE_REPOS = {
    MAIN_REPO: "ImagesThatSoundPipeline",
    "images-that-sound-img2img": "ImagesThatSoundImg2ImgPipeline",
    "images-that-sound-imprint": "ImagesThatSoundImprintPipeline",
    "images-that-sound-sds": "ImagesThatSoundSDSPipeline",
    "images-that-sound-colorization": "FactorizedColorizationPipeline",
}
WEIGHT_REPOS = {
    "images-that-sound-embedded": "ImagesThatSoundPipeline",
    "images-that-sound-embedded-colorization": "FactorizedColorizationPipeline",
}
# A repo of one model, without code.
MODEL_REPOS = {"images-that-sound-embedded-controlnet": "ControlNetModel"}
MERGED_REPO = "images-that-sound-merged"
# The same, if black is loud.
RIFFUSION_REPO = "images-that-sound-riffusion"
# The page of `demo`, for which a Space installs this package.
SPACE = "images-that-sound-demo"
REPOS = (*CODE_REPOS, *WEIGHT_REPOS, *MODEL_REPOS, SPACE)
PIPELINES = {**CODE_REPOS, **WEIGHT_REPOS, **dict.fromkeys((MERGED_REPO, RIFFUSION_REPO), "ImagesThatSoundPipeline")}
CLASSES = {**PIPELINES, **MODEL_REPOS}

# By the Hub's names, from what allows most to what allows least.
LICENSES = (
    "mit",
    "apache-2.0",
    "openrail",
    "creativeml-openrail-m",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")

# Without this package, and with what an earlier folder left behind forgotten, since all share one cache of modules.
LOAD = """
import importlib, json, os, shutil, sys
sys.modules["images_that_sound"] = None
import diffusers
from diffusers import DiffusionPipeline
from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module

for folder, expected in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.startswith("diffusers_modules")]:
        del sys.modules[name]
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)
    importlib.invalidate_caches()
    print(folder, file=sys.stderr)
    if os.path.exists(os.path.join(folder, "model_index.json")):
        loaded = type(DiffusionPipeline.from_pretrained(folder, trust_remote_code=True))
    elif os.path.exists(os.path.join(folder, "config.json")):
        loaded = type(getattr(diffusers, expected).from_pretrained(folder))
    else:
        loaded = get_class_from_dynamic_module(folder, "pipeline.py", trust_remote_code=True)
    if loaded.__name__ != expected:
        raise SystemExit(f"It holds {loaded.__name__}, not {expected}.")
"""

OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import app
args = app.parse_args([])
app.build(app.Studio(app.values_of(app.Models, args), app.values_of(app.Scores, args), Path(".")))
"""


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """The request of the arguments of `parse_args`."""

    namespace: str
    repo: list[str] | None
    private: bool
    dry_run: bool
    source_dir: Path
    output_dir: Path | None
    merge: list[str] | None
    spectrogram: str | dict | None
    license: str | None
    dtype: str


def parse_args(input_args: list[str] | None = None) -> PublishRequest:
    parser = new_parser("publish", __doc__)
    parser.add_argument("--namespace", required=True, help="User or organisation of the Hub that gets the repos.")
    parser.add_argument("--repo", nargs="+", choices=REPOS, help="Default: all that are there.")
    parser.add_argument("--private", action="store_true", help="New repos are private.")
    parser.add_argument("--dry_run", action="store_true", help="Show and check what would go; send nothing.")
    parser.add_argument(
        "--source_dir", type=Path, default=".", help="Clone of this project. Default: the current folder."
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="Keeps the repos' folders. One that is there already goes as it is. Default: kept nowhere.",
    )
    merge = parser.add_argument_group("one repo of both sides")
    merge.add_argument(
        "--merge",
        nargs=2,
        metavar=("STABLE_DIFFUSION", "AUDIO_SIDE"),
        help=f"Two repos or folders, made into one, {MERGED_REPO} or {RIFFUSION_REPO}, instead of --repo.",
    )
    add_spectrogram_argument(merge, "Spectrograms of the audio side. Default: those that are known of it.")
    merge.add_argument("--license", choices=LICENSES, help="Needed if the card of a side names none of these.")
    merge.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    return values_of(PublishRequest, parser.parse_args(input_args))


def publish(request: PublishRequest) -> Iterator[str]:
    """Assembles, shows, checks and uploads the repos; yields what to print of each."""
    names = check_request(request)
    api = HfApi()
    if not request.dry_run:
        with hub_errors(request.namespace):
            api.whoami()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(request.output_dir or temporary).absolute()
        folders = [assemble(request, name, root) for name in names]
        for folder in folders:
            yield from listing(request, folder)
        check_loading(folders)
        yield "Each loads in a fresh process."
        for folder in folders:
            if not request.dry_run:
                yield from upload(api, request, folder)


def check_request(request: PublishRequest) -> list[str]:
    """Raises `ValueError` for arguments that do not make sense; returns the names of the repos."""
    try:
        validate_repo_id(f"{request.namespace}/{MERGED_REPO}")
    except HFValidationError as error:
        raise ValueError(f"`namespace` has to be a name of the Hub, but is {request.namespace!r}.") from error
    if request.merge and request.repo:
        raise ValueError("`merge` and `repo` exclude each other.")
    if not (request.source_dir / "model_cards").is_dir():
        raise ValueError(
            f"`source_dir` has to be a clone of this project, but {request.source_dir} has no model_cards."
        )
    if request.output_dir:
        check_writable(request.output_dir)
    if request.merge:
        return [merged_name(request)]
    for name in request.repo or []:
        if not is_complete(request, name):
            raise ValueError(f"`repo` {name} has no card or no weights yet: see {home_of(request, name)}.")
    if request.private and SPACE in (request.repo or []):
        raise ValueError(f"`private` is not for {SPACE}, since a Space can't install a package from a private repo.")
    return request.repo or [
        name for name in REPOS if is_complete(request, name) and not (request.private and name == SPACE)
    ]


def home_of(request: PublishRequest, name: str) -> Path:
    """Folder of the sources for files that only this repo holds, its card first of all."""
    return request.source_dir / ("demo" if name == SPACE else f"model_cards/{name}")


def is_complete(request: PublishRequest, name: str) -> bool:
    needed = ["README.md"]
    needed += ["model_index.json"] if name in WEIGHT_REPOS else ["config.json"] if name in MODEL_REPOS else []
    return all((home_of(request, name) / file).is_file() for file in needed)


def assemble(request: PublishRequest, name: str, root: Path) -> Path:
    """The folder of a repo, which appears under its name only when it is complete."""
    folder = root / name
    if folder.exists():
        return folder
    with written(folder) as partial:
        metadata = {}
        if request.merge:
            metadata = merged_metadata(request)
            merge(request, partial)
        else:
            shutil.copytree(
                home_of(request, name), partial, ignore=shutil.ignore_patterns("__*__*", ".*", "*.ipynb", "*.pyi")
            )
        if name == SPACE:
            write_wheel(request, partial)
        elif name not in MODEL_REPOS:
            write_code(partial, request.source_dir / "pipelines", PIPELINES[name])
        write_card(request, partial, home_of(request, name) / "README.md", metadata)
    return folder


def merged_name(request: PublishRequest) -> str:
    """The repo of both sides, which is another if the audio side paints in black on white."""
    from ..pipelines.images_that_sound_audio_prior import AudioPriorRepo

    audio = request.merge[1]
    try:
        with hub_errors(audio, "merge"):
            spectrogram = AudioPriorRepo(audio, "", {}, request.spectrogram).spectrogram
    except OSError as error:
        raise ValueError(f"`merge` has to name two repos or folders of checkpoints: {error}") from error
    return RIFFUSION_REPO if spectrogram.black_is_loud else MERGED_REPO


def merged_metadata(request: PublishRequest) -> dict:
    """Metadata of a repo of both sides: the stricter licence, and the sides' names on the Hub."""
    on_hub = [source for source in request.merge if not is_local(source)]
    base = {"base_model": on_hub, "base_model_relation": "merge"} if on_hub else {}
    return {"license": stricter_license(request), **base}


def merge(request: PublishRequest, folder: Path) -> None:
    """Saves Stable Diffusion with an audio side, parts that both share once."""
    import torch

    from ..pipelines import ImagesThatSoundPipeline

    image, audio = request.merge
    try:
        with hub_errors(image, "merge"):
            pipe = ImagesThatSoundPipeline.from_pretrained(image, dtype=getattr(torch, request.dtype))
        with hub_errors(audio, "merge"):
            pipe.load_audio_prior(audio, spectrogram=request.spectrogram)
    except OSError as error:
        raise ValueError(f"`merge` has to name two repos or folders of checkpoints: {error}") from error
    pipe.save_pretrained(folder)


def stricter_license(request: PublishRequest) -> str:
    """The licence that allows least, among those of the sides' cards and `--license`."""
    licenses = [request.license] if request.license else []
    for source in request.merge:
        named = license_of(source)
        if named in LICENSES:
            licenses.append(named)
        elif not request.license:
            raise ValueError(
                f"`license` has to be given, among {', '.join(LICENSES)}, since the card of {source} names {named}."
            )
    return max(licenses, key=LICENSES.index)


def license_of(source: str) -> str | None:
    card = Path(source) / "README.md"
    if is_local(source):
        return ModelCard.load(card).data.license if card.is_file() else None
    try:
        with hub_errors(source, "merge"):
            return ModelCard.load(source).data.license
    except EntryNotFoundError:
        return None


def is_local(source: str) -> bool:
    return Path(source).is_dir()


def write_code(folder: Path, pipelines: Path, class_name: str) -> None:
    """The pipeline's file and its siblings, and what leads diffusers to the class in it."""
    from diffusers.utils.dynamic_modules_utils import get_relative_import_files

    from .common.modular import write_modular_files

    file = pipelines / FILES[class_name]
    entries = [file, pipelines / BLOCKS] if folder.name == MAIN_REPO else [file]
    for each in {path for entry in entries for path in (entry, *map(Path, get_relative_import_files(entry)))}:
        shutil.copyfile(each, folder / each.name)
    if len(entries) > 1:
        write_modular_files(folder)
    index = folder / "model_index.json"
    if index.exists():
        names = {"_class_name": [file.stem, class_name]}
        write_json(index, {**json.loads(index.read_text(encoding="utf-8")), **names})
    else:
        (folder / "pipeline.py").write_text(entry_of(file, class_name), encoding="utf-8")


def write_wheel(request: PublishRequest, folder: Path) -> None:
    """The package, and the line that lets a Space install it from its own repo."""
    with tempfile.TemporaryDirectory() as directory:
        # From a copy, since setuptools leaves files behind in what it builds.
        sources = Path(directory) / "sources"
        shutil.copytree(
            request.source_dir, sources, ignore=shutil.ignore_patterns(".*", "build", "tests", "__pycache__")
        )
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--wheel-dir", str(folder), str(sources)]
        # The same wheel of the same sources, whenever it is built: zip files begin with 1980.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode != 0:
        reason = reason_of(process.returncode, list(filter(None, [process.stderr.strip()])))
        raise ValueError(f"`source_dir` {request.source_dir} can't be built: {reason}")
    (wheel,) = folder.glob("*.whl")
    url = hf_hub_url(f"{request.namespace}/{SPACE}", wheel.name, repo_type="space")
    (folder / "requirements.txt").write_text(f"images-that-sound @ {url}\n", encoding="utf-8")


def entry_of(file: Path, class_name: str) -> str:
    """The `pipeline.py` of a repo of code: the class, and every sibling, since diffusers copies no others."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    siblings = [ast.unparse(node) for node in body if isinstance(node, ast.ImportFrom) and node.level]
    title = '"""The file that `custom_pipeline=<this repo>` loads."""'
    return "\n".join([title, "", *siblings, f"from .{file.stem} import {class_name}", ""])


def write_card(request: PublishRequest, folder: Path, source: Path, metadata: dict) -> None:
    """The card, with namespace, revision and version filled in, and the files that it links to."""
    text = source.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        file = source.parent / link
        if not file.is_file():
            raise ValueError(f"The card {source} names {link}, which is not there.")
        shutil.copyfile(file, folder / file.name)
        text = text.replace(f"]({link})", f"]({file.name})")
    # A checkpoint that ships with the package is loaded by its folder in a clone, and by its name from the Hub.
    text = text.replace("model_cards/", f"{request.namespace}/")
    for name, value in (("namespace", request.namespace), ("revision", revision()), ("version", __version__)):
        text = text.replace(f"{{{name}}}", value)
    card = ModelCard(text)
    for name, value in metadata.items():
        card.data[name] = value
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def revision() -> str:
    """The tag that the files of this version get, so that cards can pin it."""
    return f"v{__version__}"


def listing(request: PublishRequest, folder: Path) -> Iterator[str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    yield f"{request.namespace}/{folder.name}, {len(files)} files:"
    for file in files:
        yield f"  {file.stat().st_size:>13,}  {file.relative_to(folder).as_posix()}"


def check_loading(folders: list[Path]) -> None:
    """Raises `ValueError` if a fresh process without this package can't load what the folders hold."""
    expected = [(str(folder), CLASSES[folder.name]) for folder in folders if folder.name != SPACE]
    checks = [(LOAD, json.dumps(expected), None)] if expected else []
    checks += [(OPEN, str(folder), folder) for folder in folders if folder.name == SPACE]
    for code, argument, space in checks:
        with tempfile.TemporaryDirectory() as directory:
            environment = {"HF_MODULES_CACHE": str(Path(directory) / "modules"), "HF_HUB_OFFLINE": "1"}
            if space is not None:
                (wheel,) = space.glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(directory)
                environment["PYTHONPATH"] = directory
            process = subprocess.run(
                [sys.executable, "-c", code, argument],
                cwd=directory,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
            )
        if process.returncode != 0:
            lines, names = process.stderr.strip().splitlines(), [str(folder) for folder in folders]
            folder = [str(space)] if space else [line for line in lines if line in names][-1:]
            reason = reason_of(process.returncode, [line for line in lines if line not in names])
            raise ValueError(f"{''.join(folder) or 'It'} does not load in a fresh process: {reason}")


def reason_of(returncode: int, lines: list[str]) -> str:
    """Why a process failed: the signal that ended it, such as for lack of memory, or its last line."""
    if returncode < 0:
        return f"it was ended by signal {-returncode}."
    return lines[-1] if lines else f"it ended with exit code {returncode}."


def upload(api: HfApi, request: PublishRequest, folder: Path) -> Iterator[str]:
    """Makes the repo if it is missing and brings it to the folder's state; yields its address."""
    repo = f"{request.namespace}/{folder.name}"
    kind = {"repo_type": "space"} if folder.name == SPACE else {}
    with hub_errors(repo):
        sdk = {"space_sdk": "gradio"} if kind else {}
        url = api.create_repo(repo, private=request.private or None, exist_ok=True, **kind, **sdk)
        if request.private and not api.repo_info(repo, **kind).private:
            raise ValueError(f"`private` is asked for, but {repo} is public. Make it private at {url}/settings first.")
        # Code that went away must not stay loadable.
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            delete_patterns=["*.py", "*.whl"],
            commit_message=f"images-that-sound {revision()}",
            **kind,
        )
        api.create_tag(repo, tag=revision(), exist_ok=True, **kind)
        tagged = api.repo_info(repo, revision=revision(), **kind).sha
    yield f"{url} is at {commit.oid}."
    if tagged != commit.oid:
        yield f"Its tag {revision()} stays at {tagged}. Raise `version` in setup.py to tag the files of today."


def main(input_args: list[str] | None = None) -> None:
    run(lambda: publish(parse_args(input_args)))


if __name__ == "__main__":
    main()
