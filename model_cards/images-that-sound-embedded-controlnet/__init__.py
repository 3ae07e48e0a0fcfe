"""The folder of the embedded checkpoint's ControlNet, so that an installed package finds it."""
