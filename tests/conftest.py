"""Shared settings of the tests."""

import os
from collections.abc import Iterator
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
