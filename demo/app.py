"""
The page on which two prompts become one image that sounds.

`python demo/app.py` serves it with the embedded checkpoint, without a network. `--model` and `--audio_model` name
other models, and so do the environment variables MODEL, AUDIO_MODEL and DTYPE, which are a Space's variables.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace


# As the commands do, before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import gradio as gr
import PIL.Image
from bounds import MAX_PIXELS_OF, MAX_UPLOAD, MAX_VISITORS, MAX_WAITING, SmallRequests, check_port
from handlers import Handlers
from layout import START_STRENGTH, STYLE, lay_out
from starlette.middleware import Middleware
from studio import Studio

from images_that_sound.scripts.common.parsers import add_device_arguments, add_score_arguments
from images_that_sound.scripts.common.values import Models, Scores, values_of


# Events that decode what visitors send take turns, since each takes memory.
READING = {"concurrency_id": "reading", "concurrency_limit": 1}
# On a narrow page the result is below what asks for it.
TO_RESULT = """
() => {
  const result = document.querySelector("#result");
  if (innerWidth < 768 && !document.querySelector("#question")) {
    // Or there would be nothing below to scroll to.
    result.style.minHeight = "100vh";
    result.scrollIntoView({ behavior: "smooth" });
  }
}
"""
# Nothing holds the place of the result any longer once it is there.
RESULT_IS_THERE = '() => { document.querySelector("#result").style.minHeight = ""; }'
SCROLL = '() => { if (innerWidth < 768) document.querySelector("%s").scrollIntoView({ behavior: "smooth" }); }'
WITH_WIDTH = "(shape) => [shape, innerWidth < 768]"
CLICK_START = '() => document.querySelector("#start").click()'
DOWNLOAD = '() => setTimeout(() => document.querySelector("#mp4_file").click(), 300)'
CLOSE_MESSAGES = '() => document.querySelectorAll(".toast-close").forEach((button) => button.click())'
STOPPING = '() => ["Stopping …", { __type__: "update", interactive: false }]'
PLAY = '() => { (%s)(); setTimeout(() => document.querySelector("#player audio").play(), 300); }'


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MODEL", "embedded"), help="Default: %(default)s.")
    parser.add_argument("--audio_model", default=os.environ.get("AUDIO_MODEL"), help="Repo of the audio side.")
    add_score_arguments(parser)
    add_device_arguments(parser)
    parser.set_defaults(dtype=os.environ.get("DTYPE", "float32"))
    parser.add_argument("--server_port", type=int, help="Default: the first from 7860 on that is free.")
    return parser.parse_args(input_args)


def build(studio: Studio) -> gr.Blocks:
    """The page with its buttons at work."""
    page, parts = lay_out(studio)
    with page:
        handlers = Handlers(studio, parts)
        connect(parts, handlers, studio)
        # Made in this visit, before the page was loaded again.
        resumed = [parts.runs, parts.visit, parts.history]
        board = [parts.layout, parts.narrow]
        page.load(handlers.new_board, board, parts.drawing, js=WITH_WIDTH, queue=False, api_visibility="private")
        page.load(handlers.resume, parts.kept, resumed, queue=False, show_progress="hidden", api_visibility="private")
    # Without `api_open=False`, requests of their own would get round the queue.
    return page.queue(max_size=MAX_WAITING, api_open=False)


def connect(parts: SimpleNamespace, handlers: Handlers, studio: Studio) -> None:
    """Connects the events of the page with their handlers."""
    asking, starting, results, views = handlers.asking, handlers.starting, handlers.results, handlers.views
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    to_prompt, to_result = SCROLL % "#prompt", SCROLL % "#result"
    parts.paint_button.click(handlers.paint, parts.current, parts.colors, api_visibility="private")
    parts.film_button.click(handlers.film, parts.current, parts.video, api_visibility="private")
    filmed = parts.mp4.click(handlers.film, parts.current, parts.mp4_file, api_visibility="private")
    filmed.success(None, js=DOWNLOAD)
    parts.unpaint.click(studio.unwanted.add, parts.current, queue=False, **quiet)
    presses = [parts.start.click, parts.prompt.submit, parts.audio_prompt.submit]
    # The first, since each function of an event waits for those before it: it must not close a message of the others.
    gr.on(presses, None, js=CLOSE_MESSAGES)
    asked = gr.on(
        presses,
        handlers.begin,
        [*asking, parts.keep, parts.current, *starting],
        [*results, parts.files, parts.like, parts.seed, parts.start, parts.stop, parts.question],
        **READING,
        **quiet,
    )
    made = [parts.runs, parts.visit, parts.history, parts.kept, parts.start, parts.stop, *results]
    work = asked.success(handlers.make, [*asking, parts.files, parts.runs], made, **quiet)
    work.then(None, js=RESULT_IS_THERE)
    asked.success(None, js=TO_RESULT)
    # Said by the page, since an answer may come after the last word of the run.
    parts.stop.click(None, None, [parts.status, parts.stop], js=STOPPING)
    parts.stop.click(handlers.cease, queue=False, **quiet)
    parts.more.click(handlers.again, parts.current, [*asking, parts.like], **quiet).success(None, js=CLICK_START)
    parts.repaint.click(handlers.marking, parts.current, [*asking, *starting], **quiet).success(None, js=to_prompt)
    offered = [parts.drawn, parts.pictured, parts.sounded, parts.strength]
    parts.begins.change(handlers.open_start, parts.begins, offered, queue=False, **quiet)
    parts.scenes.change(handlers.open_scenes, parts.scenes, parts.scene_rows, queue=False, **quiet)
    timed = [parts.seconds, parts.count]
    parts.scenes.input(handlers.time_scenes, [parts.scenes, parts.count], timed, queue=False, **quiet)
    # A strength that repainting set is not for the next picture or sound.
    for choice in (parts.begins.input, parts.picture.upload, parts.sound.upload):
        choice(None, None, parts.strength, js=f"() => {START_STRENGTH}")
    # By the page, or a click that follows at once would come first.
    parts.seed.input(None, None, parts.keep, js="() => true")
    for known, words in ((parts.known, parts.prompt), (parts.audio_known, parts.audio_prompt)):
        # A list that is left without a choice says so, too.
        known.input(lambda text: gr.skip() if text is None else text, known, words, queue=False, **quiet)
    connect_pictures(parts, handlers, quiet)
    laid_by = [parts.picture, parts.resize_mode, parts.swap, parts.anew, parts.seconds, parts.layout, parts.loop]
    changes = [each.change for each in laid_by]
    gr.on(changes, handlers.lay, laid_by, parts.canvas, trigger_mode="always_last", **READING, **quiet)
    parts.layout.change(handlers.new_board, [parts.layout, parts.narrow], parts.drawing, js=WITH_WIDTH, **quiet)
    parts.gallery.select(handlers.pick, parts.folders, views, **quiet)
    parts.history.select(handlers.recall, parts.runs, results, **quiet).success(None, js=to_result)
    examples = [parts.prompt, parts.audio_prompt, parts.scenes, parts.seconds, parts.seed, *results]
    parts.chosen.select(handlers.take, None, examples, **quiet).success(None, js=PLAY % to_result)


def connect_pictures(parts: SimpleNamespace, handlers: Handlers, quiet: dict) -> None:
    """Connects the pictures that visitors bring: shown at once, hidden at once, painted at a press."""
    p = parts
    inputs = [p.hide_picture, p.hide_swap, p.hide_sound, p.hide_start, p.hide_strength, p.hidden]
    outputs = [p.hidden, p.hide_status, p.hide_player, p.hide_downloads, p.hide_file, p.hide_png]
    hiding = (handlers.hide, inputs, outputs)
    for prefix in ("", "hide_", "imprint_"):
        picture, seen, swap = (getattr(p, f"{prefix}{name}") for name in ("picture", "seen", "swap"))
        looked = picture.change(handlers.look, picture, [swap, seen], **READING, **quiet)
        turned = swap.input(handlers.turn, [picture, swap], seen, **READING, **quiet)
        if prefix == "hide_":
            looked.success(*hiding, trigger_mode="always_last", api_visibility="private")
            turned.success(*hiding, trigger_mode="always_last", api_visibility="private")
    changes = [p.hide_sound.change, p.hide_start.change, p.hide_strength.release]
    gr.on(changes, *hiding, trigger_mode="always_last", api_visibility="private")
    inputs = [p.imprint_picture, p.imprint_swap, p.imprint_prompt, p.imprint_ratio, p.imprinted]
    outputs = [p.imprinted, p.imprint_status, p.imprint_player, p.imprint_downloads, p.imprint_png, p.imprint_wav]
    outputs += [p.imprint_start, p.imprint_stop]
    p.imprint_start.click(handlers.imprint, inputs, outputs, api_visibility="private")
    p.imprint_stop.click(None, None, [p.imprint_status, p.imprint_stop], js=STOPPING)
    p.imprint_stop.click(handlers.cease_imprint, queue=False, **quiet)


def launch(page: gr.Blocks, **kwargs: int | bool | None) -> None:
    """Serves the page, with bounds on what is sent to it."""
    bounds = {"max_file_size": MAX_UPLOAD, "state_session_capacity": MAX_VISITORS}
    bounds["app_kwargs"] = {"middleware": [Middleware(SmallRequests)]}
    page.launch(show_error=True, css=STYLE, footer_links=["gradio", "settings"], **bounds, **kwargs)


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    PIL.Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS_OF.values())
    # Temporary files are removed when a terminal is closed, too.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(dir=os.environ.get("GRADIO_TEMP_DIR")) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            # Before the models are loaded, which takes long.
            check_port(args.server_port)
            studio = Studio(values_of(Models, args), values_of(Scores, args), Path(folder))
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        page = build(studio)
        try:
            launch(page, server_port=args.server_port)
        finally:
            # Torch aborts a process that ends while it is at work in another thread.
            studio.close()
            page.close()


if __name__ == "__main__":
    main()
