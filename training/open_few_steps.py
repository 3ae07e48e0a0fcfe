"""
Distils the open world's pair as `training.few_steps` does, on squares that the pair composes. Run `training.text`
before. Writes `lcm_lora`.
"""

from dataclasses import replace

import numpy as np

from .few_steps import BATCH_SIZE, make_canvases, save_loras, train_loras
from .loop import Run, parse_run
from .open_pipeline import DEFAULT_ARGUMENTS, open_pipeline
from .open_world.pictures import SQUARE
from .open_world.squares import describe, make_squares


def main(input_args: list[str] | None = None) -> None:
    steps, work_dir = {"lora": 1000}, "outputs/open_world"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=8, steps=steps)
    data = make_squares(run.work_dir, 1000, ("picture", "sound"))

    def prompts_of(run: Run, number: int) -> tuple[list[str], list[str]]:
        numbers = np.random.default_rng([run.seed, 7, number])
        rows = {kind: numbers.integers(len(data[kind].labels), size=BATCH_SIZE) for kind in data}
        return tuple([describe(kind, data[kind].labels[row], numbers) for row in rows[kind]] for kind in data)

    pipe = open_pipeline(run.output_dir).to(run.device)
    pipe.set_progress_bar_config(disable=True)
    canvases = make_canvases(run, pipe, prompts_of, width=SQUARE)
    train_loras(run, pipe, canvases, DEFAULT_ARGUMENTS["guidance_scale"])
    save_loras(replace(run, output_dir=run.output_dir / "lcm_lora"), pipe)


if __name__ == "__main__":
    main()
