"""Which timesteps score distillation draws, and how it weights them."""

import pytest
import torch

from images_that_sound.schedulers import ScoreDistillationScheduler


ALPHAS_CUMPROD = torch.linspace(0.99, 0.01, 1000)


def draw(scheduler, count=5000, iteration=0, num_iterations=11, alphas_cumprod=ALPHAS_CUMPROD):
    return scheduler.draw(count, iteration, num_iterations, alphas_cumprod, torch.Generator().manual_seed(0))


def test_draws_are_uniform_between_both_bounds():
    timesteps, _ = draw(ScoreDistillationScheduler(), count=20000)
    assert timesteps.min() == 20 and timesteps.max() == 980
    counts = torch.histc(timesteps.float(), bins=4, min=20, max=980)
    # Five standard deviations of a binomial number of 20000 with chance 1/4.
    assert (counts - 5000).abs().max() < 5 * (20000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_train_timesteps", [4, 1000])
@pytest.mark.parametrize("count", [1, 7])
def test_shapes_types_and_weights(count, num_train_timesteps, dtype):
    alphas_cumprod = torch.linspace(0.99, 0.01, num_train_timesteps, dtype=dtype)
    timesteps, weights = draw(ScoreDistillationScheduler(), count, alphas_cumprod=alphas_cumprod)
    assert timesteps.shape == weights.shape == (count,)
    assert timesteps.dtype == torch.int64 and weights.dtype == dtype
    assert 0 <= timesteps.min() and timesteps.max() < num_train_timesteps
    torch.testing.assert_close(weights, 1 - alphas_cumprod[timesteps])


def test_the_upper_bound_falls_linearly_along_the_run():
    annealed = ScoreDistillationScheduler(min_timestep=0.1, final_max_timestep=0.3)
    for iteration in range(11):
        timesteps, _ = draw(annealed, count=20000, iteration=iteration)
        assert timesteps.min() == 100
        assert timesteps.max() == pytest.approx(980 - 68 * iteration, abs=1)


def test_the_generator_decides():
    scheduler = ScoreDistillationScheduler()
    first, second = (draw(scheduler)[0] for _ in range(2))
    assert torch.equal(first, second)
    other, _ = scheduler.draw(5000, 0, 11, ALPHAS_CUMPROD, torch.Generator().manual_seed(1))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["min_timestep", "max_timestep", "final_max_timestep"])
@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), "0.5", True])
def test_values_outside_0_to_1_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.* {value!r}"):
        ScoreDistillationScheduler(**{name: value})


@pytest.mark.parametrize("name", ["min_timestep", "max_timestep"])
def test_only_the_final_bound_may_be_absent(name):
    with pytest.raises(ValueError, match=f"`{name}`.* None"):
        ScoreDistillationScheduler(**{name: None})


@pytest.mark.parametrize("name", ["max_timestep", "final_max_timestep"])
def test_an_upper_bound_below_the_lower_one_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` has to be at least `min_timestep`, 0.5, but is 0.2"):
        ScoreDistillationScheduler(**{"min_timestep": 0.5, name: 0.2})
    assert ScoreDistillationScheduler(**{"min_timestep": 0.5, name: 0.5})
