"""What setup.py promises is what the workflow tests."""

from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).parents[1]


@pytest.fixture
def matrix() -> list[dict]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    return workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]


def test_floors_are_the_oldest_versions_that_are_tested(matrix):
    requirements = [Requirement(line) for line in requires("images-that-sound")]
    floors = {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in requirements
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    always = {canonicalize_name(requirement.name) for requirement in requirements if not requirement.marker}
    assert always <= set(floors)
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert floors == {canonicalize_name(name): Version(version) for name, version in pins.items()}
    oldest = [(job["python"], job["constraints"]) for job in matrix if job["versions"] == "oldest"]
    assert oldest == [("3.11", "-c constraints-oldest.txt")]


def test_each_promised_python_is_tested(matrix):
    package = metadata("images-that-sound")
    classifier = "Programming Language :: Python :: 3."
    promised = {line.split(" :: ")[-1] for line in package.get_all("Classifier") if line.startswith(classifier)}
    assert promised == {job["python"] for job in matrix}
    assert SpecifierSet(package["Requires-Python"]) == SpecifierSet(f">={min(promised, key=Version)}")
