"""The layout of the page: its texts, its style, and its components. Nothing here does anything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import PIL.Image
from bounds import BoundedEditor
from studio import BOUNDS, MAX_CANDIDATES, MAX_PROMPT_LENGTH, Studio
from views import blank, finished, on_the_way, remove

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS, GENERATE_PRESETS


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
STRIPS = {
    "show_label": False,
    "allow_preview": False,
    "height": "auto",
    "buttons": [],
    "elem_classes": "strips",
    "interactive": False,
}
EDITED = {
    **{"type": "pil", "format": "png", "sources": [], "transforms": [], "layers": False},
    **{"buttons": [], "height": 230, "show_label": False},
}
PLAIN, SMALL = {"show_label": False, "interactive": False}, {"size": "sm", "min_width": 140}


def examples_of(studio: Studio) -> list[tuple[str, str, int]]:
    """Prompt, audio prompt and seed of each example."""
    embedded = studio.models.model == "embedded"
    presets = {name: GENERATE_PRESETS[name] for name in EMBEDDED_SEEDS}
    return [
        (preset["prompt"], preset["audio_prompt"], EMBEDDED_SEEDS[name] if embedded else preset["seed"])
        for name, preset in presets.items()
    ]


def lay_out(studio: Studio) -> tuple[gr.Blocks, SimpleNamespace]:
    """The page and its components by their names."""
    embedded, parts = studio.models.model == "embedded", SimpleNamespace()
    with gr.Blocks(title="Images that sound", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        # The samples of a visitor's runs, those of the run on show, and the sample on show.
        parts.runs = gr.State([], time_to_live=3600, delete_callback=remove)
        parts.folders, parts.current = gr.State([]), gr.State()
        # The files that a run begins with, and the sample that it is to begin like.
        parts.files, parts.like = gr.State({}), gr.State()
        loud = "dark" if studio.pipe.mel_spectrogram.black_is_loud else "bright"
        gr.Markdown(INTRODUCTION.format(loud=loud))
        if embedded:
            gr.Markdown(EMBEDDED_WORLD)
        with gr.Row():
            with gr.Column(scale=2):
                _lay_questions(parts, studio)
            with gr.Column(scale=3, elem_id="result"):
                _lay_result(parts, studio)
        with gr.Column(visible=False) as parts.visit:
            gr.Markdown("### Made in this visit")
            parts.history = gr.Gallery(elem_id="history", **STRIPS)
        gr.Markdown("### Examples")
        names = {name: GENERATE_PRESETS[name]["audio_prompt"] for name in EMBEDDED_SEEDS}
        pictures = [(EXAMPLES / f"{name}.jpg", audio_prompt) for name, audio_prompt in names.items()]
        parts.chosen = gr.Gallery(pictures, elem_id="examples", **STRIPS)
    return page, parts


def _lay_questions(parts: SimpleNamespace, studio: Studio) -> None:
    """Questions of a run: prompts, a start, a seed, fine tuning."""
    example, words = examples_of(studio)[0], {"max_length": MAX_PROMPT_LENGTH}
    parts.prompt = gr.Textbox(example[0], label="What to see", elem_id="prompt", **words)
    parts.audio_prompt = gr.Textbox(example[1], label="What to hear", elem_id="audio_prompt", **words)
    parts.begins = gr.Radio(STARTS, value="words", label="Begin with", elem_id="begins")
    _lay_starts(parts, studio)
    parts.strength = tuned("strength", "Strength: how much is made anew", 0.7, 0.05, visible=False)
    with gr.Row():
        parts.random = gr.Button("Random", elem_id="random")
        parts.seed = gr.Number(
            example[2], label="Seed", precision=0, min_width=140, buttons=[parts.random], elem_id="seed"
        )
        parts.count = gr.Slider(1, MAX_CANDIDATES, 4, step=1, label="Candidates", min_width=140, elem_id="candidates")
    with gr.Accordion("Fine tuning", open=False, elem_id="tuning"):
        _lay_tuning(parts, studio)
    with gr.Row():
        parts.start = gr.Button("Make it", variant="primary", min_width=140, elem_id="start")
        parts.stop = gr.Button("Stop", interactive=False, min_width=140, elem_id="stop")


def _lay_starts(parts: SimpleNamespace, studio: Studio) -> None:
    """A drawing, a picture or a sound to begin with, each shown when it is chosen."""
    ground = ground_of(studio)
    ink = "#000000" if ground else "#ffffff"
    with gr.Column(visible=False) as parts.drawn:
        parts.drawing = BoundedEditor(
            blank("strip", ground),
            brush=gr.Brush(6, [ink], ink, "fixed"),
            canvas_size=blank("strip", ground).size,
            fixed_canvas=True,
            elem_id="drawing",
            **EDITED,
        )
    with gr.Column(visible=False) as parts.pictured:
        parts.picture = gr.File(label="Picture", file_types=["image"], height=120, elem_id="picture")
        with gr.Row():
            parts.resize_mode = gr.Dropdown(RESIZE_MODES, value="repeat", label="On the canvas", min_width=140)
            parts.swap = gr.Checkbox(label="Swap light and dark", min_width=140, elem_id="swap")
        parts.anew = gr.Radio(ANEW, value="all", label="Make anew", elem_id="anew")
        brush = gr.Brush(24, ["#ff4040"], "#ff4040", "fixed")
        parts.canvas = BoundedEditor(visible=False, brush=brush, elem_id="canvas", **EDITED)
    with gr.Column(visible=False) as parts.sounded:
        parts.sound = gr.Audio(
            sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], elem_id="sound"
        )


def _lay_tuning(parts: SimpleNamespace, studio: Studio) -> None:
    """Arguments of the call that most visitors leave as they are."""
    defaults, embedded = studio.pipe.default_arguments, studio.models.model == "embedded"
    length = (defaults["width"] - defaults["crop_right"]) / studio.pipe.mel_spectrogram.columns_per_second
    parts.weight = tuned("audio_weight", "Weight of the sound", defaults["audio_weight"], 0.05)
    parts.guidance = tuned("guidance_scale", "Guidance of the picture", defaults["guidance_scale"], 0.5)
    parts.audio_guidance = tuned(
        "audio_guidance_scale", "Guidance of the sound", defaults["audio_guidance_scale"], 0.5
    )
    few = "" if embedded else " (25 may do: others take that many with Stable Diffusion alone)"
    parts.steps = tuned("num_inference_steps", f"Steps{few}", defaults["num_inference_steps"], 1)
    parts.seconds = tuned("audio_length_in_s", "Seconds", length, 0.01)
    parts.layout = gr.Radio(LAYOUTS, value="strip", label="Layout", elem_id="layout")


def _lay_result(parts: SimpleNamespace, studio: Studio) -> None:
    """The sample on show, the others of its run, and what can be made of it."""
    defaults = studio.pipe.default_arguments
    nothing_yet = PIL.Image.new("L", (defaults["width"], defaults["height"]), 24)
    parts.status = gr.Markdown(BEGINNING, elem_id="status")
    parts.player = gr.HTML(
        finished(*EXAMPLE) if studio.models.model == "embedded" else on_the_way(nothing_yet, None, 1),
        html_template=PLAYER,
        css_template=PLAYER_STYLE,
        js_on_load=PLAYER_SCRIPT,
        elem_id="player",
    )
    parts.gallery = gr.Gallery(visible=False, elem_id="gallery", **STRIPS)
    with gr.Column(visible=False) as parts.details:
        with gr.Row():
            parts.more = gr.Button("More like this", elem_id="more", **SMALL)
            parts.repaint = gr.Button("Repaint a part", elem_id="repaint", **SMALL)
            parts.archive = gr.DownloadButton("Download all", elem_id="archive", **SMALL)
        with gr.Accordion("Video, colour, gray, settings", open=False, elem_id="rest"):
            _lay_tabs(parts)


def _lay_tabs(parts: SimpleNamespace) -> None:
    image = {"type": "filepath", "format": "png", "buttons": ["download", "fullscreen"]}
    with gr.Tab("Video"):
        parts.film_button = gr.Button("Make a video", elem_id="film", **SMALL)
        parts.video = gr.Video(buttons=["download"], elem_id="video", **PLAIN)
    with gr.Tab("Colour"):
        with gr.Row():
            parts.paint_button = gr.Button("Paint it", elem_id="paint", **SMALL)
            parts.unpaint = gr.Button("Stop painting", elem_id="unpaint", **SMALL)
        parts.colors = gr.Image(elem_id="colors", **PLAIN, **image)
    with gr.Tab("Gray"):
        gr.Markdown("The canvas that is played. It differs from the picture by the decoder alone.")
        parts.spectrogram = gr.Image(elem_id="spectrogram", **PLAIN, **image)
    with gr.Tab("Settings"):
        code: dict[str, Any] = {"wrap_lines": True, "show_line_numbers": False, "lines": 1}
        parts.command = gr.Code(label="As a command", language="shell", elem_id="command", **code)
        parts.python = gr.Code(label="In Python", language="python", elem_id="python", **code)


def ground_of(studio: Studio) -> int:
    """Brightness of silence, 0 to 255, on which a visitor draws."""
    return round(255 * studio.pipe.mel_spectrogram.silence)


def tuned(name: str, label: str, value: float, step: float, visible: bool = True) -> gr.Slider:
    """A slider for an argument of the call."""
    least, most = BOUNDS[name]
    return gr.Slider(least, most, value, step=step, label=label, visible=visible, elem_id=name)
