"""Shared settings of the tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before Numba starts its threads: those that spin while they wait slow down all others on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import HealthCheck, settings

_COMMON: dict[str, Any] = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_EXAMPLES = int(os.environ.get("CONSOLVE_EXAMPLES", "25"))
# The same cases in every run, so that none fails by chance; fresh ones with --slow.
settings.register_profile("same", max_examples=_EXAMPLES, derandomize=True, **_COMMON)
settings.register_profile("fresh", max_examples=_EXAMPLES, print_blob=True, **_COMMON)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("fresh" if config.getoption("--slow") else "same")


_LONG = (
    "plugin/test_programs", "commands/test_train_wave", "learned/multilevel/test_ranks",
    "commands/test_train_dcdm",
    "learned/dcdm/test_training", "learned/waves/test_training", "commands/test_cli",
    "solvers/matrix/test_stencil_ranks", "learned/multilevel/test_training",
    "pde/matrix/test_regular_kernels", "pde/waves/test_finite_elements",
    "examples/test_wave_submodel", "examples/test_wave_screening",
    "learned/multilevel/test_thin_shapes", "commands/test_streams", "plugin/test_errors", "solvers/test_wild",
)  # fmt: skip
"""The files of ten seconds and more begin: a process with one of them at the end would work alone."""


def _place(item: pytest.Item) -> int:
    name = item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    return _LONG.index(name) if name in _LONG else len(_LONG)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def problems() -> Iterator[Any]:
    """PETSc 3.18 crashes at exit on a foreign Python type that still lives, so none outlives its test."""
    from petsc_problems import Problems, made

    yield Problems
    while made:
        made.pop().destroy()
