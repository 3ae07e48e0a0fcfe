"""
The page on which two prompts become one image that sounds.

`python demo/app.py` serves it with the embedded checkpoint, without a network. `--model` and `--audio_model` name
other models, and so do the environment variables MODEL, AUDIO_MODEL and DTYPE, which are a Space's variables.
"""

import argparse
import base64
import io
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import PIL.Image
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from studio import (
    MAX_CANDIDATES,
    Studio,
    as_command,
    as_python,
    label_of,
    seeds_of,
    video_of,
)

from images_that_sound.pipelines.images_that_sound_checks import check_integer
from images_that_sound.scripts.common.arguments import (
    Models,
    Scores,
    add_device_arguments,
    add_score_arguments,
    values_of,
)
from images_that_sound.scripts.common.presets import GENERATE_PRESETS
from images_that_sound.scripts.common.samples import sample_settings


# Runs and other work that wait for their turn, of all visitors.
MAX_WAITING = 16
# Nothing is uploaded to this page, so that an upload may have no byte, and what it sends is a few numbers and words.
MAX_UPLOAD, MAX_REQUEST = 0, 100_000
INTRODUCTION = """
# Images that sound
One canvas, two prompts: it looks like the one and, played as a spectrogram, sounds like the other. Left to right is \
time, bottom to top is pitch, bright is loud. Few seeds succeed, so make several and keep the best.
"""
EMBEDDED_WORLD = """
*This page runs the small checkpoint that ships with the project. It knows the things and sounds of the examples, and \
ocean waves; of anything else it makes something, but not what you asked for.*
"""
PLAYER = """
<div class="canvas"><img src="${value.picture}" alt="the picture"><div class="playhead"></div></div>
${value.audio ? `<audio controls src="${value.audio}"></audio>` : ""}
${value.done ? `<progress value="${value.done}"></progress>` : ""}
"""
PLAYER_STYLE = """
.canvas { position: relative; cursor: pointer; overflow: hidden; border-radius: 6px; }
.canvas img { display: block; width: 100%; }
.playhead { position: absolute; top: 0; bottom: 0; left: 0; width: 3px; background: #ff4040; visibility: hidden; }
audio, progress { width: 100%; margin-top: 8px; accent-color: var(--color-accent); }
"""
STYLE = "#gallery .thumbnail-lg { aspect-ratio: 3; } #gallery .grid-wrap { min-height: 0; overflow: hidden; }"
# Its parts are drawn anew with each picture, so they are looked up at each frame.
PLAYER_SCRIPT = """
const follow = () => {
  const audio = element.querySelector("audio"), playhead = element.querySelector(".playhead");
  if (playhead && audio && audio.duration) {
    playhead.style.visibility = "visible";
    playhead.style.left = `${100 * audio.currentTime / audio.duration}%`;
  }
  requestAnimationFrame(follow);
};
follow();
element.addEventListener("click", (event) => {
  const audio = element.querySelector("audio"), canvas = event.target.closest(".canvas");
  if (audio && canvas) {
    const { left, width } = canvas.getBoundingClientRect();
    audio.currentTime = audio.duration * (event.clientX - left) / width;
    audio.play();
  }
});
"""


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
    """The page, and what its buttons do."""
    defaults = studio.pipe.default_arguments
    with gr.Blocks(title="Images that sound", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        # The samples of all runs of a visitor, of the last run, and the one that is shown.
        runs, folders, current = gr.State([], time_to_live=3600, delete_callback=remove), gr.State([]), gr.State()
        gr.Markdown(INTRODUCTION)
        if studio.models.model == "embedded":
            gr.Markdown(EMBEDDED_WORLD)
        with gr.Row():
            with gr.Column(scale=2):
                prompt = gr.Textbox(label="What to see", elem_id="prompt")
                audio_prompt = gr.Textbox(label="What to hear", elem_id="audio_prompt")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, elem_id="seed")
                    count = gr.Slider(1, MAX_CANDIDATES, 1, step=1, label="Candidates", elem_id="candidates")
                with gr.Accordion("Fine tuning", open=False, elem_id="tuning"):
                    weight = gr.Slider(0, 1, defaults["audio_weight"], step=0.05, label="Weight of the sound")
                    guidance = gr.Slider(1, 20, defaults["guidance_scale"], step=0.5, label="Guidance of the picture")
                    audio_guidance = gr.Slider(
                        1, 20, defaults["audio_guidance_scale"], step=0.5, label="Guidance of the sound"
                    )
                    steps = gr.Slider(5, 200, defaults["num_inference_steps"], step=1, label="Steps", elem_id="steps")
                with gr.Row():
                    start = gr.Button("Make it", variant="primary", elem_id="start")
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                examples = [[each["prompt"], each["audio_prompt"], each["seed"]] for each in GENERATE_PRESETS.values()]
                gr.Examples(examples, [prompt, audio_prompt, seed], examples_per_page=6, elem_id="examples")
            with gr.Column(scale=3):
                status = gr.Markdown("Choose an example, or type two prompts.", elem_id="status")
                player = gr.HTML(
                    on_the_way(PIL.Image.new("L", (defaults["width"], defaults["height"]), 24), 0),
                    html_template=PLAYER,
                    css_template=PLAYER_STYLE,
                    js_on_load=PLAYER_SCRIPT,
                    elem_id="player",
                )
                gallery = gr.Gallery(
                    show_label=False,
                    visible=False,
                    allow_preview=False,
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    elem_id="gallery",
                )
                shown_only = {"show_label": False, "interactive": False}
                image = {"type": "filepath", "format": "png", "buttons": ["download", "fullscreen"]}
                with gr.Tab("Pictures"):
                    picture = gr.Image(label="The picture", elem_id="picture", **image)
                    spectrogram = gr.Image(label="Its gray, which is played", elem_id="spectrogram", **image)
                with gr.Tab("Sound"):
                    sound = gr.Audio(
                        type="filepath", show_label=False, interactive=False, buttons=["download"], elem_id="sound"
                    )
                with gr.Tab("Video"):
                    video = gr.Video(buttons=["download"], elem_id="video", **shown_only)
                with gr.Tab("In colour"):
                    painting_button = gr.Button("Paint it", elem_id="paint")
                    colors = gr.Image(show_label=False, elem_id="colors", **image)
                with gr.Tab("Settings"):
                    code = {"wrap_lines": True, "show_line_numbers": False, "lines": 1}
                    command = gr.Code(label="As a command", language="shell", elem_id="command", **code)
                    python = gr.Code(label="In Python", language="python", elem_id="python", **code)

        def show(folder: Path) -> dict:
            """All about a sample but its video, which takes longest."""
            settings = sample_settings(folder)
            words = [f"**Seed {settings['seed']}.** Press play, or click into the picture."]
            words += [f"Something is off: {problem}." for problem in settings["problems"]]
            return {
                current: folder,
                status: " ".join(words),
                player: finished(folder),
                picture: folder / "image.png",
                spectrogram: folder / "spectrogram.png",
                sound: folder / "audio.wav",
                colors: studio.colors_of(folder),
                command: as_command(settings),
                python: as_python(settings, studio.models),
            }

        def read(*values: str | float | None) -> tuple[dict, list[int]]:
            *values, first_seed, num_candidates = values
            try:
                return studio.call_arguments(*values), seeds_of(first_seed, num_candidates)
            except ValueError as error:
                raise as_message(error) from error

        def begin(*values: str | float | None) -> dict:
            read(*values)
            nothing = dict.fromkeys((current, picture, spectrogram, sound, video, colors, command, python))
            waiting = {status: "Waiting for its turn …", stop: gr.Button(interactive=True)}
            return {**nothing, **waiting, folders: [], gallery: gr.Gallery(visible=False)}

        def make(*values: str | float | list[Path] | None) -> Iterator[dict]:
            *values, earlier = values
            arguments, seeds = read(*values)
            try:
                num_steps = arguments["num_inference_steps"]
                for done, preview, output in studio.denoise(arguments, seeds):
                    yield {status: f"Denoising: {done} of {num_steps} steps …"}
                    if output is None:
                        yield {player: on_the_way(preview, done / num_steps)}
                    else:
                        made = studio.write(arguments, seeds, output)
            except Exception as error:
                yield give_up("That did not work.")
                raise as_message(error) from error
            shown = show(made[0])
            if len(made) > 1:
                shown[status] += f" It is the best of {len(made)} by its scores; click another to see and hear that."
            shown |= {runs: [*earlier, *made], folders: made, gallery: candidates(made)}
            yield {**shown, stop: gr.Button(interactive=False)}

        def pick(made: list[Path], event: gr.SelectData) -> dict:
            try:
                return show(made[check_integer("index", event.index, least=0, most=len(made) - 1)])
            except ValueError as error:
                raise as_message(error) from error

        def film(folder: Path | None) -> Path | None:
            return folder and video_of(folder)

        def paint(folder: Path | None) -> Path:
            if folder is None:
                raise gr.Error("Make a picture first.", print_exception=False)
            try:
                return studio.colors(folder)
            except Exception as error:
                raise as_message(error) from error

        def give_up(words: str) -> dict:
            return {status: words, stop: gr.Button(interactive=False)}

        views = [current, status, player, picture, spectrogram, sound, colors, command, python]
        results = [folders, gallery, stop, *views]
        painting = painting_button.click(paint, current, colors)
        asking = [prompt, audio_prompt, weight, guidance, audio_guidance, steps, seed, count]
        asked = gr.on(
            [start.click, prompt.submit, audio_prompt.submit],
            begin,
            asking,
            [*results, video],
            cancels=[painting],
            concurrency_limit=None,
            show_progress="hidden",
        )
        running = asked.success(make, [*asking, runs], [runs, *results], show_progress="hidden")
        stop.click(lambda: give_up("Stopped."), outputs=[status, stop], cancels=[running], show_progress="hidden")
        gallery.select(pick, folders, views, cancels=[painting], show_progress="hidden")
        current.change(film, current, video, trigger_mode="always_last")
    # Without `api_open=False`, requests of their own would get round the queue.
    return page.queue(max_size=MAX_WAITING, api_open=False)


def as_message(error: Exception) -> gr.Error:
    """What the page says of an error; the log has the rest of those that the user can't mend."""
    return gr.Error(str(error), duration=None, print_exception=not isinstance(error, ValueError))


def on_the_way(picture: PIL.Image.Image, done: float) -> dict:
    """What the player shows when this share of the steps is done."""
    png = io.BytesIO()
    picture.save(png, "png")
    return {"picture": data_url("image/png", png.getvalue()), "audio": None, "done": done}


def finished(folder: Path) -> dict:
    """What the player shows and plays of a sample."""
    picture, audio = (folder / "image.png").read_bytes(), (folder / "audio.wav").read_bytes()
    return {"picture": data_url("image/png", picture), "audio": data_url("audio/wav", audio)}


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def candidates(made: list[Path]) -> gr.Gallery:
    """All candidates with their scores, where there are several."""
    if len(made) == 1:
        return gr.Gallery(visible=False)
    return gr.Gallery([(folder / "image.png", label_of(folder)) for folder in made], visible=True, selected_index=0)


def remove(folders: list[Path]) -> None:
    """Deletes the samples of a visitor who is gone."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class SmallRequests:
    """Middleware that refuses requests larger than any of the page's own, before they are read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        too_large = int(headers.get("content-length", 0)) > MAX_REQUEST or "transfer-encoding" in headers
        await (PlainTextResponse("Too large.", 413) if too_large else self.app)(scope, receive, send)


def launch(page: gr.Blocks, **kwargs: int | bool | None) -> None:
    """Serves the page, with bounds on what is sent to it."""
    bounds = {"max_file_size": MAX_UPLOAD, "app_kwargs": {"middleware": [Middleware(SmallRequests)]}}
    page.launch(show_error=True, css=STYLE, **bounds, **kwargs)


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    # So that what is temporary is removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(dir=os.environ.get("GRADIO_TEMP_DIR")) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            studio = Studio(values_of(Models, args), values_of(Scores, args), Path(folder))
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        page = build(studio)
        try:
            launch(page, server_port=args.server_port)
        finally:
            page.close()


if __name__ == "__main__":
    main()
