"""What a visitor of the page may ask of the machine, in whatever way, and what is left of it in the end."""

import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from images_that_sound.scripts.common.values import Models, Scores


DEMO = Path(__file__).parents[2] / "demo"
ASKED = {
    "prompt": "a painting of castle towers, grayscale",
    "audio_prompt": "bell ringing",
    "audio_weight": 0.5,
    "guidance_scale": 10,
    "audio_guidance_scale": 10,
    "num_inference_steps": 5,
    "audio_length_in_s": 5.12,
    "canvas_layout": "strip",
    "strength": 0.7,
    "circular": False,
    "scenes": 1,
    # Second, picture and sound of each.
    **{f"scene {i} {name}": None for i in range(2, 7) for name in ("begins", "prompt", "audio_prompt")},
    "seed": 6,
    "num_candidates": 1,
}


SECOND = {"scenes": 2, "scene 2 begins": 6, "scene 2 prompt": "kittens", "audio_length_in_s": 12}
# What the page's parts hold besides: nothing to begin with, and places of what the server keeps itself.
BEGUN = {
    **{
        "keep": True,
        "current": None,
        "like": None,
        "begins": "words",
        "drawing": None,
        "board_mode": "repeat",
        "picture": None,
        "resize_mode": "repeat",
    },
    **{"swap": False, "canvas": None, "anew": "all", "sound": None, "sound_start": 0, "sound_length": 5},
}
BESIDES = {"begin": list(BEGUN.values()), "make": [None, None]}


@pytest.fixture(scope="module")
def demo():
    """The modules of the demo, whose folder is no package."""
    sys.path.insert(0, str(DEMO))
    try:
        import app
        import studio

        yield app, studio
    finally:
        sys.path.remove(str(DEMO))
        for file in DEMO.glob("*.py"):
            sys.modules.pop(file.stem, None)


@pytest.fixture(scope="module")
def studio(demo, tmp_path_factory):
    return demo[1].Studio(Models(device="cpu"), Scores(scores=["clip", "clap"]), tmp_path_factory.mktemp("runs"))


# Instead of a status, where the connection ended before there was one.
CUT_OFF = 0


class Served:
    """The page, spoken to without a browser."""

    def __init__(self, page, address: str) -> None:
        self.address = f"{address}gradio_api/"
        self.page, self.numbers = page, {function.api_name: number for number, function in page.fns.items()}

    def get(self, path: str) -> bytes | None:
        """What is there; `None` where nobody answers."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=60) as answer:
                return answer.read()
        except OSError:
            return None

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(self.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError as error:
            # A server may answer and hang up before a body that it refuses is sent.
            if not isinstance(error.reason, (BrokenPipeError, ConnectionResetError)):
                raise
            return CUT_OFF, ""

    def join(self, function: str, data: list, session: str) -> tuple[int, str]:
        """Asks for a function of the page as the page's own script does."""
        body = {"data": data, "fn_index": self.numbers[function], "session_hash": session}
        return self.post("queue/join", json.dumps(body).encode(), **{"Content-Type": "application/json"})

    def outcome(self, session: str) -> dict:
        """The last message to a visitor who has asked for one thing."""
        with urllib.request.urlopen(f"{self.address}queue/data?session_hash={session}", timeout=120) as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data: ")) if line.strip() else {}
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("no outcome")


@pytest.fixture(scope="module")
def served(demo, studio):
    page = demo[0].build(studio)
    demo[0].launch(page, prevent_thread_lock=True, quiet=True)
    yield Served(page, page.local_url)
    page.close(verbose=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": " "},
        {"audio_prompt": None},
        {"prompt": "tower " * 100},
        {"seed": -1},
        {"seed": None},
        {"seed": 2**53},
        {"num_candidates": 1.5},
        {"num_candidates": 9},
        {"num_candidates": 7, "audio_length_in_s": 9},
        {"scenes": 7},
        {"scenes": 1.5},
        {"scenes": 2},
        {**SECOND, "scene 2 prompt": "kitten " * 100},
        {**SECOND, "scene 2 prompt": ["kitten"]},
        {**SECOND, "scene 2 begins": 12},
        {**SECOND, "scene 2 begins": 0},
        {**SECOND, "scene 2 begins": math.nan},
        {**SECOND, "audio_length_in_s": 5},
        {**SECOND, "canvas_layout": "folded"},
        {"circular": True, "audio_length_in_s": 5},
        {"circular": True, "canvas_layout": "folded"},
        {"num_inference_steps": math.nan},
        {"num_inference_steps": 201},
        {"audio_weight": math.nan},
        {"guidance_scale": 1e30},
        {"audio_guidance_scale": None},
        {"audio_length_in_s": 3600},
        {"canvas_layout": "ring"},
        {"strength": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("function", ["begin", "make"])
def test_button_and_run_refuse_the_same(served, studio, function, wrong):
    session = f"{function}-{time.monotonic_ns()}"
    code, answer = served.join(function, [*{**ASKED, **wrong}.values(), *BESIDES[function]], session)
    assert code == 200, answer
    outcome = served.outcome(session)
    assert not outcome["success"] and outcome["output"]["error"], outcome
    assert not list(studio.folder.iterdir())


def test_the_queue_ends(demo, served, studio):
    with studio.lock:
        asked = [
            served.join("make", [*ASKED.values(), None, None], f"visitor-{i}") for i in range(demo[0].MAX_WAITING + 4)
        ]
    codes = [code for code, _ in asked]
    # Some are at work or on their way to it.
    assert codes[: demo[0].MAX_WAITING] == [200] * demo[0].MAX_WAITING
    assert codes[-1] == 503 and "full" in asked[-1][1].lower()
    for i, (code, answer) in enumerate(asked):
        if code == 200:
            own = {"session_hash": f"visitor-{i}", "fn_index": served.numbers["make"]}
            event = json.loads(answer)["event_id"]
            served.post(
                "cancel", json.dumps({**own, "event_id": event}).encode(), **{"Content-Type": "application/json"}
            )


def test_nothing_gets_round_the_queue(served):
    body = json.dumps({"data": [*ASKED.values(), None, None]}).encode()
    code, _ = served.post("run/make", body, **{"Content-Type": "application/json"})
    assert code == 404


@pytest.mark.parametrize("path, most", [("upload", 20_000_000), ("component_server", 2_000_000)])
def test_what_is_uploaded_is_bounded(served, path, most):
    head = b'--part\r\nContent-Disposition: form-data; name="files"; filename="file.bin"\r\n\r\n'
    multipart = {"Content-Type": "multipart/form-data; boundary=part"}
    codes = {
        size: served.post(path, head + bytes(size) + b"\r\n--part--\r\n", **multipart)[0]
        for size in (1000, most + 200_000)
    }
    assert codes[1000] not in (413, CUT_OFF) and codes[most + 200_000] in (413, CUT_OFF)


def test_a_long_request_is_not_kept(served):
    assert served.join("film", ["x" * 200_000], "long")[0] in (413, CUT_OFF)


def uploaded(served, file: Path) -> dict:
    """A file as the page's parts name it, after it is uploaded."""
    head = b'--part\r\nContent-Disposition: form-data; name="files"; filename="file.png"\r\n\r\n'
    body = head + file.read_bytes() + b"\r\n--part--\r\n"
    code, answer = served.post("upload", body, **{"Content-Type": "multipart/form-data; boundary=part"})
    assert code == 200
    return {"path": json.loads(answer)[0], "meta": {"_type": "gradio.FileData"}}


def peak() -> int:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


@pytest.mark.parametrize("layers, updated", [(1, False), (16, False), (16, True)])
def test_layers_of_a_drawing_are_bounded_before_they_are_decoded(served, tmp_path, layers, updated):
    PIL.Image.new("1", (7900, 7900)).save(tmp_path / "huge.png")
    layer = uploaded(served, tmp_path / "huge.png")
    drawing = {"background": None, "layers": [layer] * layers, "composite": None, "id": None}
    before, session = peak(), f"layers-{layers}-{updated}"
    if updated:
        served.join("new_board", ["folded", False], session)
        assert served.outcome(session)["success"]
    begun = {**BEGUN, "begins": "drawing", "drawing": drawing}
    served.join("begin", [*ASKED.values(), *begun.values()], session)
    outcome = served.outcome(session)
    assert not outcome["success"] and "A drawing" in outcome["output"]["error"]
    assert peak() - before < 100


def test_editors_are_shown_with_their_size_and_brush(served):
    shown = {each["props"].get("elem_id"): each["props"] for each in served.page.get_config_file()["components"]}
    assert list(shown["drawing"]["canvas_size"]) == [1024, 256] and shown["drawing"]["layers"]["disabled"]
    assert shown["drawing"]["brush"]["colors"] == ["#ffffff"] and shown["canvas"]["brush"]["colors"] == ["#ff4040"]
    # Gradio writes one beside each component's class.
    assert not list(DEMO.glob("*.pyi"))


def test_a_misspelled_word_is_asked_about_once(served):
    prompts = {"prompt": "a painting of caste towers", "audio_prompt": "tiger roaring"}
    scene = {**SECOND, "scene 2 prompt": "a kiten"}
    for visitor, asked, said in (
        ("one", prompts, "? "),
        ("two", {**prompts, **scene}, " in scene 1, “kitten” for “kiten” in scene 2? "),
    ):
        outcomes = []
        for _ in range(2):
            served.join("begin", [*{**ASKED, **asked}.values(), *BEGUN.values()], visitor)
            outcomes.append(served.outcome(visitor))
        asking, going_on = (json.dumps(each["output"], ensure_ascii=False) for each in outcomes)
        assert all(each["success"] for each in outcomes)
        assert f"Did you mean “castle” for “caste”{said}" in asking and "Waiting for its turn" not in asking
        assert "Did you mean" not in going_on and "Waiting for its turn" in going_on


def test_a_layer_has_a_small_number(served):
    (editor,) = (number for number, each in served.page.blocks.items() if each.elem_id == "drawing")
    fields = {"session_hash": "x", "fn_name": "accept_blobs", "component_id": editor, "id": "x", "type": "layer"}
    parts = [f'name="{name}"\r\n\r\n{value}' for name, value in {**fields, "index": 10**8}.items()]
    parts.append('name="file"; filename="file.png"\r\n\r\nx')
    body = "".join(f"--part\r\nContent-Disposition: form-data; {each}\r\n" for each in parts) + "--part--\r\n"
    before = peak()
    code, _ = served.post("component_server", body.encode(), **{"Content-Type": "multipart/form-data; boundary=part"})
    assert code >= 400 and peak() - before < 100
    code, _ = served.post(
        "component_server",
        body.replace(str(10**8), "0").encode(),
        **{"Content-Type": "multipart/form-data; boundary=part"},
    )
    assert code == 200


@pytest.mark.parametrize(
    "name, mode, side", [("file.png", "RGBA", 4000), ("file.png", "I;16", 4000), ("file.jpg", "RGB", 7100)]
)
def test_a_large_picture_takes_little_memory(demo, tmp_path, name, mode, side):
    import bounds

    file = tmp_path / name
    PIL.Image.new(mode, (side, side)).save(file, compress_level=1)
    before = peak()
    bounds.read_visitors_picture(str(file), 0, True)
    # At rest the page holds less than 650 MB.
    assert peak() - before < 330


def test_a_long_sound_of_few_bytes_takes_little_memory(served, tmp_path):
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 96000, 8) as file:
        for _ in range(160):
            file.write(np.full((96000, 8), 0.5))
    assert (tmp_path / "long.flac").stat().st_size < 2_000_000
    sound = uploaded(served, tmp_path / "long.flac")
    before = peak()
    served.join("begin", [*ASKED.values(), *{**BEGUN, "begins": "sound", "sound": sound}.values()], "long")
    served.outcome("long")
    assert peak() - before < 150


def test_uploads_end_when_the_disk_is_full(demo, served, monkeypatch):
    import bounds

    monkeypatch.setattr(bounds, "MAX_STORED", bounds.stored() + 1_000_000)
    head = b'--part\r\nContent-Disposition: form-data; name="files"; filename="file.bin"\r\n\r\n'
    multipart = {"Content-Type": "multipart/form-data; boundary=part"}
    codes = [
        served.post("upload", head + bytes([i]) * 400_000 + b"\r\n--part--\r\n", **multipart)[0] for i in range(4)
    ]
    assert codes[:2] == [200, 200] and all(code in (507, CUT_OFF) for code in codes[2:])


def test_a_browser_is_given_only_what_it_can_name(demo, tmp_path):
    import views

    made = tmp_path / ("a" * 32) / "images-that-sound" / "seed-000006"
    made.mkdir(parents=True)
    (tmp_path / "private").mkdir()
    names = views.names_of([[made]], tmp_path)
    assert views.runs_of(names, tmp_path) == [[made]]
    foreign = [
        "../x",
        str(made),
        "private",
        f"{'a' * 32}/images-that-sound/..",
        f"{'b' * 32}/images-that-sound/seed-000006",
    ]
    for sent in (None, "runs", 3, [None], [[3]], [["\0"]], [foreign], {"a": 1}):
        assert views.runs_of(sent, tmp_path) == []


def test_an_aborted_upload_leaves_nothing(demo, served):
    import bounds

    before = bounds.stored()
    host, port = served.address.split("/")[2].split(":")
    head = b'--part\r\nContent-Disposition: form-data; name="files"; filename="file.bin"\r\n\r\n'
    with socket.create_connection((host, int(port))) as visitor:
        visitor.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=part\r\n\r\n" + head + bytes(2_000_000)
        )
        for _ in range(100):
            if bounds.stored() > before:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("nothing arrived")
    for _ in range(100):
        if bounds.stored() == before:
            return
        time.sleep(0.05)
    raise AssertionError("a part of it is left")


def test_a_used_port_is_found_before_the_models_are_loaded(demo, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        try:
            with pytest.raises(SystemExit, match="error: `server_port` "):
                demo[0].main(["--server_port", str(used.getsockname()[1]), "--model", "no such model"])
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)


# SIGTERM ends the page of the browser's tests.
@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGHUP")
def test_a_page_whose_terminal_is_closed_leaves_nothing(tmp_path, served):
    process, other = served_alone(served, tmp_path)
    try:
        for asked in (ASKED, {**ASKED, "num_inference_steps": 200}):
            other.join("make", [*asked.values(), None, None], "visitor")
        assert other.outcome("visitor")["success"]
        assert files_in(tmp_path)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert not files_in(tmp_path)


def served_alone(served, folder: Path) -> tuple[subprocess.Popen, Served]:
    """The page in a process of its own, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    env.pop("GRADIO_TEMP_DIR", None)
    command = [sys.executable, DEMO / "app.py", "--server_port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert any(b"Running on" in line for line in process.stdout)
    return process, Served(served.page, f"http://127.0.0.1:{port}/")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pictures_of_many_visitors_leave_the_page_below_a_gibibyte(served, tmp_path):
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (50, 50, 4), np.uint8), np.ones((80, 80, 1), np.uint8))
    picture = PIL.Image.fromarray(pixels)
    picture.save(tmp_path / "rgba.png")
    picture.convert("RGB").save(tmp_path / "rgb.png")
    picture.convert("RGB").quantize(64).save(tmp_path / "palette.png")
    picture.save(tmp_path / "rgba.tif", compression="tiff_deflate")
    picture.resize((2800, 2800)).save(tmp_path / "rgba.webp")
    picture.convert("RGB").resize((7100, 7100)).save(tmp_path / "rgb.jpg")
    PIL.Image.new("I;16", (4000, 4000)).save(tmp_path / "gray.png")
    files = sorted(tmp_path.iterdir())
    process, other = served_alone(served, tmp_path)
    try:
        pictures = [uploaded(other, file) for file in files]
        visitors = [f"visitor-{i}" for i in range(2 * len(pictures))]
        for visitor, uploads in zip(visitors, 2 * pictures):
            assert other.join("look", [uploads], visitor)[0] == 200
        assert all(other.outcome(visitor)["success"] for visitor in visitors)
        assert most_memory_of(process) < 2**30
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("num_candidates, seconds", [(6, 10), (1, 60)])
def test_the_largest_run_leaves_the_page_below_a_gibibyte(served, tmp_path, num_candidates, seconds):
    process, other = served_alone(served, tmp_path)
    try:
        asked = {**ASKED, "num_candidates": num_candidates, "audio_length_in_s": seconds}
        assert other.join("make", [*asked.values(), None, None], "visitor")[0] == 200
        assert other.outcome("visitor")["success"]
        assert most_memory_of(process) < 2**30
    finally:
        process.kill()
        process.communicate()


def most_memory_of(process: subprocess.Popen) -> int:
    """Bytes that a process had in memory at most."""
    return 1024 * int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0])


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
