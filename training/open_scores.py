"""
Trains the CLIP and the CLAP of the open world, as `scores` does for the drawn world, with the tokenizer of the
checkpoint in `--output_dir`, into which they go.
"""

from transformers import CLIPTokenizer

from . import open_world
from .loop import parse_run
from .scores import train_scores


def main(input_args: list[str] | None = None) -> None:
    steps = {"clip": 6000, "clap": 3000}
    work_dir = "outputs/train_open_scores"
    run = parse_run(__doc__, input_args, work_dir=work_dir, num_draws=12000, batch_size=96, steps=steps)
    train_scores(run, open_world, CLIPTokenizer.from_pretrained(run.output_dir / "tokenizer"), width=96)


if __name__ == "__main__":
    main()
