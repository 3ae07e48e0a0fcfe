"""What is read from a pipeline's source is what Python itself says of the class."""

import inspect
from pathlib import Path

import pytest

from images_that_sound.pipelines import (
    FactorizedColorizationPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)
from images_that_sound.scripts.common.call_arguments import CallArgument, read_call


PIPELINES = [
    FactorizedColorizationPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
]
SOURCE = '''
class Other:
    def __call__(self, x): pass

class Pipeline:
    """Args:
        a: nothing of the call.
    """

    def __call__(self, a, b: float | list[float] | None = None, *, c: dict[str, int] = {"d": 1}):
        """
        Does something.

        Args:
            a (`int`): On the same line,
                and on the next.
            b (`float`
                or more):
                Below: (a), b (`c`):
                d.

            c (*optional*):
                After a blank line.

        Returns:
            `int`: Not an argument.
        """
'''


@pytest.mark.parametrize("pipeline_class", PIPELINES)
def test_arguments_are_those_of_the_signature(pipeline_class):
    arguments = read_call(Path(inspect.getsourcefile(pipeline_class)), pipeline_class.__name__)
    parameters = dict(inspect.signature(pipeline_class.__call__).parameters)
    del parameters["self"]
    assert list(arguments) == list(parameters)
    for name, parameter in parameters.items():
        assert arguments[name].default == parameter.default
        assert arguments[name].description.endswith(".")
        assert "  " not in arguments[name].description and "\n" not in arguments[name].description


def test_annotations_defaults_and_texts(tmp_path):
    (tmp_path / "file.py").write_text(SOURCE)
    assert list(read_call(tmp_path / "file.py", "Pipeline").values()) == [
        CallArgument("a", "", inspect.Parameter.empty, "On the same line, and on the next."),
        CallArgument("b", "float | list[float] | None", None, "Below: (a), b (`c`): d."),
        CallArgument("c", "dict[str, int]", {"d": 1}, "After a blank line."),
    ]
    with pytest.raises(ValueError, match="`class_name` has to name a class of .*file.py .*'Missing'"):
        read_call(tmp_path / "file.py", "Missing")
