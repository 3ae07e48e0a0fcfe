"""Trains the colorization of the open world, as `colorization` does for the drawn world."""

from . import open_world
from .colorization import train_colorization
from .loop import parse_run


def main(input_args: list[str] | None = None) -> None:
    steps = {"text": 2000, "stage_1": 6000, "stage_2": 1500}
    work_dir = "outputs/train_open_colorization"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=8000, batch_size=16, steps=steps)
    train_colorization(run, open_world, vocab_size=2000)


if __name__ == "__main__":
    main()
