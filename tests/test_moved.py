"""Old addresses of modules go on working."""

import importlib
import subprocess
import sys

import pytest

from consolve.moved import MODULES, PACKAGES


@pytest.mark.parametrize("before", MODULES)
def test_a_module_is_found_at_its_old_address(before):
    now = MODULES[before]
    if "wave_mesh" in before or "dolfinx" in before or "submodel" in before:
        pytest.importorskip("dolfinx")
    if "muon" in before or "compression" in before:
        pytest.importorskip("torch")
    new = importlib.import_module(f"consolve.{now}")
    sys.modules.pop(f"consolve.{before}", None)
    with pytest.warns(FutureWarning, match=f"consolve.{before} has moved to consolve.{now}"):
        old = importlib.import_module(f"consolve.{before}")
    assert old is new and new.__name__ == new.__spec__.name == f"consolve.{now}"


@pytest.mark.parametrize(
    "statement",
    [
        "from consolve.learned.weights import load_weights, WeightsError",
        "from consolve.learned.multilevel import MultilevelPreconditioner",
        "from consolve.pde.flow import Flow",
        "from consolve.learned.weights import reader; from consolve.learned.weights import load_weights",
    ],
)
def test_names_of_modules_that_are_packages_now(statement):
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert done.returncode == 0 and "has moved to" in done.stderr, done.stderr


def test_other_names_are_errors_as_ever():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module("consolve.learned.weights").nothing
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("consolve.learned.nowhere")
    assert set(PACKAGES) >= {"learned.weights"}
