"""Handlers of the page's buttons."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from hidden import hide
from layout import EXAMPLES, TAKEN, caption_of, examples_of, ground_of
from studio import (
    CALL_NAMES,
    MAX_RUN_SECONDS,
    MAX_SCENES,
    Stopped,
    Studio,
    archive_of,
    are_close,
    as_command,
    as_python,
    calm,
    drawing_of,
    numbers_of,
    picture_of,
    seeds_of,
    video_of,
)
from views import (
    SQUARE,
    WIDE,
    as_message,
    began_with,
    blank,
    candidates,
    check_made,
    earlier_ones,
    finished,
    in_lines,
    made_file,
    misspelled,
    names_of,
    on_the_way,
    picked,
    playing,
    preview_of,
    remove,
    remove_hidden,
    rows_of,
    runs_of,
    unknown_of,
)

from images_that_sound.pipelines.images_that_sound_checks import check_integer
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS
from images_that_sound.scripts.common.requests import PROMPTS
from images_that_sound.scripts.common.samples import sample_settings


# Runs of a visit that are kept, the latest first.
MAX_RUNS = 12
# Numbers that attempts get.
MAX_FRESH_SEED = 1_000_000
# Visitors of whom it is known what they were asked.
MAX_ASKED = 1000
# Seconds that a question stays, beside its line in the page.
ASKING_SECONDS = 15
# Strength of a start with a sample that others are to be like.
LIKE_STRENGTH = 0.5


class Handlers:
    """
    Functions of the page's events. Each returns new values by component.

    Args:
        studio ([`Studio`]): Works with the models.
        parts (`SimpleNamespace`): Components of the page by their names.
    """

    def __init__(self, studio: Studio, parts: SimpleNamespace):
        self.studio, self.parts = studio, parts
        # Words that visitors were asked about last.
        self.asked: dict[str, dict[str, str]] = {}

    @property
    def asking(self) -> list[gr.Component]:
        """
        Components whose values are arguments of a run, in the order of `CALL_NAMES`, then those of scenes, seed and
        number.
        """
        p = self.parts
        sides = [p.prompt, p.audio_prompt, p.weight, p.guidance, p.audio_guidance]
        call = [*sides, p.steps, p.seconds, p.layout, p.strength, p.loop]
        return [*call, p.scenes, *p.scene_values, p.seed, p.count]

    @property
    def starting(self) -> list[gr.Component]:
        """Components whose values a run may begin with."""
        p = self.parts
        marked = [p.picture, p.resize_mode, p.swap, p.canvas, p.anew]
        return [p.like, p.begins, p.drawing, p.board_mode, *marked, p.sound, p.sound_start, p.sound_length]

    @property
    def views_of_a_sample(self) -> list[gr.Component]:
        """Components that show one sample, without status and player."""
        p = self.parts
        return [p.current, p.video, p.colors, p.command, p.python, p.numbers, p.png, p.wav]

    @property
    def views(self) -> list[gr.Component]:
        """Components that show one sample."""
        return [*self.views_of_a_sample, self.parts.status, self.parts.player, self.parts.began]

    @property
    def results(self) -> list[gr.Component]:
        """Components that show a run."""
        return [self.parts.folders, self.parts.gallery, self.parts.details, self.parts.archive, *self.views]

    def show(self, folder: Path, place: str = "") -> dict:
        """Everything about a sample: its place among others, and its video and colours as far as they are made."""
        settings = sample_settings(check_made(folder))
        words = [f"**Seed {settings['seed']}.** Press play, or click into the picture."]
        words += [f"Something is off: {said}." for said in settings["problems"] + settings["remarks"]]
        return {
            self.parts.current: folder,
            self.parts.status: "\n\n".join([" ".join([*words, place]), *unknown_of(settings)]),
            self.parts.player: finished(
                folder / "image.png", folder / "audio.wav", settings["canvas_layout"], bool(settings["circular"])
            ),
            self.parts.began: began_with(folder),
            self.parts.numbers: numbers_of(folder),
            self.parts.png: folder / "image.png",
            self.parts.wav: folder / "audio.wav",
            self.parts.video: made_file(folder / "video.mp4"),
            self.parts.colors: self.studio.colors_of(folder),
            self.parts.command: as_command(settings),
            self.parts.python: as_python(settings, self.studio.models),
        }

    def show_run(self, made: list[Path]) -> dict:
        """The best of a run, and the others to choose from."""
        best_of = (
            f"It is the best of {len(made)}: a model recognises its picture and sound most surely. Loudness and"
            " contrast do not count. Click another to see and hear that."
        )
        if len(made) > 1 and are_close(made):
            best_of += " The second is as sure, so compare both."
        if all(sample_settings(each)["problems"] for each in made):
            best_of = f"None of the {len(made)} sounds as it should, so none is the best."
        shown = self.show(made[0], best_of if len(made) > 1 else "")
        boxes = {
            self.parts.gallery: candidates(made),
            self.parts.details: gr.Column(visible=True),
            self.parts.archive: archive_of(made[0]),
        }
        return {**shown, **boxes, self.parts.folders: made}

    def read(self, *values: str | float | None) -> tuple[dict, list[int]]:
        """Arguments of the call and seeds, from the values of `asking`."""
        *values, first_seed, num_candidates = values
        call, (number, *rows) = values[: len(CALL_NAMES)], values[len(CALL_NAMES) :]
        try:
            scenes = list(zip(*[iter(rows)] * 3))[: check_integer("scenes", number, most=MAX_SCENES) - 1]
            return self.studio.call_arguments(*call, scenes=scenes), seeds_of(first_seed, num_candidates)
        except ValueError as error:
            raise as_message(error) from error

    def unknown(self, arguments: dict) -> list[str]:
        models = {"model": self.studio.models.model, "audio_model": self.studio.models.audio_model}
        return unknown_of({**{name: arguments.get(name) for name in PROMPTS}, **models})

    def question_about(self, visitor: str, arguments: dict) -> str | None:
        """A question about words that may be misspelled, before the work; none a second time."""
        sources = {"picture": self.studio.models.model}
        sources["sound"] = self.studio.models.audio_model or sources["picture"]
        asked = {"picture": arguments["prompt"], "sound": arguments["audio_prompt"]}
        words = []
        for number, scene in enumerate(arguments.get("score", {"0": arguments}).values(), 1):
            where = f" in scene {number}" if "score" in arguments else ""
            for kind, name in (("picture", "prompt"), ("sound", "audio_prompt")):
                found = misspelled(scene.get(name, ""), sources[kind], kind)
                words += [f"“{right}” for “{word}”{where}" for word, right in found.items()]
        if not words or self.asked.get(visitor) == asked:
            return None
        self.asked[visitor] = asked
        while len(self.asked) > MAX_ASKED:
            del self.asked[next(iter(self.asked))]
        return f"Did you mean {', '.join(words)}? Correct it, or press “Make it” once more to go on."

    def begin(self, request: gr.Request, *values: object) -> dict:
        """Reads everything that a run begins with, and shows that it waits."""
        num_values = len(self.asking)
        values, (keep, painted, *start) = values[:num_values], values[num_values:]
        arguments, seeds = self.read(*values)
        if question := self.question_about(request.session_hash, arguments):
            gr.Warning(question, duration=ASKING_SECONDS)
            # Nothing is made until the answer.
            return {self.parts.question: gr.Markdown(question, visible=True), self.parts.files: None}
        given = self.given(arguments, seeds, *start)
        self.studio.unwanted.discard(request.session_hash)
        self.studio.unwanted.add(painted)
        nothing = dict.fromkeys(self.views_of_a_sample)
        hidden = {self.parts.gallery: gr.Gallery(visible=False), self.parts.details: gr.Column(visible=False)}
        waiting = "\n\n".join(["Waiting for its turn …", *self.unknown(arguments)])
        return {
            **nothing,
            **hidden,
            self.parts.folders: [],
            self.parts.status: waiting,
            self.parts.files: given,
            self.parts.like: None,
            self.parts.question: gr.Markdown(visible=False),
            self.parts.seed: seeds[0] if keep else random.randrange(MAX_FRESH_SEED),
            **self.at_work(True),
        }

    def given(self, arguments: dict, seeds: list[int], wanted: Path | None, kind: str, *rest: object) -> dict:
        """Files that a run begins with. Of a sound it is known only then how long the run is."""
        is_heard = wanted is None and kind == "sound"
        try:
            if not is_heard:
                self.studio.check_run(seeds, arguments, {})
            files = self.read_start(arguments, wanted, kind, *rest)
            if is_heard:
                self.studio.check_run(seeds, arguments, files)
        except ValueError as error:
            raise as_message(error) from error
        return files

    def read_start(self, arguments: dict, wanted: Path | None, kind: str, *rest: object) -> dict[str, bytes]:
        drawn_on, board_fitted, path, fitted, swapped, marked, part, heard, heard_from, heard_for = rest
        if wanted is not None:
            picture = picture_of(str(check_made(wanted) / "image.png"), False)
            return self.studio.chosen(picture, arguments, "center", None, "all")
        if kind == "drawing":
            return self.studio.drawn(drawn_on, arguments, board_fitted)
        if kind == "picture":
            picture = picture_of(path, bool(swapped), self.silence)
            return self.studio.chosen(picture, arguments, fitted, marked, part)
        return self.studio.heard(heard, heard_from, heard_for) if kind == "sound" else {}

    @property
    def silence(self) -> float:
        return self.studio.pipe.mel_spectrogram.silence

    def make(self, request: gr.Request, *values: str | float | dict | list[list[Path]] | None) -> Iterator[dict]:
        """Denoises in view, then shows the best sample."""
        *values, given, earlier = values
        if given is None:
            yield {self.parts.status: gr.skip()}
            return
        arguments, seeds = self.read(*values)
        rows = rows_of(arguments["canvas_layout"])
        said = self.unknown(arguments)
        try:
            for done, num_steps, previews, output in self.studio.denoise(
                arguments, seeds, given, request.session_hash
            ):
                seen = {self.parts.status: "\n\n".join([f"Denoising: {done} of {num_steps} steps …", *said])}
                seen[self.parts.player] = on_the_way(previews[0], done / num_steps, rows)
                if len(seeds) > 1:
                    pairs = [(in_lines(each), f"seed {seed}") for each, seed in zip(previews, seeds)]
                    seen[self.parts.gallery] = gr.Gallery(pairs, visible=True)
                yield seen
                if output is not None:
                    made = self.studio.write(arguments, seeds, given, output)
        except Stopped:
            yield {self.parts.status: "Stopped. What you see is half made.", **self.at_work(False)}
            return
        except Exception as error:
            yield {self.parts.status: "That did not work.", **self.at_work(False)}
            raise as_message(error) from error
        kept = [made, *earlier][:MAX_RUNS]
        remove(earlier[MAX_RUNS - 1 :])
        yield {
            **self.show_run(made),
            **self.at_work(False),
            self.parts.kept: names_of(kept, self.studio.folder),
            **self.visited(kept),
        }

    def visited(self, runs: list[list[Path]]) -> dict:
        """Shows the runs of this visit."""
        visit = gr.Column(visible=bool(runs))
        return {self.parts.runs: runs, self.parts.history: earlier_ones(runs), self.parts.visit: visit}

    def resume(self, names: object) -> dict:
        """Shows the runs of this visit after the page was loaded again, as long as they are kept."""
        return self.visited(runs_of(names, self.studio.folder)[:MAX_RUNS])

    # `cancels` of Gradio loses a run that begins before the last step of the stopped one is done.
    def cease(self, request: gr.Request) -> None:
        self.studio.unwanted.add(request.session_hash)

    def pick(self, made: list[Path], event: gr.SelectData) -> dict:
        return self.show(picked(made, event))

    def recall(self, made: list[list[Path]], event: gr.SelectData) -> dict:
        return self.show_run(picked(made, event))

    def take(self, event: gr.SelectData) -> dict:
        """Shows and plays an example, and fills in its words."""
        prompt, audio_prompt, seed = picked(examples_of(self.studio), event)
        name = list(EMBEDDED_SEEDS)[event.index]
        shown = playing((EXAMPLES / f"{name}.jpg").read_bytes(), (EXAMPLES / f"{name}.mp3").read_bytes(), "mpeg")
        return {
            **{self.parts.prompt: prompt, self.parts.audio_prompt: audio_prompt, self.parts.seed: seed},
            **{self.parts.scenes: 1, self.parts.seconds: self.studio.own_seconds},
            self.parts.player: shown,
            self.parts.status: f"An example: {caption_of(name)}. “Make it” makes others like it.",
            self.parts.gallery: gr.Gallery(visible=False),
            self.parts.details: gr.Column(visible=False),
        }

    def again(self, folder: Path | None) -> dict:
        """The arguments of a run that begins with a sample."""
        settings = sample_settings(check_made(folder))
        fields = {field: settings[name] for name, field in zip(CALL_NAMES, self.asking) if name in settings}
        return {
            **fields,
            **self.fields_of(settings.get("score")),
            self.parts.strength: LIKE_STRENGTH,
            self.parts.like: folder,
        }

    def fields_of(self, score: dict[str, dict[str, str]] | None) -> dict:
        """The fields of scenes, with the words of a score."""
        p = self.parts
        if score is None:
            return {p.scenes: 1}
        (_, first), *further = score.items()
        values = [value for second, words in further for value in (float(second), *map(words.get, PROMPTS))]
        return {
            **dict(zip((p.prompt, p.audio_prompt), map(first.get, PROMPTS))),
            **dict(zip(p.scene_values, values)),
            p.scenes: len(score),
        }

    def open_scenes(self, number: int) -> dict:
        """The rows of so many scenes."""
        return {row: gr.Group(visible=i <= number) for i, row in enumerate(self.parts.scene_rows, 2)}

    def time_scenes(self, number: int, num_candidates: int) -> dict:
        """A length for so many scenes, and no more attempts than the page takes of it."""
        length = number * self.studio.scene_seconds if number > 1 else self.studio.own_seconds
        most = int(MAX_RUN_SECONDS / length)
        return {self.parts.seconds: length, self.parts.count: min(num_candidates, most)}

    def look(self, path: str | None) -> tuple[gr.Checkbox, gr.Image]:
        """Shows a picture that was just chosen, and on which side its drawing was found."""
        if path is None:
            return gr.Checkbox(False, info=TAKEN[False]), gr.Image(None, visible=False)
        try:
            picture, swapped = drawing_of(path, None, self.silence)
        except ValueError as error:
            raise as_message(error) from error
        return gr.Checkbox(swapped, info=TAKEN[swapped]), gr.Image(preview_of(picture), visible=True)

    def turn(self, path: str | None, swapped: bool) -> gr.Image:
        """Shows a picture after its light and dark were swapped."""
        try:
            picture = None if path is None else preview_of(picture_of(path, swapped, self.silence))
        except ValueError as error:
            raise as_message(error) from error
        return gr.Image(picture, visible=picture is not None)

    def hide(
        self, path: str | None, swapped: bool, song: str | None, start: float, strength: float, before: Path | None
    ) -> dict:
        """Hides a picture in a sound, and shows the part where it is."""
        p = self.parts
        if path is None or song is None:
            missing = "a picture" if path is None else "a sound"
            return {p.hide_status: f"Choose {missing}.", p.hide_downloads: gr.Row(visible=False)}
        try:
            with calm(song):
                made = hide(picture_of(path, swapped), Path(song), start, strength, self.studio.folder)
        except ValueError as error:
            raise as_message(error) from error
        remove_hidden(before)
        png = made.file.with_suffix(".png")
        made.picture.save(png)
        return {
            p.hidden: made.file,
            p.hide_status: f"Press play. Your picture is at {made.place}; below is this part of the sound, and the"
            " download is the whole sound.",
            p.hide_player: playing(png.read_bytes(), made.excerpt),
            p.hide_downloads: gr.Row(visible=True),
            p.hide_file: made.file,
            p.hide_png: png,
        }

    def imprint(
        self, request: gr.Request, path: str | None, swapped: bool, prompt: str, share: float, before: Path | None
    ) -> Iterator[dict]:
        """Makes a sound of words with a picture painted into it."""
        p, visitor = self.parts, f"imprint of {request.session_hash}"
        self.studio.unwanted.discard(visitor)
        busy, idle = (working(p.imprint_start, p.imprint_stop, on) for on in (True, False))
        try:
            picture = picture_of(path, swapped, self.silence)
            yield {p.imprint_status: "A sound is made, and your picture painted in …", **busy}
            seed = random.randrange(MAX_FRESH_SEED)
            spectrogram, sound = self.studio.imprint(picture, prompt, share, seed, visitor)
        except Stopped:
            yield {p.imprint_status: "Stopped.", **idle}
            return
        except Exception as error:
            yield {p.imprint_status: "That did not work.", **idle}
            raise as_message(error) from error
        remove_hidden(before)
        wav = Path(tempfile.mkdtemp(dir=self.studio.folder)) / "painted.wav"
        wav.write_bytes(sound)
        png = wav.with_suffix(".png")
        spectrogram.save(png)
        words = ["Press play. Each press of the button makes another sound.", *self.unknown({"audio_prompt": prompt})]
        yield {
            p.imprinted: wav,
            p.imprint_status: "\n\n".join(words),
            p.imprint_player: playing(png.read_bytes(), sound),
            p.imprint_downloads: gr.Row(visible=True),
            p.imprint_png: png,
            p.imprint_wav: wav,
            **idle,
        }

    def cease_imprint(self, request: gr.Request) -> None:
        self.studio.unwanted.add(f"imprint of {request.session_hash}")

    def marking(self, folder: Path | None) -> dict:
        """A sample to be marked, beside the arguments that made it."""
        settings = sample_settings(check_made(folder))
        marked = {
            self.parts.begins: "picture",
            self.parts.picture: str(folder / "image.png"),
            self.parts.swap: False,
            self.parts.anew: "marked",
            self.parts.strength: 1,
        }
        return {
            **self.again(folder),
            self.parts.seconds: self.studio.length_of(folder, settings),
            **marked,
            self.parts.like: None,
        }

    def open_start(self, kind: str) -> dict:
        """The components that a start needs, and no others."""
        boxes = {"drawing": self.parts.drawn, "picture": self.parts.pictured, "sound": self.parts.sounded}
        shown = {box: gr.Column(visible=kind == name) for name, box in boxes.items()}
        from_noise = kind == "words" or (kind == "drawing" and self.studio.follows_lines)
        return {**shown, self.parts.strength: gr.Slider(visible=not from_noise)}

    def lay(
        self, path: str | None, fitted: str, swapped: bool, part: str, length: float, canvas_layout: str, loops: bool
    ) -> gr.ImageEditor:
        """The picture on the canvas, to be marked."""
        if path is None or part == "all":
            return gr.ImageEditor(None, visible=False)
        try:
            wanted = {"audio_length_in_s": length, "canvas_layout": canvas_layout, "circular": loops}
            laid = self.studio.on_canvas(picture_of(path, bool(swapped), self.silence), wanted, fitted)
        except ValueError as error:
            raise as_message(error) from error
        return gr.ImageEditor(laid, visible=True, canvas_size=laid.size)

    def new_board(self, canvas_layout: str, is_narrow: bool) -> gr.ImageEditor:
        size = SQUARE if is_narrow or canvas_layout == "folded" else WIDE
        return gr.ImageEditor(blank(ground_of(self.studio), size), canvas_size=size)

    def film(self, folder: Path | None) -> Path:
        return video_of(check_made(folder))

    def paint(self, folder: Path | None, progress: gr.Progress = gr.Progress()) -> Path | None:  # noqa: B008
        try:
            return self.studio.colors(check_made(folder), lambda done: progress(done, "Painting"))
        except Stopped:
            return None
        except gr.Error:
            raise
        except Exception as error:
            raise as_message(error) from error

    def at_work(self, busy: bool) -> dict:
        return working(self.parts.start, self.parts.stop, busy)


def working(start: gr.Button, stop: gr.Button, busy: bool) -> dict:
    """Two buttons, of which one can be pressed."""
    return {start: gr.Button(interactive=not busy), stop: gr.Button(interactive=busy)}
