"""The layout of the page: its texts, its style, and its components. Nothing here does anything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import PIL.Image
from bounds import bound_editors
from studio import BOUNDS, MAX_CANDIDATES, MAX_PROMPT_LENGTH, MAX_SCENES, Studio
from views import WIDE, blank, finished, on_the_way, remove, remove_hidden

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS, GENERATE_PRESETS, WORLD_PROMPTS


INTRODUCTION = """
# Images that sound
A sound can be drawn: left to right is time, bottom to top is pitch, {loud} is loud. Such a drawing is a spectrogram.
"""
HIDE = """
Hide your picture in a sound. It appears in the spectrogram of the sound, and all else of the sound stays as it is.
"""
IMPRINT = """
A sound is made from your words, and your picture is painted into its spectrogram by making parts of it fainter.
"""
BOTH = """
A model makes one spectrogram from two descriptions: it looks like the one and sounds like the other. Few attempts \
succeed, so several are made and the best is shown first.
"""
EMBEDDED_WORLD = """
*This page runs the small model that ships with the project. It knows the things and sounds of the examples, and \
ocean waves; of anything else it makes something, but not what you asked for.*
"""
BEGINNING = "Press “Make it”, choose an example, or describe a picture and a sound."
HIDE_BEGINNING = "The bell below rings as it is until you choose a picture."
STRENGTH = "0.2 keeps almost all of what you give, 1 keeps nothing. From 0.7 on, only large shapes are left."
SHARE = "From more sound to more picture"
STEPS = "Noise becomes a picture step by step. More steps take longer."
GUIDANCE = "More is closer, and harsher."
SCENES = "More than one make a panorama that plays from left to right."
LOOP = "The picture tiles, and the sound goes on at its beginning."
# Strength of a start until a visitor chooses another.
START_STRENGTH = 0.6
KEPT = "To keep a picture exactly, hide it in a sound or paint it into one: see the other tabs above."
# How a preview says how a picture was taken.
TAKEN = {
    True: "Taken for a dark drawing on a light ground, so light and dark are swapped.",
    False: "Taken as it is: light parts are loud.",
}
# A picture of each example by the embedded checkpoint.
EXAMPLES = Path(__file__).parent / "examples"
# A sample of that checkpoint, to see and hear at first.
EXAMPLE = (EMBEDDED / "castle.png", EMBEDDED / "castle.wav")
STARTS = [("words alone", "words"), ("a drawing", "drawing"), ("a picture", "picture"), ("a sound", "sound")]
RESIZE_MODES = [
    ("once, in the middle", "center"),
    ("side by side, as often as it fits", "repeat"),
    ("cropped", "crop"),
    ("stretched", "stretch"),
]
ANEW = [("all of it", "all"), ("what I mark", "marked"), ("all but what I mark", "unmarked")]
LAYOUTS = [("a strip, played once through", "strip"), ("a square, played in two rows", "folded")]
# A long canvas is shown whole, and below so large that it scrolls.
PLAYER = """
${(value.long ? ["", "long"] : [""]).map((kind) => `<div class="canvas rows-${value.rows} ${kind}"><div class="sheet">
<img src="${value.picture}" alt="the picture"><div class="playhead"></div></div></div>`).join("")}
${value.audio ? `<audio controls ${value.loops ? "loop" : ""} src="${value.audio}"></audio>` : ""}
${value.done === null ? "" : `<progress value="${value.done}"></progress>`}
"""
PLAYER_STYLE = """
.canvas { cursor: pointer; overflow: hidden; border-radius: 6px; }
.sheet { position: relative; }
.canvas.rows-2 { max-width: 480px; margin: auto; }
.canvas img { display: block; width: 100%; }
.canvas:has(+ .long) { margin-bottom: 6px; }
.canvas:has(+ .long) img { min-height: 24px; }
.long { overflow-x: auto; }
.long .sheet { width: max-content; }
.long img { width: auto; max-width: none; height: 200px; }
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
.strips .thumbnail-lg > img { aspect-ratio: auto 4; height: auto; max-height: 220px; object-fit: contain; }
.strips .caption-label {
  position: static; max-width: 100%; padding: 4px 6px; border: 0; background: none; white-space: normal;
}
#mp4_file { display: none; }
/* The ends of a slider in words. */
.share :is(.min_value, .max_value) { font-size: 0; }
.share .min_value::after { font-size: var(--text-sm); content: "sound"; }
.share .max_value::after { font-size: var(--text-sm); content: "picture"; }
/* A picture in its shape, that fits on the screen. */
#hide_player .sheet { width: fit-content; max-width: 100%; margin: auto; }
#hide_player .canvas img { width: auto; max-width: 100%; max-height: min(60vh, 480px); }
/* All titles beside each other on a phone. */
@media (max-width: 600px) { #ways button[role=tab] { padding: 0 7px; } }
/* A board to draw on needs more room than the result. */
.sides:has(#drawing) > .questions { flex-grow: 6 !important; }
.dark #player audio { color-scheme: dark; }
#gallery { --strip: 260px; }
@media (max-width: 600px) { #gallery { --strip: 140px; } .strips { --strip: 140px; } }
"""
# Its parts are drawn anew with each picture, so they are looked up each time. Nothing is drawn while nothing plays.
PLAYER_SCRIPT = """
let moved = false, frame = 0;
const mark = (canvas, audio) => {
  const rows = canvas.matches(".rows-2") ? 2 : 1, place = rows * audio.currentTime / audio.duration;
  const row = Math.min(Math.floor(place), rows - 1);
  Object.assign(canvas.querySelector(".playhead").style, {
    visibility: "visible", left: `${100 * (place - row)}%`, top: `${100 * row / rows}%`, height: `${100 / rows}%`,
  });
  if (!moved) canvas.scrollLeft = place * canvas.scrollWidth - canvas.clientWidth / 2;
};
const follow = () => {
  const audio = element.querySelector("audio");
  if (!audio || !audio.duration) return;
  element.querySelectorAll(".canvas").forEach((canvas) => mark(canvas, audio));
  cancelAnimationFrame(frame);
  if (!audio.paused) frame = requestAnimationFrame(follow);
};
// It plays in the middle, until somebody moves it.
for (const kind of ["wheel", "pointerdown", "touchstart"]) {
  element.addEventListener(kind, (event) => { if (event.target.closest(".long")) moved = true; }, { passive: true });
}
for (const kind of ["play", "seeking"]) element.addEventListener(kind, () => { moved = false; }, true);
const changes = ["loadedmetadata", "play", "pause", "seeked", "ended"];
for (const kind of changes) element.addEventListener(kind, follow, true);
element.addEventListener("click", (event) => {
  const audio = element.querySelector("audio"), canvas = event.target.closest(".canvas");
  if (audio && canvas) {
    const { left, width, top, height } = canvas.firstElementChild.getBoundingClientRect();
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
    **{"buttons": [], "height": 320, "show_label": False},
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
    bound_editors()
    embedded, parts = studio.models.model == "embedded", SimpleNamespace()
    with gr.Blocks(title="Images that sound", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        # The samples of a visitor's runs, those of the run on show, and the sample on show.
        parts.runs = gr.State([], time_to_live=3600, delete_callback=remove)
        # The same by their names, which survive a reload.
        parts.kept = gr.BrowserState([], storage_key="images-that-sound")
        parts.folders, parts.current = gr.State([]), gr.State()
        # Whether the page is narrow, which it says itself.
        parts.narrow = gr.Checkbox(visible=False)
        # The files that a run begins with, and the sample that it is to begin like.
        parts.files, parts.like = gr.State({}), gr.State()
        loud = "dark" if studio.pipe.mel_spectrogram.black_is_loud else "bright"
        gr.Markdown(INTRODUCTION.format(loud=loud))
        with gr.Tabs(elem_id="ways"):
            with gr.Tab("Hide a picture"):
                _lay_hiding(parts, studio)
            with gr.Tab("Paint it in"):
                _lay_imprint(parts)
            with gr.Tab("From words"):
                _lay_both(parts, studio, embedded)
    return page, parts


def _lay_both(parts: SimpleNamespace, studio: Studio, embedded: bool) -> None:
    """The way from two descriptions to one canvas."""
    gr.Markdown(BOTH)
    if embedded:
        gr.Markdown(EMBEDDED_WORLD)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=2, elem_classes="questions"):
            _lay_questions(parts, studio)
        with gr.Column(scale=3, elem_id="result"):
            _lay_result(parts, studio)
    with gr.Column(visible=False) as parts.visit:
        gr.Markdown("### Made in this visit")
        parts.history = gr.Gallery(elem_id="history", **STRIPS)
    gr.Markdown("### Examples")
    pictures = [(EXAMPLES / f"{name}.jpg", caption_of(name)) for name in EMBEDDED_SEEDS]
    parts.chosen = gr.Gallery(pictures, elem_id="examples", **STRIPS)


def caption_of(example: str) -> str:
    """Picture and sound of an example in a few words that no other example has."""
    names = {"bell": "castle", "garden": "garden with birds", "garden-v2": "garden", "race": "race car"}
    return f"{names.get(example, example)} · {GENERATE_PRESETS[example]['audio_prompt']}"


def _lay_picture(parts: SimpleNamespace, prefix: str) -> None:
    """A picture to upload, how it was taken, and the switch for light and dark."""
    picture = gr.File(label="Picture", file_types=["image"], height=120, elem_id=f"{prefix}picture")
    seen = gr.Image(
        visible=False, height=160, show_label=False, interactive=False, buttons=[], elem_id=f"{prefix}seen"
    )
    swap = gr.Checkbox(label="Swap light and dark", info=TAKEN[False], min_width=140, elem_id=f"{prefix}swap")
    for name, part in (("picture", picture), ("seen", seen), ("swap", swap)):
        setattr(parts, f"{prefix}{name}", part)


def _player(value: dict, name: str) -> gr.HTML:
    """A picture with its sound and a playhead."""
    return gr.HTML(value, html_template=PLAYER, css_template=PLAYER_STYLE, js_on_load=PLAYER_SCRIPT, elem_id=name)


def _lay_hiding(parts: SimpleNamespace, studio: Studio) -> None:
    """The way from a picture and a sound to a sound with the picture in it."""
    gr.Markdown(HIDE)
    parts.hidden = gr.State(time_to_live=3600, delete_callback=remove_hidden)
    with gr.Row():
        with gr.Column(scale=2):
            _lay_picture(parts, "hide_")
            parts.hide_sound = gr.Audio(
                EXAMPLE[1], sources=["upload", "microphone"], type="filepath", label="Sound: a bell, or yours",
                buttons=[], elem_id="hide_sound",
            )  # fmt: skip
            parts.hide_start = gr.Number(0, label="The picture begins at this second", minimum=0, elem_id="hide_start")
            parts.hide_strength = gr.Slider(
                0.3, 1, 0.8, step=0.05, label=SHARE, elem_id="hide_strength", elem_classes="share"
            )
        with gr.Column(scale=3, elem_id="hide_result"):
            parts.hide_status = gr.Markdown(HIDE_BEGINNING, elem_id="hide_status")
            parts.hide_player = _player(finished(*EXAMPLE), "hide_player")
            with gr.Row(visible=False) as parts.hide_downloads:
                parts.hide_file = gr.DownloadButton("Download the sound", elem_id="hide_file", **SMALL)
                parts.hide_png = gr.DownloadButton("Download its spectrogram", elem_id="hide_png", **SMALL)


def _lay_imprint(parts: SimpleNamespace) -> None:
    """The way from a picture and a described sound to a new sound with the picture in it."""
    gr.Markdown(IMPRINT)
    with gr.Row():
        with gr.Column(scale=2):
            _lay_picture(parts, "imprint_")
            parts.imprint_prompt = gr.Textbox(
                GENERATE_PRESETS["bell"]["audio_prompt"], label="Sound to make", max_length=MAX_PROMPT_LENGTH,
                elem_id="imprint_prompt",
            )  # fmt: skip
            parts.imprint_ratio = gr.Slider(
                0, 1, 0.5, step=0.05, label=SHARE, elem_id="imprint_ratio", elem_classes="share"
            )
            with gr.Row():
                parts.imprint_start = gr.Button(
                    "Paint it in", variant="primary", min_width=140, elem_id="imprint_start"
                )
                parts.imprint_stop = gr.Button("Stop", interactive=False, min_width=140, elem_id="imprint_stop")
        with gr.Column(scale=3, elem_id="imprint_result"):
            parts.imprint_status = gr.Markdown("Choose a picture, then press the button.", elem_id="imprint_status")
            parts.imprint_player = _player(finished(*EXAMPLE), "imprint_player")
            parts.imprinted = gr.State(time_to_live=3600, delete_callback=remove_hidden)
            with gr.Row(visible=False) as parts.imprint_downloads:
                parts.imprint_png = gr.DownloadButton("Download the picture", elem_id="imprint_png", **SMALL)
                parts.imprint_wav = gr.DownloadButton("Download the sound", elem_id="imprint_wav", **SMALL)


def _lay_questions(parts: SimpleNamespace, studio: Studio) -> None:
    """Questions of a run: prompts, a start, a seed, fine tuning."""
    example, words = examples_of(studio)[0], {"max_length": MAX_PROMPT_LENGTH}
    parts.prompt = gr.Textbox(example[0], label="What to see", elem_id="prompt", **words)
    parts.audio_prompt = gr.Textbox(example[1], label="What to hear", elem_id="audio_prompt", **words)
    parts.question = gr.Markdown(visible=False, elem_id="question")
    with gr.Row(visible=studio.models.model == "embedded"):
        known = {kind: [(name, text) for name, text in WORLD_PROMPTS[kind].items()] for kind in ("picture", "sound")}
        search = {"value": None, "filterable": True, "min_width": 140}
        parts.known = gr.Dropdown(known["picture"], label="Pictures it knows", elem_id="known", **search)
        parts.audio_known = gr.Dropdown(known["sound"], label="Sounds it knows", elem_id="audio_known", **search)
    _lay_scenes(parts, studio)
    parts.begins = gr.Radio(STARTS, value="words", label="Begin with", elem_id="begins")
    _lay_starts(parts, studio)
    parts.strength = tuned(
        "strength", "Strength: how much is changed", START_STRENGTH, 0.05, visible=False, info=f"{STRENGTH} {KEPT}"
    )
    with gr.Row():
        parts.seed = gr.Number(
            example[2], label="Seed", info="Number of an attempt. The same number makes the same again.", precision=0,
            min_width=140, elem_id="seed",
        )  # fmt: skip
        parts.count = gr.Slider(
            1, MAX_CANDIDATES, 4, step=1, label="Attempts", info="Made at once, the best first.", min_width=140,
            elem_id="candidates",
        )  # fmt: skip
    parts.keep = gr.Checkbox(label="Keep this seed for the next attempts", elem_id="keep")
    parts.layout = gr.Radio(LAYOUTS, value="strip", label="Shape", elem_id="layout")
    parts.loop = gr.Checkbox(label="Loop", info=LOOP, elem_id="loop")
    with gr.Accordion("Fine tuning", open=False, elem_id="tuning"):
        _lay_tuning(parts, studio)
    with gr.Row():
        parts.start = gr.Button("Make it", variant="primary", min_width=140, elem_id="start")
        parts.stop = gr.Button("Stop", interactive=False, min_width=140, elem_id="stop")


def _lay_scenes(parts: SimpleNamespace, studio: Studio) -> None:
    """Further scenes, of which as many are shown as are wanted, and the length of all."""
    parts.scenes = gr.Radio(
        list(range(1, MAX_SCENES + 1)), value=1, label="Scenes, one after the other", info=SCENES, elem_id="scenes"
    )
    embedded = studio.models.model == "embedded"
    known = {kind: [(name, text) for name, text in WORLD_PROMPTS[kind].items()] for kind in ("picture", "sound")}
    words = {"allow_custom_value": True, "min_width": 140, "info": "Empty: as before."}
    parts.scene_rows, parts.scene_values = [], []
    for i in range(1, MAX_SCENES):
        with gr.Group(visible=False) as row:
            begin = gr.Number(
                i * studio.scene_seconds, label=f"Scene {i + 1} begins at this second", elem_id=f"scene_{i}_begin"
            )
            with gr.Row():
                for kind, label in (("picture", "What to see"), ("sound", "What to hear")):
                    choices = known[kind] if embedded else []
                    # Nothing is chosen until a visitor does.
                    words["elem_id"] = f"scene_{i}_{kind}"
                    parts.scene_values.append(gr.Dropdown(choices, value=None, label=label, **words))
        parts.scene_values.insert(-2, begin)
        parts.scene_rows.append(row)
    parts.seconds = tuned("audio_length_in_s", "Length in seconds", studio.own_seconds, 0.01)


def _lay_starts(parts: SimpleNamespace, studio: Studio) -> None:
    """A drawing, a picture or a sound to begin with, each shown when it is chosen."""
    ground = ground_of(studio)
    ink = "#000000" if ground else "#ffffff"
    with gr.Column(visible=False) as parts.drawn:
        parts.drawing = gr.ImageEditor(
            blank(ground),
            brush=gr.Brush(6, [ink], ink, "fixed"),
            canvas_size=WIDE,
            fixed_canvas=True,
            elem_id="drawing",
            **EDITED,
        )
        parts.board_mode = gr.Dropdown(
            RESIZE_MODES, value="repeat", label="Place on the canvas", min_width=140, elem_id="board_mode"
        )
    with gr.Column(visible=False) as parts.pictured:
        _lay_picture(parts, "")
        parts.resize_mode = gr.Dropdown(RESIZE_MODES, value="center", label="Place", min_width=140)
        parts.anew = gr.Radio(ANEW, value="all", label="Change", elem_id="anew")
        brush = gr.Brush(24, ["#ff4040"], "#ff4040", "fixed")
        parts.canvas = gr.ImageEditor(visible=False, brush=brush, elem_id="canvas", **EDITED)
    with gr.Column(visible=False) as parts.sounded:
        parts.sound = gr.Audio(
            sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], elem_id="sound"
        )
        with gr.Row():
            parts.sound_start = gr.Number(0, label="Take it from this second on", minimum=0, elem_id="sound_start")
            least, most = BOUNDS["audio_length_in_s"]
            parts.sound_length = gr.Slider(least, most, 5, step=0.1, label="Seconds of it", elem_id="sound_length")


def _lay_tuning(parts: SimpleNamespace, studio: Studio) -> None:
    """Arguments of the call that most visitors leave as they are."""
    defaults, embedded = studio.pipe.default_arguments, studio.models.model == "embedded"
    parts.weight = tuned(
        "audio_weight", "From more picture to more sound", defaults["audio_weight"], 0.05, info="Who decides how much."
    )
    parts.guidance = tuned(
        "guidance_scale", "How closely to follow “What to see”", defaults["guidance_scale"], 0.5, info=GUIDANCE
    )
    parts.audio_guidance = tuned(
        "audio_guidance_scale", "How closely to follow “What to hear”", defaults["audio_guidance_scale"], 0.5,
        info=GUIDANCE,
    )  # fmt: skip
    few = "" if embedded else " (25 may do: others take that many with Stable Diffusion alone)"
    parts.steps = tuned(
        "num_inference_steps",
        f"Steps{few}",
        defaults["num_inference_steps"],
        1,
        info=STEPS,
    )


def _lay_result(parts: SimpleNamespace, studio: Studio) -> None:
    """The sample on show, the others of its run, and what can be made of it."""
    defaults = studio.pipe.default_arguments
    nothing_yet = PIL.Image.new("L", (defaults["width"], defaults["height"]), 24)
    parts.status = gr.Markdown(BEGINNING, elem_id="status")
    embedded = studio.models.model == "embedded"
    parts.player = _player(finished(*EXAMPLE) if embedded else on_the_way(nothing_yet, None, 1), "player")
    parts.began = gr.Image(
        visible=False, height=120, label="It began with", interactive=False, buttons=[], elem_id="began"
    )
    parts.gallery = gr.Gallery(visible=False, elem_id="gallery", **STRIPS)
    with gr.Column(visible=False) as parts.details:
        with gr.Row():
            parts.more = gr.Button("More like this", elem_id="more", **SMALL)
            parts.repaint = gr.Button("Repaint a part", elem_id="repaint", **SMALL)
        with gr.Row():
            parts.png = gr.DownloadButton("Picture (PNG)", elem_id="png", **SMALL)
            parts.wav = gr.DownloadButton("Sound (WAV)", elem_id="wav", **SMALL)
            parts.mp4 = gr.Button("Video (MP4)", elem_id="mp4", **SMALL)
            # Clicked by the page once the video is made.
            parts.mp4_file = gr.DownloadButton(visible="hidden", elem_id="mp4_file")
            parts.archive = gr.DownloadButton("Download all", elem_id="archive", **SMALL)
        with gr.Accordion("Video, colour, settings", open=False, elem_id="rest"):
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
    with gr.Tab("Settings"):
        parts.numbers = gr.Markdown(elem_id="numbers")
        code: dict[str, Any] = {"wrap_lines": True, "show_line_numbers": False, "lines": 1}
        parts.command = gr.Code(label="As a command", language="shell", elem_id="command", **code)
        parts.python = gr.Code(label="In Python", language="python", elem_id="python", **code)


def ground_of(studio: Studio) -> int:
    """Brightness of silence, 0 to 255, on which a visitor draws."""
    return round(255 * studio.pipe.mel_spectrogram.silence)


def tuned(
    name: str, label: str, value: float, step: float, visible: bool = True, info: str | None = None
) -> gr.Slider:
    """A slider for an argument of the call."""
    least, most = BOUNDS[name]
    return gr.Slider(least, most, value, step=step, label=label, visible=visible, elem_id=name, info=info)
