"""The package's own name: what it offers, and that it costs nothing before it is used."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import images_that_sound
from images_that_sound import pipelines, schedulers, selection


def test_public_names_are_those_of_their_modules():
    for package in (pipelines, schedulers, selection):
        for name in package.__all__:
            value = getattr(package, name)
            assert name.isupper() or value.__name__ == name
    for package in (pipelines, schedulers):
        for name in package.__all__:
            assert getattr(images_that_sound, name) is getattr(package, name)
    assert images_that_sound.__version__ == version("images-that-sound")
    for package in (images_that_sound, pipelines, schedulers, selection):
        with pytest.raises(AttributeError, match="'nothing'"):
            print(package.nothing)


def test_importing_the_packages_imports_no_torch(tmp_path):
    code = (
        "import sys, images_that_sound.scripts.common.call_arguments, images_that_sound.schedulers\n"
        "import images_that_sound.selection\n"
        "images_that_sound.__version__\n"
        "print(sorted({'torch', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"
