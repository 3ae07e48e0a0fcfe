"""Command-line programs over the pipelines, each also a subcommand of `images-that-sound`."""
