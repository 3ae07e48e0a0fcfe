"""
Trains the open world's checkpoint of colorization as `training.colorization` does, on its drawings in flat colours.
"""

from .colorization import train_colorization
from .loop import parse_run
from .open_world import colored


def main(input_args: list[str] | None = None) -> None:
    steps = {"text": 2000, "stage_1": 2400, "stage_2": 1000}
    work_dir = "outputs/open_colorization"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=1000, batch_size=16, steps=steps)
    train_colorization(run, colored, vocab_size=2048)


if __name__ == "__main__":
    main()
