"""Reads Auffusion's vocoder (a HiFi-GAN checkpoint) as `transformers.SpeechT5HifiGan`."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from .images_that_sound_checks import check_integer, shown


def load_hifigan_vocoder(config_file: str | Path, checkpoint_file: str | Path) -> SpeechT5HifiGan:
    """
    Converts a HiFi-GAN generator of the original layout (`config.json` and `{"generator": state_dict}` with weight
    norm) to a float32 `SpeechT5HifiGan` that computes the same waveform. Nothing in the checkpoint is executed.

    Args:
        config_file (`str` or `Path`): The vocoder's `config.json`.
        checkpoint_file (`str` or `Path`): The vocoder's weights, such as `vocoder.pt`.

    Returns:
        [`~transformers.SpeechT5HifiGan`]: Takes log-mel of shape `(B, T, M)`, returns waveforms of shape `(B, N)`.

    Raises:
        ValueError: If the config can't be represented, or the checkpoint can't be read as plain tensors or does not
            fit the config.
    """
    config = _read_hifigan_config(config_file)
    weights = _read_generator(checkpoint_file)
    kernel_sizes = [k + (k - u) % 2 for k, u in zip(config["upsample_kernel_sizes"], config["upsample_rates"])]
    odd = {i for i, (k, u) in enumerate(zip(config["upsample_kernel_sizes"], config["upsample_rates"])) if (k - u) % 2}
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=config["num_mels"],
            sampling_rate=config["sampling_rate"],
            upsample_initial_channel=config["upsample_initial_channel"],
            upsample_rates=config["upsample_rates"],
            upsample_kernel_sizes=kernel_sizes,
            resblock_kernel_sizes=config["resblock_kernel_sizes"],
            resblock_dilation_sizes=config["resblock_dilation_sizes"],
            leaky_relu_slope=0.1,
            normalize_before=False,
        )
    )
    state_dict = _convert(weights, odd, checkpoint_file)
    try:
        missing, unexpected = vocoder.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise ValueError(f"`{checkpoint_file}` does not fit `{config_file}`: {error}") from error
    missing = set(missing) - {"mean", "scale"}
    if missing or unexpected:
        raise ValueError(
            f"`{checkpoint_file}` does not fit `{config_file}`: missing {sorted(missing)}, unexpected"
            f" {sorted(unexpected)}."
        )
    return vocoder.eval()


def read_json_object(config_file: str | Path) -> dict:
    """Reads a JSON object, such as a vocoder's `config.json`; raises `ValueError` if it is none."""
    try:
        config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`{config_file}` is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"`{config_file}` has to hold a JSON object, but holds {config!r}.")
    return config


def _read_hifigan_config(config_file: str | Path) -> dict:
    config = read_json_object(config_file)
    needed = (
        "num_mels",
        "sampling_rate",
        "upsample_initial_channel",
        "upsample_rates",
        "upsample_kernel_sizes",
        "resblock_kernel_sizes",
        "resblock_dilation_sizes",
    )
    absent = [name for name in needed if name not in config]
    if absent:
        raise ValueError(f"`{config_file}` lacks {absent}, without which no vocoder can be built.")
    if str(config.get("resblock", "1")) != "1":
        raise ValueError(
            f"`resblock` in `{config_file}` is {config['resblock']!r}, but only '1' can be represented by"
            " `SpeechT5HifiGan`."
        )
    for name in needed:
        if isinstance(config[name], list) != name.endswith(("rates", "sizes")):
            raise ValueError(f"`{name}` in `{config_file}` may not be {shown(config[name])}.")
        # A wider one than any would take memory before its weights are found not to fit.
        most = 2048 if name == "upsample_initial_channel" else 10**6
        for number in np.ravel(np.array(config[name], dtype=object)).tolist():
            check_integer(f"{name}` in `{config_file}", number, most=most)
    _check_upsampling(config, config_file)
    return config


def _check_upsampling(config: dict, config_file: str | Path) -> None:
    rates, kernel_sizes = config["upsample_rates"], config["upsample_kernel_sizes"]
    if len(rates) != len(kernel_sizes) or any(kernel < rate for rate, kernel in zip(rates, kernel_sizes)):
        raise ValueError(
            f"`upsample_kernel_sizes` in `{config_file}` has to name one kernel for each of `upsample_rates`, none"
            f" smaller than its rate, but they are {kernel_sizes} and {rates}."
        )


def _read_generator(checkpoint_file: str | Path) -> dict[str, torch.Tensor]:
    try:
        checkpoint = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything in the reader
        raise ValueError(
            f"`{checkpoint_file}` can't be read as a file of plain tensors. It was not executed. The reader says:"
            f" {error}"
        ) from error
    weights = checkpoint.get("generator") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"`{checkpoint_file}` has to hold a dict of tensors under 'generator'.")
    return weights


def _convert(weights: dict[str, torch.Tensor], odd: set[int], checkpoint_file: str | Path) -> dict[str, torch.Tensor]:
    converted = {}
    for name in {key.rsplit(".", 1)[0] for key in weights}:
        weight = _fold_weight_norm(weights, name, checkpoint_file).float()
        target = name.replace("ups.", "upsampler.", 1) if name.startswith("ups.") else name
        if name.startswith("ups.") and int(name.split(".")[1]) in odd:
            # HiFi-GAN trims odd kernels unevenly; one zero tap makes the trim even and the output the same.
            weight = torch.nn.functional.pad(weight, (0, 1))
        converted[f"{target}.weight"] = weight
        if f"{name}.bias" in weights:
            converted[f"{target}.bias"] = weights[f"{name}.bias"].float()
    return converted


def _fold_weight_norm(weights: dict[str, torch.Tensor], name: str, checkpoint_file: str | Path) -> torch.Tensor:
    if f"{name}.weight" in weights:
        return weights[f"{name}.weight"]
    if f"{name}.weight_g" not in weights or f"{name}.weight_v" not in weights:
        raise ValueError(f"`{checkpoint_file}` has neither '{name}.weight' nor '{name}.weight_g' and '.weight_v'.")
    direction = weights[f"{name}.weight_v"].float()
    norm = direction.norm(dim=tuple(range(1, direction.dim())), keepdim=True)
    return weights[f"{name}.weight_g"].float() * direction / norm
