"""The loop on a regression of one layer: stopped and started again, also to another number of steps."""

from pathlib import Path

import pytest
import torch

from training.loop import Run, train, trapezoid


def fit(folder: Path, num_steps: int, stop_at: int | None = None, **schedule: object) -> torch.Tensor:
    """The weights after so many steps, or an interrupt at one of them."""
    run = Run(folder, folder, "cpu", 0, 0, 8, 0.1, 5, False, {"layer": num_steps})
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1)

    def loss_of_step(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        _, generator = run.generators(0, step)
        inputs = torch.randn(8, 3, generator=generator)
        return (layer(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()

    train(run, "layer", layer, loss_of_step, **schedule)
    return layer.weight.detach().clone()


@pytest.mark.parametrize("schedule", [{}, {"learning_rate_at": trapezoid, "average_decay": 0.9}])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, schedule):
    whole = fit(tmp_path / "whole", 40, **schedule)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", 40, stop_at=23, **schedule)
    assert torch.equal(fit(tmp_path / "stopped", 40, **schedule), whole)


def test_a_run_may_go_on_to_another_number_of_steps(tmp_path):
    schedule = {"learning_rate_at": trapezoid, "average_decay": 0.9}
    short = fit(tmp_path, 20, **schedule)
    longer = fit(tmp_path, 200, **schedule)
    assert not torch.equal(short, longer)
    assert torch.allclose(longer, torch.ones(1, 3), atol=0.02)


@pytest.mark.parametrize("schedule", [{}, {"learning_rate_at": trapezoid}])
def test_a_stage_of_no_steps_leaves_the_weights(tmp_path, schedule):
    weights = fit(tmp_path, 0, **schedule)
    torch.manual_seed(0)
    assert torch.equal(weights, torch.nn.Linear(3, 1).weight)
    assert not any(tmp_path.iterdir())


def test_the_trapezoid_rises_stays_and_falls():
    assert trapezoid(0) == pytest.approx(1e-3)
    assert trapezoid(0.3) == trapezoid(0.7) == 1
    assert trapezoid(0.85) == pytest.approx(0.5) and trapezoid(1) == 0
