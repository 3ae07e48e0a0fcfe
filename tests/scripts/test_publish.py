"""Publishing to a Hub on a loopback address, and loading from there in a fresh process that lacks the package."""

import ast
import io
import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from fresh_processes import FreshProcesses
from huggingface_hub import HfApi, ModelCard, SpaceCard
from loopback_hub import HubRepo, LoopbackHub
from scipy.io import wavfile

from images_that_sound.scripts.common.loading_errors import hub_errors
from images_that_sound.scripts.publish import (
    CLASSES,
    CODE_REPOS,
    MAIN_REPO,
    MERGED_REPO,
    MODEL_REPOS,
    PIPELINES,
    RIFFUSION_REPO,
    SPACE,
    WEIGHT_REPOS,
    check_loading,
    parse_args,
    publish,
    revision,
    stricter_license,
    write_wheel,
)


ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "fixtures" / "models"
CARD = "---\nlicense: {}\n---\n"
TOKEN = "hf_of_the_tester"
OTHER_FILES = ("README.md", "LICENSE", ".gitattributes", "notes.md", "modular_config.json", "modular_model_index.json")

# What stands on the Hub in the place of the models that cards name.
STAND_INS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion",
    "auffusion/auffusion-full-no-adapter": "auffusion",
    "DeepFloyd/IF-I-M-v1.0": "deepfloyd-if-stage-1",
    "DeepFloyd/IF-II-M-v1.0": "deepfloyd-if-stage-2",
}
# What they want for arguments left out, since the real ones' take minutes on a CPU.
SHORT = {"num_inference_steps": 2, "num_audio_inference_steps": 2, "num_iterations": 2, "image_start_step": 1}
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What `pip install diffusers accelerate` brings besides these two.
BROUGHT = {"torch", "numpy", "PIL", "safetensors", "huggingface_hub"}

# Runs commands one after the other in one process; writes what each printed, and how it ended.
COMMANDS = """
import contextlib, io, json, os, sys
from images_that_sound.scripts.publish import main
results = {}
for name, (token, arguments) in json.loads(sys.argv[1]).items():
    os.environ["HF_TOKEN"] = token
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            main(arguments)
        except SystemExit as exit:
            error = exit.code
    results[name] = [printed.getvalue(), error]
    json.dump(results, open(sys.argv[2], "w"))
"""

WITHOUT_PACKAGE = "import sys; sys.modules['images_that_sound'] = None"
LOAD = """
import sys
sys.modules["images_that_sound"] = None
import torch
from diffusers import DiffusionPipeline

def load(name, **kwargs):
    pipe = DiffusionPipeline.from_pretrained(name, trust_remote_code=True, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe

def check(pipe, **kwargs):
    output = pipe("a painting of castle towers", "bell ringing", width=64, num_inference_steps=1, output_type="pt",
                  generator=torch.Generator().manual_seed(0), crop_right=0, **kwargs)
    assert output.spectrograms.isfinite().all() and output.audios.isfinite().all()
    return output.spectrograms

for name, base, expected in (
    ("images-that-sound", "some/stable-diffusion", "ImagesThatSoundPipeline"),
    ("images-that-sound-img2img", "some/stable-diffusion", "ImagesThatSoundImg2ImgPipeline"),
    ("images-that-sound-imprint", "some/stable-diffusion", "ImagesThatSoundImprintPipeline"),
    ("images-that-sound-sds", "some/deepfloyd", "ImagesThatSoundSDSPipeline"),
    ("images-that-sound-colorization", "some/deepfloyd", "FactorizedColorizationPipeline"),
):
    pipe = load(base, custom_pipeline="tester/" + name)
    assert type(pipe).__name__ == expected, type(pipe)
    if name == "images-that-sound":
        pipe.load_audio_prior("some/auffusion")
        composed = check(pipe)
for revision in (None, sys.argv[1]):
    check(load("tester/images-that-sound-embedded", revision=revision))
    merged = check(load("tester/images-that-sound-merged", revision=revision))
torch.testing.assert_close(merged, composed, atol=1e-4, rtol=0)
try:
    DiffusionPipeline.from_pretrained("tester/images-that-sound-merged")
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise SystemExit("Code ran without trust.")
"""


def run_python(hub: LoopbackHub, home: Path, code: str, *arguments: str) -> None:
    """Runs code in a fresh process that knows no Hub but this one and starts with an empty cache."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, cwd=home.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def hub(riffusion_folder):
    server = LoopbackHub({TOKEN: "tester", "hf_of_another": "another"})
    server.put("some/stable-diffusion", MODELS / "stable-diffusion", CARD.format("apache-2.0"))
    server.put("some/auffusion", MODELS / "auffusion", CARD.format("cc-by-nc-sa-4.0"))
    server.put("some/riffusion", riffusion_folder, CARD.format("creativeml-openrail-m"))
    server.put("some/deepfloyd", MODELS / "deepfloyd-if-stage-1")
    server.put("some/gated", MODELS / "stable-diffusion", gated=True)
    server.put("tester/images-that-sound", MODELS / "auffusion-odd-vocoder")
    server.repos["tester/images-that-sound"].commit({"gone_from_the_sources.py": b"", "notes.md": b"kept"})
    server.broken.add("tester/images-that-sound-embedded")
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def results(hub, tmp_path_factory) -> dict[str, list]:
    """What each command printed, and its error; all run in one process, whose import is what takes long."""
    folder = tmp_path_factory.mktemp("publish")
    sources = ["--namespace", "tester", "--source_dir", str(ROOT)]
    separate = [*sources, "--repo", *CODE_REPOS, *WEIGHT_REPOS, *MODEL_REPOS]
    merge = [*sources, "--license", "mit", "--merge"]
    both = ["some/stable-diffusion", "some/auffusion"]
    kept = ["--output_dir", str(folder / "kept")]
    incomplete = folder / "incomplete" / "images-that-sound"
    incomplete.mkdir(parents=True)
    (incomplete / "pipeline.py").write_text("from .gone import Gone\n")
    commands = {
        "wrong token": ("hf_wrong", separate),
        "no token": ("", separate),
        "missing repo": (TOKEN, [*merge, "some/missing", "some/auffusion"]),
        "missing audio repo": (TOKEN, [*merge, "some/stable-diffusion", "some/missing"]),
        "gated repo": (TOKEN, [*merge, "some/gated", "some/auffusion"]),
        "dry run": (TOKEN, [*sources, *kept, "--dry_run", "--merge", *both]),
        "does not load": (TOKEN, [*sources, "--repo", incomplete.name, "--output_dir", str(incomplete.parent)]),
        "broken": (TOKEN, separate),
        "finished": (TOKEN, separate),
        "space": (TOKEN, [*sources, "--repo", SPACE]),
        "merge": (TOKEN, [*sources, *kept, "--private", "--merge", *both]),
        "riffusion": (TOKEN, [*sources, "--merge", both[0], "some/riffusion"]),
    }
    run_python(hub, folder / "home", COMMANDS, json.dumps(commands), str(folder / "results.json"))
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    "command, parts",
    [
        ("wrong token", ["does not know the token", "`tester`", "hf auth login"]),
        ("no token", ["no token", "`tester`", "hf auth login"]),
        ("missing repo", ["`merge`", "no repo `some/missing`", "Check the name"]),
        ("missing audio repo", ["`merge`", "no repo `some/missing`", "Check the name"]),
        ("gated repo", ["`some/gated` is gated", "accept its licence at"]),
        ("does not load", ["images-that-sound does not load in a fresh process", "gone.py"]),
        ("broken", ["`tester/images-that-sound-embedded`", "run the same command again"]),
    ],
)
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(results, command, parts):
    error = results[command][1]
    assert error.startswith("error: ") and "\n" not in error
    for part in parts:
        assert part in error


def test_a_namespace_of_somebody_else(hub):
    with pytest.raises(ValueError, match="`another/images-that-sound`. Check the namespace, .* right to write"):
        with hub_errors("another/images-that-sound"):
            HfApi(hub.address, token=TOKEN).create_repo("another/images-that-sound", exist_ok=True)


def test_a_dry_run_shows_the_files_and_sends_none(results):
    printed, error = results["dry run"]
    assert error is None
    assert "unet_audio/diffusion_pytorch_model.safetensors" in printed
    assert "loads in a fresh process" in printed and "http" not in printed


def test_a_rerun_finishes_a_broken_upload_and_sends_nothing_twice(hub, results):
    assert results["finished"][1] is None
    assert len(hub.received) == len(set(hub.received))
    for name in (*CODE_REPOS, "images-that-sound-embedded", "images-that-sound-merged"):
        repo = hub.repos[f"tester/{name}"]
        assert len(repo.commits) == (4 if name == "images-that-sound" else 2), name
        assert repo.refs[revision()] == repo.refs["main"]
        assert repo.private == (name == "images-that-sound-merged")


def test_code_that_went_away_is_deleted_and_nothing_else(hub, results):
    files = hub.repos["tester/images-that-sound"].files
    assert "gone_from_the_sources.py" not in files and files["notes.md"] == b"kept"


def test_every_repo_loads_by_its_name(hub, results, tmp_path):
    run_python(hub, tmp_path / "home", LOAD, revision())


def test_a_merged_repo_holds_shared_parts_once_and_the_stricter_licence(hub, results):
    assert results["merge"][1] is None
    files = hub.repos["tester/images-that-sound-merged"].files
    index = json.loads(files["model_index.json"])
    assert index["_class_name"] == ["pipeline_images_that_sound", "ImagesThatSoundPipeline"]
    pipe_parts = {path.split("/")[0] for path in files if "/" in path}
    for name in ("vae_audio", "text_encoder_audio"):
        assert (index[name] == [None, None]) == (name not in pipe_parts)
    assert not [path for path in files if path.endswith((".bin", ".pt", ".ckpt"))]
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert card.data.base_model == ["some/stable-diffusion", "some/auffusion"]
    assert card.data.base_model_relation == "merge"


@pytest.mark.parametrize("name", CODE_REPOS)
def test_repos_of_code_are_flat_and_their_cards_complete(hub, results, name):
    files = hub.repos[f"tester/{name}"].files
    assert {"pipeline.py", "README.md", "LICENSE"} < set(files) and not [path for path in files if "/" in path]
    text = files["README.md"].decode()
    assert ModelCard(text).data.license == "apache-2.0"
    assert f'custom_pipeline="tester/{name}",' in text and f'custom_revision="{revision()}",' in text
    for path in files:
        assert path.endswith((".py", ".png", ".wav")) or path in OTHER_FILES
    assert any(f"]({path})" in text for path in files if path.endswith(".wav"))


def test_the_space_installs_the_package_from_its_own_repo(hub, results, tmp_path):
    assert results["space"][1] is None
    files = hub.repos[f"tester/{SPACE}"].files
    (wheel,) = (path for path in files if path.endswith(".whl"))
    examples = {f"examples/{file.name}" for file in (ROOT / "demo" / "examples").iterdir()}
    code = {file.name for file in (ROOT / "demo").glob("*.py")}
    assert {"app.py", "studio.py"} <= code
    assert {"README.md", *code, "requirements.txt", wheel, ".gitattributes", *examples} == set(files)
    address = files["requirements.txt"].decode().split(" @ ")[1].strip()
    assert address == f"{hub.address}/spaces/tester/{SPACE}/resolve/main/{wheel}"
    write_wheel(parse_args(["--namespace", "tester", "--source_dir", str(ROOT)]), tmp_path)
    assert (tmp_path / wheel).read_bytes() == files[wheel], "the same sources make the same wheel at any time"
    (tmp_path / "package.zip").write_bytes(urllib.request.urlopen(address).read())
    names = zipfile.ZipFile(tmp_path / "package.zip").namelist()
    for folder in ("pipelines", "schedulers", "selection", "scripts", "embedded", "embedded_colorization"):
        assert any(name.startswith(f"images_that_sound/{folder}/") for name in names)
    assert "images_that_sound/embedded_controlnet/diffusion_pytorch_model.safetensors" in names
    metadata = SpaceCard(files["README.md"].decode()).data
    assert metadata["app_file"] in files and "tester/images-that-sound-embedded" in metadata["models"]
    assert f"gradio=={metadata['sdk_version']}" in (ROOT / "constraints.txt").read_text()


def test_names_of_code_collide_nowhere(hub, results):
    contents = {}
    for name in (*CODE_REPOS, "images-that-sound-embedded"):
        for path, content in hub.repos[f"tester/{name}"].files.items():
            if path.endswith(".py") and path != "pipeline.py":
                assert path.startswith(("images_that_sound_", "pipeline_"))
                assert contents.setdefault(path, content) == content


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--namespace", "no/name"], "`namespace` has to be a name of the Hub"),
        (["--source_dir", str(MODELS)], "`source_dir` has to be a clone of this project"),
        (["--merge", "one", "two", "--repo", "images-that-sound"], "`merge` and `repo` exclude each other"),
        (["--private", "--repo", SPACE], "`private` is not for images-that-sound-demo"),
        (["--output_dir", __file__], "`output_dir` needs a folder that can be written to"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    args = parse_args(["--namespace", "tester", "--dry_run", "--source_dir", str(ROOT), *arguments])
    with pytest.raises(ValueError, match=message):
        next(publish(args))


@pytest.mark.parametrize(
    "code, reason", [("import os; os.kill(os.getpid(), 9)", "ended by signal 9"), ("import os; os._exit(3)", "code 3")]
)
def test_a_check_that_is_killed_is_said(tmp_path, code, reason):
    folder = tmp_path / MAIN_REPO
    folder.mkdir()
    (folder / "pipeline.py").write_text(code)
    with pytest.raises(ValueError, match=f"images-that-sound does not load in a fresh process: .*{reason}"):
        check_loading([folder])


@pytest.mark.parametrize("name", [*WEIGHT_REPOS, *MODEL_REPOS])
def test_a_repo_without_its_weights_is_refused(tmp_path, name):
    (tmp_path / "model_cards" / name).mkdir(parents=True)
    (tmp_path / "model_cards" / name / "README.md").write_text(CARD.format("apache-2.0"))
    args = ["--namespace", "tester", "--dry_run", "--source_dir", str(tmp_path), "--repo", name]
    with pytest.raises(ValueError, match=f"`repo` {name} has no card or no weights yet"):
        next(publish(parse_args(args)))


def test_a_card_that_names_a_missing_file_is_refused_and_leaves_nothing(tmp_path):
    folder = tmp_path / "model_cards" / "images-that-sound"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n[hear it](gone.wav)\n")
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    args = ["--namespace", "tester", "--dry_run", "--source_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"names gone\.wav, which is not there"):
        next(publish(parse_args(args)))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "image, audio, given, expected",
    [
        ("creativeml-openrail-m", "cc-by-nc-sa-4.0", None, "cc-by-nc-sa-4.0"),
        ("cc-by-nc-sa-4.0", "mit", None, "cc-by-nc-sa-4.0"),
        ("mit", "apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", None, "mit", "cc-by-nc-4.0"),
        ("mit", "other", None, "`license` has to be given"),
        (None, "mit", None, "`license` has to be given"),
    ],
)
def test_the_stricter_licence(tmp_path, image, audio, given, expected):
    sides = []
    for side, license in (("image", image), ("audio", audio)):
        (tmp_path / side).mkdir()
        sides.append(str(tmp_path / side))
        if license is not None:
            (tmp_path / side / "README.md").write_text(CARD.format(license))
    more = [] if given is None else ["--license", given]
    args = parse_args(["--namespace", "tester", "--merge", *sides, *more])
    if expected.startswith("`"):
        with pytest.raises(ValueError, match=expected):
            stricter_license(args)
    else:
        assert stricter_license(args) == expected


def test_a_merged_repo_with_riffusion(hub, results):
    assert results["riffusion"][1] is None
    files = hub.repos[f"tester/{RIFFUSION_REPO}"].files
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "creativeml-openrail-m" and "black ink" in card.text
    index = json.loads(files["model_index.json"])
    assert index["spectrogram"]["black_is_loud"] and index["default_arguments"]["width"] == 512
    assert index["vae_audio"] == index["vocoder"] == [None, None]


def test_each_published_repo_has_a_folder_of_its_name():
    assert {folder.name for folder in (ROOT / "model_cards").iterdir()} == set(CLASSES)
    assert set(WEIGHT_REPOS) < set(PIPELINES)


def shortened(files: dict[str, bytes], width: int) -> dict[str, bytes]:
    """A repo whose calls are short, and whose pictures are small."""
    changed = {}
    for name in ("model_index.json", "modular_model_index.json"):
        if name in files:
            index = json.loads(files[name])
            arguments = {**(index.get("default_arguments") or {}), **SHORT, "width": width}
            changed[name] = json.dumps({**index, "default_arguments": arguments}).encode()
    if "castle.png" in files:
        picture = PIL.Image.open(io.BytesIO(files["castle.png"])).resize((64, 16))
        picture.save(buffer := io.BytesIO(), "png")
        changed["castle.png"] = buffer.getvalue()
    return {**files, **changed}


@pytest.mark.parametrize("name", CLASSES)
def test_metadata_and_text_of_cards(hub, results, name):
    text = hub.repos[f"tester/{name}"].files["README.md"].decode()
    data = ModelCard(text).data
    adapters = (*CODE_REPOS, *MODEL_REPOS)
    relation = "merge" if name in (MERGED_REPO, RIFFUSION_REPO) else "adapter" if name in adapters else None
    assert data.get("base_model_relation") == relation and bool(data.base_model) == bool(relation)
    assert (
        (data.library_name, data.language) == ("diffusers", "en") and data.license and data.pipeline_tag and data.tags
    )
    # One card holds the method's entry; the others link to it.
    cited = "@inproceedings{chen2024images" if name == "images-that-sound" else "Cite the method as the card of"
    for part in ("## Bias, risks and misuse", "## Licence", "## Source", cited):
        assert f"\n{part}" in text
    # Of a measured table's row the name and the number as they stand there.
    results = data.eval_results or []
    assert bool(results) == (name in (*WEIGHT_REPOS, *MODEL_REPOS))
    for result in results:
        assert re.search(rf"^\| {re.escape(result.metric_name)} \| {result.metric_value}[% ]", text, re.MULTILINE)
        assert result.source_url == f"https://huggingface.co/tester/{name}#measured" and result.dataset_name


def anchors_of(text: str) -> set[str]:
    headings = re.findall("^#+ (.+)$", text, re.MULTILINE)
    return {"", *(re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings)}


@pytest.mark.parametrize("name", (*CLASSES, SPACE))
def test_links_of_cards_lead_somewhere(hub, results, name):
    files = hub.repos[f"tester/{name}"].files
    text = files["README.md"].decode()
    assert not re.search(r"\{(namespace|revision|version)\}|\.\./|model_cards/", text)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        assert link in files or link.startswith(
            ("https://huggingface.co/", "https://arxiv.org/abs/", "https://github.com/")
        )
    for repo, path in re.findall(r"https://huggingface\.co/(?:spaces/)?(tester/[\w-]+)([^\s)]*)", text):
        page, _, anchor = path.partition("#")
        there = hub.repos[repo].files
        assert page == "" or page.removeprefix(f"/resolve/{revision()}/") in there
        assert anchor in anchors_of(there["README.md"].decode())


@pytest.mark.parametrize("name", CLASSES)
def test_the_install_line_of_cards_brings_what_is_imported(hub, results, name):
    files = hub.repos[f"tester/{name}"].files
    text = files["README.md"].decode()
    line = re.search("^pip install (.*diffusers.*)$", text, re.MULTILINE)[1]
    installed = {package.strip('"').split(">")[0] for package in line.split()}
    for code in (*SNIPPET.findall(text), *(files[path].decode() for path in files if path.endswith(".py"))):
        for node in ast.walk(ast.parse(code)):
            module = node.names[0].name if isinstance(node, ast.Import) else getattr(node, "module", None)
            if module and not getattr(node, "level", 0):
                top = module.split(".")[0]
                assert top in {*sys.stdlib_module_names, *installed, *BROUGHT}, module
    assert ("DeepFloyd/IF-I" not in "".join(SNIPPET.findall(text))) or {"sentencepiece", "protobuf"} < installed


@pytest.fixture(scope="module")
def run_snippets(hub, results, tmp_path_factory):
    """
    Runs the snippets of a card in a fresh process that knows a Hub with what was published and, in the places of the
    real models, small ones.
    """
    server = LoopbackHub({TOKEN: "tester"})
    for name, folder in STAND_INS.items():
        server.put(name, MODELS / folder)
    for name, repo in {
        **server.repos,
        **{f"tester/{name}": hub.repos[f"tester/{name}"] for name in CLASSES},
    }.items():
        pixels = name.startswith("DeepFloyd/")
        files = repo.files if "embedded" in name else shortened(repo.files, width=256 if pixels else 64)
        if pixels:
            files = {path.replace(".safetensors", ".fp16.safetensors"): files[path] for path in files}
        server.repos[name] = HubRepo()
        server.repos[name].refs[revision()] = server.repos[name].commit(files)
    folder = tmp_path_factory.mktemp("snippets")
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
    processes = FreshProcesses(folder, {**environment, "HF_TOKEN": TOKEN, "no_proxy": "127.0.0.1"})

    def run(name: str, more: str = "") -> Path:
        card = server.repos[f"tester/{name}"].files["README.md"].decode()
        (folder / name).mkdir()
        code = "\n".join([WITHOUT_PACKAGE, *SNIPPET.findall(card), more])
        process = processes(code, directory=folder / name)
        assert process.returncode == 0, process.stderr
        return folder / name

    yield run
    processes.close()
    server.shutdown()


LOAD_CODE_REPO = """
try:
    DiffusionPipeline.from_pretrained("tester/images-that-sound", trust_remote_code=True)
except EnvironmentError as error:
    assert "Entry Not Found" in str(error) and "model_index.json" in str(error), error
else:
    raise SystemExit("The card says that it stops.")
"""


def test_snippets_of_the_code(run_snippets):
    folder = run_snippets("images-that-sound", LOAD_CODE_REPO)
    assert PIL.Image.open(folder / "picture.png").size == (32, 256)
    rate, sound = wavfile.read(folder / "sound.wav")
    assert rate == 16000 and sound.shape == (32 * 160,)


@pytest.mark.parametrize(
    "name, file, size",
    [
        ("images-that-sound-img2img", "picture.png", (32, 256)),
        ("images-that-sound-imprint", "canvas.png", (32, 256)),
        ("images-that-sound-colorization", "color.png", (64, 16)),
        (MERGED_REPO, "picture.png", (32, 256)),
        pytest.param("images-that-sound-embedded-controlnet", "picture.png", (512, 128), marks=pytest.mark.slow),
        pytest.param(RIFFUSION_REPO, "picture.png", (64, 512), marks=pytest.mark.slow),
        pytest.param("images-that-sound-sds", "picture.png", (224, 256), marks=pytest.mark.slow),
        pytest.param("images-that-sound-embedded-colorization", "color.png", (512, 128), marks=pytest.mark.slow),
    ],
)
def test_snippets_of_other_cards(run_snippets, name, file, size):
    assert PIL.Image.open(run_snippets(name) / file).size == size


@pytest.mark.slow
def test_the_snippet_of_the_embedded_checkpoint_makes_the_picture_of_its_card(hub, run_snippets):
    folder = run_snippets("images-that-sound-embedded")
    shown = hub.repos["tester/images-that-sound-embedded"].files["castle.png"]
    pictures = [np.asarray(PIL.Image.open(file), int) for file in (io.BytesIO(shown), folder / "picture.png")]
    assert abs(pictures[0] - pictures[1]).mean() < 1
