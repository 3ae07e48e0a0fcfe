"""The folder of the embedded colorization, so that an installed package finds it."""
