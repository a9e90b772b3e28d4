"""Every line of code in docs/python.md, and in the docstrings that it is about, gives what it says."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

import consolve

pytest.importorskip("petsc4py")

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_block_gives_what_it_says():
    namespace, runner = {}, doctest.DocTestRunner(optionflags=FLAGS)
    for number, block in enumerate(blocks()):
        if "dolfinx" in block and importlib.util.find_spec("dolfinx") is None:
            continue
        test = doctest.DocTestParser().get_doctest(block, namespace, f"block {number}", str(PAGE), 0)
        assert test.examples
        runner.run(test, clear_globs=False)
        namespace = test.globs
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", ["solve", "aspreconditioner"])
def test_examples_of_the_docstrings(name):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=FLAGS)
    (test,) = finder.find(getattr(consolve, name), name, globs={})
    assert len(test.examples) >= 5
    assert runner.run(test).failed == 0


def test_every_block_is_one_of_python():
    """No code on the page escapes the test above."""
    fences = re.findall(r"^```(\w*)", PAGE.read_text(), re.MULTILINE)
    assert fences[::2] == ["python"] * len(blocks()) and not any(fences[1::2])
    assert len(blocks()) >= 8
