"""Rankings and intervals, against plain sorting, SciPy and numbers worked out by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from images_that_sound.selection import (
    best,
    best_of,
    choice_score,
    combined_score,
    mean_and_interval,
    share_and_interval,
    top_by_all,
)


def test_best_sorts_and_puts_what_has_no_score_last():
    assert best([0.1, math.nan, 0.9, 0.5, 0.9], 5) == [2, 4, 3, 0, 1]
    assert best([0.1, 0.9], 1) == [1]
    assert best([0.1, 0.9], 7) == [1, 0]


def test_combined_score_is_the_mean_percentile():
    numbers = np.random.default_rng(0)
    first, second = numbers.permutation(20) / 20, numbers.permutation(20) / 20
    percentiles = [(scipy.stats.rankdata(values) - 1) / 19 for values in (first, second)]
    np.testing.assert_allclose(combined_score({"clip": first, "clap": second}), np.mean(percentiles, axis=0))


def test_combined_score_counts_equal_ones_by_half_and_has_none_for_what_lacks_a_score():
    np.testing.assert_allclose(combined_score({"clip": [1, 1, 1]}), [0.5] * 3)
    combined = combined_score({"clip": [math.nan, 0.1, 0.2], "clap": [0.9, 0.8, 0.9]})
    assert best(combined, 3) == [2, 1, 0] and best_of(combined, 3) == [2, 1]
    assert top_by_all({"clip": [math.nan] * 2, "clap": [1, 2]}, 1.0) == []
    assert combined_score({"clip": [0.3]}) == [0.0]


def test_what_is_chosen_is_probable_or_has_high_ranks_where_lifts_count():
    cosines = {"clip": [0.9, 0.2, 0.1], "clap": [0.8, 0.3, 0.4]}
    logarithms = {"clip_log_probability": [-2.0, -0.1, math.nan], "clap_log_probability": [-0.1, -0.5, -0.1]}
    np.testing.assert_allclose(choice_score({**cosines, **logarithms}), [math.exp(-2.1), math.exp(-0.6), math.nan])
    assert choice_score(cosines) == combined_score(cosines)
    lifts = {"image_lift": [0.1, 0.2, 0.3], "audio_lift": [0.1, 0.2, 0.3]}
    assert choice_score({**cosines, **logarithms, **lifts}) == combined_score({**cosines, **lifts})


def test_top_by_all_is_the_published_rule():
    clip = list(range(10))
    assert top_by_all({"clip": clip, "clap": clip}, 0.2) == [9, 8]
    assert top_by_all({"clip": clip, "clap": clip[::-1]}, 0.2) == []
    assert top_by_all({"clip": clip[:4], "clap": clip[:4]}, 0.2) == []
    with pytest.raises(ValueError, match="`share` has to be in 0..1, but is 2"):
        top_by_all({"clip": clip}, 2)


def test_intervals():
    values = [0.2, 0.4, 0.9, 0.5]
    mean, half = mean_and_interval(values)
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(1.96 * scipy.stats.sem(values))
    assert math.isnan(mean_and_interval([0.3])[1])
    for count in (0, 62, 100):
        low, high = scipy.stats.binomtest(count, 100).proportion_ci(method="wilson")
        assert share_and_interval(count, 100) == pytest.approx((count / 100, low, high), abs=1e-4)
        assert 0 <= share_and_interval(count, 100)[1] and share_and_interval(count, 100)[2] <= 1
    assert share_and_interval(0, 10)[1] == 0
