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


# As the commands do, before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import gradio as gr
import PIL.Image
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from studio import (
    BOUNDS,
    CALL_NAMES,
    MAX_CANDIDATES,
    MAX_PROMPT_LENGTH,
    Stopped,
    Studio,
    archive_of,
    as_command,
    as_python,
    files_of,
    label_of,
    picture_of,
    seeds_of,
    video_of,
)

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.parsers import add_device_arguments, add_score_arguments
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS, GENERATE_PRESETS
from images_that_sound.scripts.common.samples import sample_settings
from images_that_sound.scripts.common.values import Models, Scores, values_of
from images_that_sound.scripts.common.vocabulary import unknown_words


# Runs and other work that wait for their turn, of all visitors.
MAX_WAITING = 16
# Bytes of a picture or a sound that is uploaded, of what an editor sends, which is as large as its canvas, and of all
# else, which is a few numbers and words.
MAX_UPLOAD, MAX_EDITED, MAX_REQUEST = 20_000_000, 2_000_000, 100_000
# Of a picture, which takes memory by these, however few bytes it has.
MAX_PIXELS = 64_000_000
# Runs of a visit that are kept, the latest first.
MAX_RUNS = 12
INTRODUCTION = """
# Images that sound
One canvas, two prompts: it looks like the one and, played as a spectrogram, sounds like the other. Left to right is \
time, bottom to top is pitch, {loud} is loud. Few seeds succeed, so make several and keep the best.
"""
EMBEDDED_WORLD = """
*This page runs the small checkpoint that ships with the project. It knows the things and sounds of the examples, and \
ocean waves; of anything else it makes something, but not what you asked for.*
"""
BEGINNING = "Press “Make it”, choose an example, or type two prompts."
# A picture of each example by the embedded checkpoint.
EXAMPLES = Path(__file__).parent / "examples"
# A sample of that checkpoint, to see and hear at first.
EXAMPLE = (EMBEDDED / "castle.png", EMBEDDED / "castle.wav")
STARTS = [("words alone", "words"), ("a drawing", "drawing"), ("a picture", "picture"), ("a sound", "sound")]
RESIZE_MODES = [
    ("side by side, as often as it fits", "repeat"),
    ("once, in the middle", "center"),
    ("cropped", "crop"),
    ("stretched", "stretch"),
]
ANEW = [("all of it", "all"), ("what I mark", "marked"), ("all but what I mark", "unmarked")]
LAYOUTS = [("a strip, played once through", "strip"), ("a square, played in two rows", "folded")]
# Width and height of what one draws on.
BOARDS = {"strip": (1024, 256), "folded": (512, 512)}
PLAYER = """
<div class="canvas rows-${value.rows}"><img src="${value.picture}" alt="the picture"><div class="playhead"></div></div>
${value.audio ? `<audio controls src="${value.audio}"></audio>` : ""}
${value.done === null ? "" : `<progress value="${value.done}"></progress>`}
"""
PLAYER_STYLE = """
.canvas { position: relative; cursor: pointer; overflow: hidden; border-radius: 6px; }
.canvas.rows-2 { max-width: 480px; margin: auto; }
.canvas img { display: block; width: 100%; }
.playhead { position: absolute; width: 3px; background: #ff4040; visibility: hidden; }
audio, progress { width: 100%; margin-top: 8px; accent-color: var(--color-accent); }
"""
# Captions below the pictures instead of on them; as many columns as fit.
STYLE = """
.strips .grid-wrap { min-height: 0; max-height: none; overflow: hidden; padding: 0; }
.strips .grid-container {
  grid-template: none / repeat(auto-fill, minmax(var(--strip, 170px), 1fr)) !important;
  grid-auto-rows: auto !important; height: auto !important;
}
.strips .thumbnail-lg { aspect-ratio: auto; height: auto; display: flex; flex-direction: column; }
.strips .thumbnail-lg > img { aspect-ratio: 4; height: auto; object-fit: contain; background: black; }
.strips .caption-label {
  position: static; max-width: 100%; padding: 4px 6px; border: 0; background: none; white-space: normal;
}
.dark #player audio { color-scheme: dark; }
#gallery { --strip: 260px; }
@media (max-width: 600px) { #gallery { --strip: 140px; } .strips { --strip: 140px; } }
"""
# On a narrow page the result is below what asks for it.
TO_RESULT = """
() => {
  const result = document.querySelector("#result");
  if (innerWidth < 768) {
    // Or there would be nothing below to scroll to.
    result.style.minHeight = "100vh";
    result.scrollIntoView({ behavior: "smooth" });
  }
}
"""
# Nothing holds the place of the result any longer once it is there.
RESULT_IS_THERE = '() => { document.querySelector("#result").style.minHeight = ""; }'
SCROLL = '() => { if (innerWidth < 768) document.querySelector("%s").scrollIntoView({ behavior: "smooth" }); }'
CLICK_START = '() => document.querySelector("#start").click()'
RANDOM_SEED = "() => Math.floor(Math.random() * 1000000)"
# Its parts are drawn anew with each picture, so they are looked up at each frame.
PLAYER_SCRIPT = """
const follow = () => {
  const audio = element.querySelector("audio"), playhead = element.querySelector(".playhead");
  if (playhead && audio && audio.duration) {
    const rows = element.querySelector(".rows-2") ? 2 : 1, place = rows * audio.currentTime / audio.duration;
    const row = Math.min(Math.floor(place), rows - 1);
    Object.assign(playhead.style, {
      visibility: "visible", left: `${100 * (place - row)}%`, top: `${100 * row / rows}%`, height: `${100 / rows}%`,
    });
  }
  requestAnimationFrame(follow);
};
follow();
element.addEventListener("click", (event) => {
  const audio = element.querySelector("audio"), canvas = event.target.closest(".canvas");
  if (audio && canvas) {
    const { left, width, top, height } = canvas.getBoundingClientRect();
    const rows = canvas.matches(".rows-2") ? 2 : 1, row = Math.floor(rows * (event.clientY - top) / height);
    audio.currentTime = audio.duration * (row + (event.clientX - left) / width) / rows;
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
    pipe, embedded = studio.pipe, studio.models.model == "embedded"
    defaults = pipe.default_arguments
    length = (defaults["width"] - defaults["crop_right"]) / pipe.mel_spectrogram.columns_per_second
    ground = round(255 * pipe.mel_spectrogram.silence)
    ink = "#000000" if ground else "#ffffff"
    nothing_yet = PIL.Image.new("L", (defaults["width"], defaults["height"]), 24)
    presets = {name: GENERATE_PRESETS[name] for name in EMBEDDED_SEEDS}
    examples = [
        (preset["prompt"], preset["audio_prompt"], EMBEDDED_SEEDS[name] if embedded else preset["seed"])
        for name, preset in presets.items()
    ]
    pictures = [(EXAMPLES / f"{name}.jpg", preset["audio_prompt"]) for name, preset in presets.items()]
    strips = {
        "show_label": False,
        "allow_preview": False,
        "height": "auto",
        "buttons": [],
        "elem_classes": "strips",
        "interactive": False,
    }
    with gr.Blocks(title="Images that sound", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        # The samples of a visitor's runs, of the one that is shown, and the one among them.
        runs, folders, current = gr.State([], time_to_live=3600, delete_callback=remove), gr.State([]), gr.State()
        # What a run begins with, and the sample that it is to begin like.
        files, like = gr.State({}), gr.State()
        loud = "dark" if studio.pipe.mel_spectrogram.black_is_loud else "bright"
        gr.Markdown(INTRODUCTION.format(loud=loud))
        if embedded:
            gr.Markdown(EMBEDDED_WORLD)
        with gr.Row():
            with gr.Column(scale=2):
                words = {"max_length": MAX_PROMPT_LENGTH}
                prompt = gr.Textbox(examples[0][0], label="What to see", elem_id="prompt", **words)
                audio_prompt = gr.Textbox(examples[0][1], label="What to hear", elem_id="audio_prompt", **words)
                begins = gr.Radio(STARTS, value="words", label="Begin with", elem_id="begins")
                edited = {"type": "pil", "format": "png", "sources": [], "transforms": [], "layers": False}
                edited |= {"buttons": [], "height": 230, "show_label": False}
                with gr.Column(visible=False) as drawn:
                    drawing = gr.ImageEditor(
                        blank("strip", ground),
                        brush=gr.Brush(6, [ink], ink, "fixed"),
                        canvas_size=BOARDS["strip"],
                        fixed_canvas=True,
                        elem_id="drawing",
                        **edited,
                    )
                with gr.Column(visible=False) as pictured:
                    picture = gr.File(label="Picture", file_types=["image"], height=120, elem_id="picture")
                    with gr.Row():
                        resize_mode = gr.Dropdown(RESIZE_MODES, value="repeat", label="On the canvas", min_width=140)
                        swap = gr.Checkbox(label="Swap light and dark", min_width=140, elem_id="swap")
                    anew = gr.Radio(ANEW, value="all", label="Make anew", elem_id="anew")
                    canvas = gr.ImageEditor(
                        visible=False,
                        brush=gr.Brush(24, ["#ff4040"], "#ff4040", "fixed"),
                        elem_id="canvas",
                        **edited,
                    )
                drawing.blob_storage, canvas.blob_storage = FewValues(), FewValues()
                with gr.Column(visible=False) as sounded:
                    sound = gr.Audio(
                        sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], elem_id="sound"
                    )
                strength = tuned("strength", "Strength: how much is made anew", 0.7, 0.05, visible=False)
                with gr.Row():
                    random = gr.Button("Random", elem_id="random")
                    seed = gr.Number(
                        examples[0][2], label="Seed", precision=0, min_width=140, buttons=[random], elem_id="seed"
                    )
                    count = gr.Slider(
                        1, MAX_CANDIDATES, 4, step=1, label="Candidates", min_width=140, elem_id="candidates"
                    )
                with gr.Accordion("Fine tuning", open=False, elem_id="tuning"):
                    weight = tuned("audio_weight", "Weight of the sound", defaults["audio_weight"], 0.05)
                    guidance = tuned("guidance_scale", "Guidance of the picture", defaults["guidance_scale"], 0.5)
                    audio_guidance = tuned(
                        "audio_guidance_scale", "Guidance of the sound", defaults["audio_guidance_scale"], 0.5
                    )
                    few = "" if embedded else " (25 may do: others take that many with Stable Diffusion alone)"
                    steps = tuned("num_inference_steps", f"Steps{few}", defaults["num_inference_steps"], 1)
                    seconds = tuned("audio_length_in_s", "Seconds", length, 0.01)
                    layout = gr.Radio(LAYOUTS, value="strip", label="Layout", elem_id="layout")
                with gr.Row():
                    start = gr.Button("Make it", variant="primary", min_width=140, elem_id="start")
                    stop = gr.Button("Stop", interactive=False, min_width=140, elem_id="stop")
            with gr.Column(scale=3, elem_id="result"):
                status = gr.Markdown(BEGINNING, elem_id="status")
                player = gr.HTML(
                    finished(*EXAMPLE) if embedded else on_the_way(nothing_yet, None, 1),
                    html_template=PLAYER,
                    css_template=PLAYER_STYLE,
                    js_on_load=PLAYER_SCRIPT,
                    elem_id="player",
                )
                gallery = gr.Gallery(visible=False, elem_id="gallery", **strips)
                with gr.Column(visible=False) as details:
                    with gr.Row():
                        more = gr.Button("More like this", size="sm", min_width=140, elem_id="more")
                        repaint = gr.Button("Repaint a part", size="sm", min_width=140, elem_id="repaint")
                        archive = gr.DownloadButton("Download all", size="sm", min_width=140, elem_id="archive")
                    with gr.Accordion("Video, colour, gray, settings", open=False, elem_id="rest"):
                        image = {"type": "filepath", "format": "png", "buttons": ["download", "fullscreen"]}
                        plain = {"show_label": False, "interactive": False}
                        small = {"size": "sm", "min_width": 140}
                        with gr.Tab("Video"):
                            film_button = gr.Button("Make a video", elem_id="film", **small)
                            video = gr.Video(buttons=["download"], elem_id="video", **plain)
                        with gr.Tab("Colour"):
                            with gr.Row():
                                paint_button = gr.Button("Paint it", elem_id="paint", **small)
                                unpaint = gr.Button("Stop painting", elem_id="unpaint", **small)
                            colors = gr.Image(elem_id="colors", **plain, **image)
                        with gr.Tab("Gray"):
                            gr.Markdown("What is played: it differs from the picture by the decoder alone.")
                            spectrogram = gr.Image(elem_id="spectrogram", **plain, **image)
                        with gr.Tab("Settings"):
                            code = {"wrap_lines": True, "show_line_numbers": False, "lines": 1}
                            command = gr.Code(label="As a command", language="shell", elem_id="command", **code)
                            python = gr.Code(label="In Python", language="python", elem_id="python", **code)
        with gr.Column(visible=False) as visit:
            gr.Markdown("### Made in this visit")
            history = gr.Gallery(elem_id="history", **strips)
        gr.Markdown("### Examples")
        chosen = gr.Gallery(pictures, elem_id="examples", **strips)

        def show(folder: Path, place: str = "") -> dict:
            """All about a sample and its place among others: of its video and colours, what has been made."""
            settings = sample_settings(check_made(folder))
            words = [f"**Seed {settings['seed']}.** Press play, or click into the picture."]
            words += [f"Something is off: {said}." for said in settings["problems"] + settings["remarks"]]
            return {
                current: folder,
                status: "\n\n".join([" ".join([*words, place]), *unknown_words(settings)]),
                player: finished(folder / "image.png", folder / "audio.wav", settings["canvas_layout"]),
                spectrogram: folder / "spectrogram.png",
                video: made_file(folder / "video.mp4"),
                colors: studio.colors_of(folder),
                command: as_command(settings),
                python: as_python(settings, studio.models),
            }

        def show_run(made: list[Path]) -> dict:
            """The best of a run, and the others to choose from."""
            best_of = f"It is the best of {len(made)} by its scores; click another to see and hear that."
            shown = show(made[0], best_of if len(made) > 1 else "")
            boxes = {gallery: candidates(made), details: gr.Column(visible=True), archive: archive_of(made[0])}
            return {**shown, **boxes, folders: made}

        def read(*values: str | float | None) -> tuple[dict, list[int]]:
            *values, first_seed, num_candidates = values
            try:
                return studio.call_arguments(*values), seeds_of(first_seed, num_candidates)
            except ValueError as error:
                raise as_message(error) from error

        def unknown(*prompts: str) -> list[str]:
            models = {"model": studio.models.model, "audio_model": studio.models.audio_model}
            return unknown_words({**dict(zip(("prompt", "audio_prompt"), prompts)), **models})

        def begin(request: gr.Request, *values: object) -> dict:
            *values, painted, wanted, kind, drawn_on, path, fitted, swapped, marked, part, heard = values
            arguments, _ = read(*values)
            try:
                if wanted is not None:
                    given = files_of(wanted)
                elif kind == "drawing":
                    given = studio.drawn(drawn_on, arguments)
                elif kind == "picture":
                    given = studio.chosen(picture_of(path, swapped), arguments, fitted, marked, part)
                elif kind == "sound":
                    given = studio.heard(heard)
                else:
                    given = {}
            except ValueError as error:
                raise as_message(error) from error
            studio.unwanted.discard(request.session_hash)
            studio.unwanted.add(painted)
            nothing = dict.fromkeys((current, spectrogram, video, colors, command, python))
            hidden = {gallery: gr.Gallery(visible=False), details: gr.Column(visible=False)}
            waiting = "\n\n".join(["Waiting for its turn …", *unknown(*values[:2])])
            return {**nothing, **hidden, folders: [], status: waiting, files: given, like: None, **at_work(True)}

        def make(request: gr.Request, *values: str | float | dict | list[list[Path]] | None) -> Iterator[dict]:
            *values, given, earlier = values
            arguments, seeds = read(*values)
            rows = rows_of(arguments["canvas_layout"])
            said = unknown(arguments["prompt"], arguments["audio_prompt"])
            try:
                for done, num_steps, previews, output in studio.denoise(arguments, seeds, given, request.session_hash):
                    seen = {status: "\n\n".join([f"Denoising: {done} of {num_steps} steps …", *said])}
                    seen[player] = on_the_way(previews[0], done / num_steps, rows)
                    if len(seeds) > 1:
                        pairs = [(each, f"seed {seed}") for each, seed in zip(previews, seeds)]
                        seen[gallery] = gr.Gallery(pairs, visible=True)
                    yield seen
                    if output is not None:
                        made = studio.write(arguments, seeds, given, output)
            except Stopped:
                yield {status: "Stopped.", **at_work(False)}
                return
            except Exception as error:
                yield {status: "That did not work.", **at_work(False)}
                raise as_message(error) from error
            kept = [made, *earlier][:MAX_RUNS]
            remove(earlier[MAX_RUNS - 1 :])
            yield {
                **show_run(made),
                **at_work(False),
                runs: kept,
                history: earlier_ones(kept),
                visit: gr.Column(visible=True),
            }

        # Gradio's own `cancels` loses the next run where it comes before the last step of the stopped one is done.
        def cease(request: gr.Request) -> dict:
            studio.unwanted.add(request.session_hash)
            return {status: "Stopping …", stop: gr.Button(interactive=False)}

        def pick(made: list[Path], event: gr.SelectData) -> dict:
            return show(picked(made, event))

        def recall(made: list[list[Path]], event: gr.SelectData) -> dict:
            return show_run(picked(made, event))

        def take(event: gr.SelectData) -> tuple[str, str, int]:
            return picked(examples, event)

        def again(folder: Path | None, made: list[Path]) -> dict:
            """What made a sample, with the seeds that follow."""
            settings = sample_settings(check_made(folder))
            last = max(sample_settings(each)["seed"] for each in made)
            fields = {field: settings[name] for name, field in zip(CALL_NAMES, asking) if name in settings}
            return {**fields, seed: last + 1, like: folder}

        def marking(folder: Path | None, made: list[Path]) -> dict:
            """A sample to be marked, beside what made it."""
            settings = sample_settings(check_made(folder))
            own = {begins: "picture", picture: str(folder / "image.png"), swap: False, anew: "marked", strength: 1}
            return {**again(folder, made), seconds: studio.length_of(folder, settings), **own, like: None}

        def offer(kind: str) -> dict:
            """What is needed to begin with something, and nothing else."""
            boxes = {"drawing": drawn, "picture": pictured, "sound": sounded}
            shown = {box: gr.Column(visible=kind == name) for name, box in boxes.items()}
            from_noise = kind == "words" or (kind == "drawing" and studio.follows_lines)
            return {**shown, strength: gr.Slider(visible=not from_noise)}

        def lay(
            path: str | None, fitted: str, swapped: bool, part: str, length: float, canvas_layout: str
        ) -> gr.ImageEditor:
            """The picture on the canvas, to be marked, where it is to be."""
            if path is None or part == "all":
                return gr.ImageEditor(None, visible=False)
            try:
                wanted = {"audio_length_in_s": length, "canvas_layout": canvas_layout}
                laid = studio.on_canvas(picture_of(path, swapped), wanted, fitted)
            except ValueError as error:
                raise as_message(error) from error
            return gr.ImageEditor(laid, visible=True, canvas_size=laid.size)

        def new_board(canvas_layout: str) -> gr.ImageEditor:
            return gr.ImageEditor(blank(canvas_layout, ground), canvas_size=BOARDS[canvas_layout])

        def film(folder: Path | None) -> Path:
            return video_of(check_made(folder))

        def paint(folder: Path | None, progress: gr.Progress = gr.Progress()) -> Path | None:  # noqa: B008
            try:
                return studio.colors(check_made(folder), lambda done: progress(done, "Painting"))
            except Stopped:
                return None
            except gr.Error:
                raise
            except Exception as error:
                raise as_message(error) from error

        def at_work(busy: bool) -> dict:
            return {start: gr.Button(interactive=not busy), stop: gr.Button(interactive=busy)}

        views = [current, status, player, spectrogram, video, colors, command, python]
        results = [folders, gallery, details, archive, *views]
        asking = [
            prompt,
            audio_prompt,
            weight,
            guidance,
            audio_guidance,
            steps,
            seconds,
            layout,
            strength,
            seed,
            count,
        ]
        starting = [like, begins, drawing, picture, resize_mode, swap, canvas, anew, sound]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        paint_button.click(paint, current, colors, api_visibility="private")
        film_button.click(film, current, video, api_visibility="private")
        unpaint.click(studio.unwanted.add, current, queue=False, **quiet)
        asked = gr.on(
            [start.click, prompt.submit, audio_prompt.submit],
            begin,
            [*asking, current, *starting],
            [*results, files, like, start, stop],
            concurrency_limit=None,
            **quiet,
        )
        work = asked.success(make, [*asking, files, runs], [runs, visit, history, start, stop, *results], **quiet)
        work.then(None, js=RESULT_IS_THERE)
        asked.success(None, js=TO_RESULT)
        stop.click(cease, outputs=[status, stop], queue=False, **quiet)
        more.click(again, [current, folders], [*asking, like], **quiet).success(None, js=CLICK_START)
        repaint.click(marking, [current, folders], [*asking, *starting], **quiet).success(None, js=SCROLL % "#prompt")
        begins.change(offer, begins, [drawn, pictured, sounded, strength], queue=False, **quiet)
        laid_by = [picture, resize_mode, swap, anew, seconds, layout]
        gr.on([each.change for each in laid_by], lay, laid_by, canvas, trigger_mode="always_last", **quiet)
        layout.change(new_board, layout, drawing, **quiet)
        gallery.select(pick, folders, views, **quiet)
        history.select(recall, runs, results, **quiet).success(None, js=SCROLL % "#result")
        chosen.select(take, None, [prompt, audio_prompt, seed], **quiet).success(None, js=SCROLL % "#prompt")
        random.click(None, outputs=seed, js=RANDOM_SEED, **quiet)
    # Without `api_open=False`, requests of their own would get round the queue.
    return page.queue(max_size=MAX_WAITING, api_open=False)


def as_message(error: Exception) -> gr.Error:
    """What the page says of an error; the log has the rest of those that the user can't mend."""
    return gr.Error(str(error), duration=None, print_exception=not isinstance(error, ValueError))


def tuned(name: str, label: str, value: float, step: float, visible: bool = True) -> gr.Slider:
    """A slider for an argument of the call."""
    least, most = BOUNDS[name]
    return gr.Slider(least, most, value, step=step, label=label, visible=visible, elem_id=name)


def blank(canvas_layout: str, ground: int) -> PIL.Image.Image:
    """Nothing yet, to draw on."""
    return PIL.Image.new("RGB", BOARDS[canvas_layout], (ground,) * 3)


def check_made(folder: Path | None) -> Path:
    """A sample's folder, as long as it is kept."""
    if folder is None or not folder.exists():
        raise gr.Error("Make a picture first.", print_exception=False)
    return folder


def made_file(file: Path) -> Path | None:
    return file if file.exists() else None


def picked(choices: list, event: gr.SelectData) -> object:
    """What a visitor has clicked."""
    if event.index not in range(len(choices)):
        raise gr.Error("There is nothing yet.", print_exception=False)
    return choices[event.index]


def rows_of(canvas_layout: str) -> int:
    """How many strips of a picture are played one after the other."""
    return 2 if canvas_layout == "folded" else 1


def on_the_way(picture: PIL.Image.Image, done: float | None, rows: int) -> dict:
    """What the player shows when this share of the steps is done."""
    png = io.BytesIO()
    picture.save(png, "png")
    return {"picture": data_url("image/png", png.getvalue()), "audio": None, "done": done, "rows": rows}


def finished(picture: Path, audio: Path, canvas_layout: str = "strip") -> dict:
    """What the player shows and plays of a sample."""
    sources = {
        "picture": data_url("image/png", picture.read_bytes()),
        "audio": data_url("audio/wav", audio.read_bytes()),
    }
    return {**sources, "done": None, "rows": rows_of(canvas_layout)}


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def candidates(made: list[Path]) -> gr.Gallery:
    """All candidates with their scores, where there are several."""
    if len(made) == 1:
        return gr.Gallery(visible=False)
    return gr.Gallery([(folder / "image.png", label_of(folder)) for folder in made], visible=True, selected_index=0)


def earlier_ones(runs: list[list[Path]]) -> gr.Gallery:
    """The best of each run of a visit."""
    settings = [sample_settings(made[0]) for made in runs]
    captions = [f"{each['prompt']} · {each['audio_prompt']}" for each in settings]
    return gr.Gallery([(made[0] / "image.png", words) for made, words in zip(runs, captions)], selected_index=None)


def remove(runs: list[list[Path]]) -> None:
    """Deletes runs: the oldest of a visitor, or all of one who is gone."""
    for made in runs:
        # The run's own folder, with its archive.
        shutil.rmtree(made[0].parents[1], ignore_errors=True)


class FewValues(dict):
    """What editors have sent and nobody has asked for yet: the latest, since a visitor may leave before that."""

    def __setitem__(self, key: str, value: object) -> None:
        super().__setitem__(key, value)
        while len(self) > MAX_WAITING:
            del self[next(iter(self))]


class SmallRequests:
    """Middleware that refuses requests larger than the page's own, before they are read."""

    LIMITS = {"/upload": MAX_UPLOAD + MAX_REQUEST, "/component_server": MAX_EDITED}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        path = scope.get("path", "").rstrip("/")
        most = next((limit for end, limit in self.LIMITS.items() if path.endswith(end)), MAX_REQUEST)
        too_large = int(headers.get("content-length", 0)) > most or "transfer-encoding" in headers
        await (PlainTextResponse("Too large.", 413) if too_large else self.app)(scope, receive, send)


def launch(page: gr.Blocks, **kwargs: int | bool | None) -> None:
    """Serves the page, with bounds on what is sent to it."""
    bounds = {"max_file_size": MAX_UPLOAD, "app_kwargs": {"middleware": [Middleware(SmallRequests)]}}
    page.launch(show_error=True, css=STYLE, footer_links=["gradio", "settings"], **bounds, **kwargs)


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
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
            # Torch aborts a process that ends while it is at work in another thread.
            studio.close()
            page.close()


if __name__ == "__main__":
    main()
