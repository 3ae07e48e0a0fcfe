"""Handlers of the page's buttons."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from layout import examples_of, ground_of
from studio import (
    CALL_NAMES,
    Stopped,
    Studio,
    archive_of,
    as_command,
    as_python,
    files_of,
    picture_of,
    seeds_of,
    video_of,
)
from views import (
    BOARDS,
    as_message,
    blank,
    candidates,
    check_made,
    earlier_ones,
    finished,
    made_file,
    on_the_way,
    picked,
    remove,
    rows_of,
)

from images_that_sound.scripts.common.samples import sample_settings
from images_that_sound.scripts.common.vocabulary import unknown_words


# Runs of a visit that are kept, the latest first.
MAX_RUNS = 12


class Handlers:
    """
    Functions of the page's events. Each returns new values by component.

    Args:
        studio ([`Studio`]): Works with the models.
        parts (`SimpleNamespace`): Components of the page by their names.
    """

    def __init__(self, studio: Studio, parts: SimpleNamespace):
        self.studio, self.parts = studio, parts

    @property
    def asking(self) -> list[gr.Component]:
        """Components whose values are arguments of a run, in the order of `CALL_NAMES`, then seed and number."""
        p = self.parts
        sides = [p.prompt, p.audio_prompt, p.weight, p.guidance, p.audio_guidance]
        return [*sides, p.steps, p.seconds, p.layout, p.strength, p.seed, p.count]

    @property
    def starting(self) -> list[gr.Component]:
        """Components whose values a run may begin with."""
        p = self.parts
        return [p.like, p.begins, p.drawing, p.picture, p.resize_mode, p.swap, p.canvas, p.anew, p.sound]

    @property
    def views_of_a_sample(self) -> list[gr.Component]:
        """Components that show one sample, without status and player."""
        p = self.parts
        return [p.current, p.spectrogram, p.video, p.colors, p.command, p.python]

    @property
    def views(self) -> list[gr.Component]:
        """Components that show one sample."""
        return [*self.views_of_a_sample, self.parts.status, self.parts.player]

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
            self.parts.status: "\n\n".join([" ".join([*words, place]), *unknown_words(settings)]),
            self.parts.player: finished(folder / "image.png", folder / "audio.wav", settings["canvas_layout"]),
            self.parts.spectrogram: folder / "spectrogram.png",
            self.parts.video: made_file(folder / "video.mp4"),
            self.parts.colors: self.studio.colors_of(folder),
            self.parts.command: as_command(settings),
            self.parts.python: as_python(settings, self.studio.models),
        }

    def show_run(self, made: list[Path]) -> dict:
        """The best of a run, and the others to choose from."""
        best_of = f"It is the best of {len(made)} by its scores; click another to see and hear that."
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
        try:
            return self.studio.call_arguments(*values), seeds_of(first_seed, num_candidates)
        except ValueError as error:
            raise as_message(error) from error

    def unknown(self, *prompts: str) -> list[str]:
        models = {"model": self.studio.models.model, "audio_model": self.studio.models.audio_model}
        return unknown_words({**dict(zip(("prompt", "audio_prompt"), prompts)), **models})

    def begin(self, request: gr.Request, *values: object) -> dict:
        """Reads everything that a run begins with, and shows that it waits."""
        *values, painted, wanted, kind, drawn_on, path, fitted, swapped, marked, part, heard = values
        arguments, _ = self.read(*values)
        try:
            if wanted is not None:
                given = files_of(wanted)
            elif kind == "drawing":
                given = self.studio.drawn(drawn_on, arguments)
            elif kind == "picture":
                given = self.studio.chosen(picture_of(path, swapped), arguments, fitted, marked, part)
            elif kind == "sound":
                given = self.studio.heard(heard)
            else:
                given = {}
        except ValueError as error:
            raise as_message(error) from error
        self.studio.unwanted.discard(request.session_hash)
        self.studio.unwanted.add(painted)
        nothing = dict.fromkeys(self.views_of_a_sample)
        hidden = {self.parts.gallery: gr.Gallery(visible=False), self.parts.details: gr.Column(visible=False)}
        waiting = "\n\n".join(["Waiting for its turn …", *self.unknown(*values[:2])])
        return {
            **nothing,
            **hidden,
            self.parts.folders: [],
            self.parts.status: waiting,
            self.parts.files: given,
            self.parts.like: None,
            **self.at_work(True),
        }

    def make(self, request: gr.Request, *values: str | float | dict | list[list[Path]] | None) -> Iterator[dict]:
        """Denoises in view, then shows the best sample."""
        *values, given, earlier = values
        arguments, seeds = self.read(*values)
        rows = rows_of(arguments["canvas_layout"])
        said = self.unknown(arguments["prompt"], arguments["audio_prompt"])
        try:
            for done, num_steps, previews, output in self.studio.denoise(
                arguments, seeds, given, request.session_hash
            ):
                seen = {self.parts.status: "\n\n".join([f"Denoising: {done} of {num_steps} steps …", *said])}
                seen[self.parts.player] = on_the_way(previews[0], done / num_steps, rows)
                if len(seeds) > 1:
                    pairs = [(each, f"seed {seed}") for each, seed in zip(previews, seeds)]
                    seen[self.parts.gallery] = gr.Gallery(pairs, visible=True)
                yield seen
                if output is not None:
                    made = self.studio.write(arguments, seeds, given, output)
        except Stopped:
            yield {self.parts.status: "Stopped.", **self.at_work(False)}
            return
        except Exception as error:
            yield {self.parts.status: "That did not work.", **self.at_work(False)}
            raise as_message(error) from error
        kept = [made, *earlier][:MAX_RUNS]
        remove(earlier[MAX_RUNS - 1 :])
        yield {
            **self.show_run(made),
            **self.at_work(False),
            self.parts.runs: kept,
            self.parts.history: earlier_ones(kept),
            self.parts.visit: gr.Column(visible=True),
        }

    # `cancels` of Gradio loses a run that begins before the last step of the stopped one is done.
    def cease(self, request: gr.Request) -> dict:
        self.studio.unwanted.add(request.session_hash)
        return {self.parts.status: "Stopping …", self.parts.stop: gr.Button(interactive=False)}

    def pick(self, made: list[Path], event: gr.SelectData) -> dict:
        return self.show(picked(made, event))

    def recall(self, made: list[list[Path]], event: gr.SelectData) -> dict:
        return self.show_run(picked(made, event))

    def take(self, event: gr.SelectData) -> tuple[str, str, int]:
        return picked(examples_of(self.studio), event)

    def again(self, folder: Path | None, made: list[Path]) -> dict:
        """The arguments that made a sample, with the seeds that follow."""
        settings = sample_settings(check_made(folder))
        last = max(sample_settings(each)["seed"] for each in made)
        fields = {field: settings[name] for name, field in zip(CALL_NAMES, self.asking) if name in settings}
        return {**fields, self.parts.seed: last + 1, self.parts.like: folder}

    def marking(self, folder: Path | None, made: list[Path]) -> dict:
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
            **self.again(folder, made),
            self.parts.seconds: self.studio.length_of(folder, settings),
            **marked,
            self.parts.like: None,
        }

    def offer(self, kind: str) -> dict:
        """The components that a start needs, and no others."""
        boxes = {"drawing": self.parts.drawn, "picture": self.parts.pictured, "sound": self.parts.sounded}
        shown = {box: gr.Column(visible=kind == name) for name, box in boxes.items()}
        from_noise = kind == "words" or (kind == "drawing" and self.studio.follows_lines)
        return {**shown, self.parts.strength: gr.Slider(visible=not from_noise)}

    def lay(
        self, path: str | None, fitted: str, swapped: bool, part: str, length: float, canvas_layout: str
    ) -> gr.ImageEditor:
        """The picture on the canvas, to be marked."""
        if path is None or part == "all":
            return gr.ImageEditor(None, visible=False)
        try:
            wanted = {"audio_length_in_s": length, "canvas_layout": canvas_layout}
            laid = self.studio.on_canvas(picture_of(path, swapped), wanted, fitted)
        except ValueError as error:
            raise as_message(error) from error
        return gr.ImageEditor(laid, visible=True, canvas_size=laid.size)

    def new_board(self, canvas_layout: str) -> gr.ImageEditor:
        return gr.ImageEditor(blank(canvas_layout, ground_of(self.studio)), canvas_size=BOARDS[canvas_layout])

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
        return {self.parts.start: gr.Button(interactive=not busy), self.parts.stop: gr.Button(interactive=busy)}
