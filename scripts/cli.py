"""The console command `images-that-sound`: one subcommand for each script."""

import difflib
import sys
from importlib import import_module

from .. import __version__


COMMANDS = {
    "hide": "Hides pictures in a sound of yours, which stays as it is.",
    "generate": "Makes images that sound.",
    "extend": "Paints more of a sample to its right.",
    "search": "Finds the best of many seeds for a part of the price.",
    "rank": "Ranks samples and shows them on one page.",
    "evaluate": "Means and intervals of scores of samples.",
    "compare": "Repeats the paper's comparison on any pair of models.",
    "imprint": "Paints pictures into spectrograms, the baseline.",
    "sds": "Optimises canvases against both models, the other baseline.",
    "colorize": "Colours the pictures of samples.",
    "check": "Compares what saved pictures show with what their sounds hold.",
    "play": "Plays any picture as a spectrogram.",
    "see": "Shows any sound as a canvas.",
    "train-lora": "Learns sounds of yours.",
    "publish": "Puts the repos of code and weights on the Hub.",
}


def main() -> None:
    names = "".join(f"\n  {name:<12}{text}" for name, text in COMMANDS.items())
    usage = (
        f"usage: images-that-sound COMMAND [arguments]\n{names}\n\n"
        "images-that-sound COMMAND --help says more; images-that-sound --version, which one this is."
    )
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(usage)
        return
    if sys.argv[1] == "--version":
        print(f"images-that-sound {__version__}")
        return
    if sys.argv[1] not in COMMANDS:
        near = difflib.get_close_matches(sys.argv[1], COMMANDS, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise SystemExit(f"error: {sys.argv[1]!r} is no command.{meant}\n\n{usage}")
    import_module(f".{sys.argv[1].replace('-', '_')}", __package__).main(sys.argv[2:])


if __name__ == "__main__":
    main()
