"""The folder of the embedded checkpoint, so that an installed package finds it."""
