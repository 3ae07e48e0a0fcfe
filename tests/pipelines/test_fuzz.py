"""Random calls: each returns, or raises a `ValueError` or a `TypeError`. `tests/fuzz_calls.py` makes more of them."""

import logging

import fuzz_calls
import pytest


@pytest.fixture(scope="module")
def targets():
    return fuzz_calls.make_targets()


@pytest.mark.filterwarnings("ignore")
def test_random_calls_return_or_are_refused(targets, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    outcomes = {"result": 0, "refused": 0}
    for index in range(200):
        name, outcome, given, error = fuzz_calls.run_call(targets, seed=0, index=index)
        assert outcome != "broken", f"--seed 0 --first {index}: {name} with {given} raised {error!r}"
        outcomes[outcome] += 1
    assert outcomes["result"] > 20 and outcomes["refused"] > 50, "both ways out have to be taken"
