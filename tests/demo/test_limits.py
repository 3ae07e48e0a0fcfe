"""What a visitor of the page may ask of the machine, in whatever way, and what is left of it in the end."""

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

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
    "seed": 6,
    "num_candidates": 1,
}


# What the page's parts hold besides: nothing to begin with, and places of what the server keeps itself.
BEGUN = [None, None, "words", None, None, "repeat", False, None, "all", None]
BESIDES = {"begin": BEGUN, "make": [None, None]}


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
        for name in ("app", "studio"):
            sys.modules.pop(name, None)


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


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM")
def test_a_page_that_is_terminated_at_work_leaves_nothing(tmp_path, served):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    env.pop("GRADIO_TEMP_DIR", None)
    command = [sys.executable, DEMO / "app.py", "--server_port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    other = Served(served.page, f"http://127.0.0.1:{port}/")
    try:
        while other.get("info") is None:
            assert process.poll() is None
            time.sleep(0.5)
        for asked in (ASKED, {**ASKED, "num_inference_steps": 200, "num_candidates": 8}):
            other.join("make", [*asked.values(), None, None], "visitor")
        assert other.outcome("visitor")["success"]
        assert files_in(tmp_path)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert not files_in(tmp_path)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
