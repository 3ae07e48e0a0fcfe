"""
The open world: several hundred pictures and a hundred sounds with the words that people use for them, as squares of
256 pixels. `python -m training.open_world` fetches and renders its material once.
"""
