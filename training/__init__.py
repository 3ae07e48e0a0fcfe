"""How the checkpoints that ship with the project are made and measured, in a clone: `python -m training.NAME`."""
