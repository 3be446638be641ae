"""The examples of docstrings run in a folder with a model and two photographs."""

import doctest
from pathlib import Path

import pytest

from omiad import Detector
from omiad.inspection import Inspection


@pytest.mark.parametrize("documented", [Detector.load, Detector.predict, Inspection])
def test_the_examples_of_a_docstring_run(
    documented: object, deciding: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deciding)
    example = doctest.DocTestFinder(recurse=False).find(documented, "example", globs={})[0]
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
