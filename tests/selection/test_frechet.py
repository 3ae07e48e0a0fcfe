"""Fréchet distances, compared with SciPy's root of matrices and with a closed form."""

import math

import numpy as np
import pytest
import scipy.linalg

from images_that_sound.selection import frechet_distance


def by_scipy(features, reference):
    covariances = [np.cov(each, rowvar=False) for each in (features, reference)]
    mixed = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = features.mean(axis=0) - reference.mean(axis=0)
    return shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * mixed)


def test_distances_are_those_of_the_formula():
    numbers = np.random.default_rng(0)
    features, reference = (
        numbers.normal(size=(300, 6)),
        numbers.normal(size=(200, 6)) @ numbers.normal(size=(6, 6)) + 1,
    )
    assert frechet_distance(features, reference) == pytest.approx(by_scipy(features, reference), rel=1e-9)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    # Equal covariances: what is left is the distance of the means.
    assert frechet_distance(features, features + 2) == pytest.approx(6 * 2**2)


def test_fewer_features_than_numbers_in_each():
    numbers = np.random.default_rng(1)
    features, reference = numbers.normal(size=(5, 40)), numbers.normal(size=(7, 40))
    assert frechet_distance(features, reference) == pytest.approx(by_scipy(features, reference), rel=1e-4)
    assert math.isnan(frechet_distance(features[:1], reference))


def test_sets_of_other_features_are_refused():
    with pytest.raises(ValueError, match=r"of shapes \(N, D\) and \(M, D\), but are of \(5, 3\) and \(5, 4\)"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
