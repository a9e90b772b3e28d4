"""Pressure systems of a running flow, kept in a file: matrix and right-hand side of chosen steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from consolve.base.files import whole_file
from consolve.pde.flow.flow import Flow, PressureSolver
from consolve.pde.flow.scenes import Scene
from consolve.pde.poisson.grid import FLUID, SOLID, GridOperator, Sides


@dataclass(frozen=True)
class System:
    """One pressure system A x = b of a flow.

    Attributes
    ----------
    frame
        The time step that it belongs to, from 1.
    operator
        A; the same object for systems with the same solid cells.
    rhs
        b, float64 on all cells.
    """

    frame: int
    operator: GridOperator
    rhs: NDArray[np.float64]


def capture(
    scene: Scene,
    frames: Iterable[int],
    pressure_solver: PressureSolver,
    path: str | PathLike[str],
    on_step: Callable[[int], None] = lambda step: None,
) -> Flow:
    """Run a flow and write the pressure systems of the chosen steps to ``path`` (``.npz``).

    Parameters
    ----------
    scene
        What flows.
    frames
        Numbers of the steps, from 1; the flow ends after the last.
    pressure_solver
        Of all projections of the run.
    path
        The file, whole or absent.
    on_step
        Called after each step.

    Returns
    -------
    The flow after its last step.
    """
    chosen = sorted(set(frames))
    if not chosen or chosen[0] < 1:
        raise ValueError(f"frames must be step numbers from 1, got {chosen}")
    flow = Flow(scene)
    kept: dict[str, NDArray] = {"frames": np.array(chosen), "outside": np.array(scene.outside)}

    def keep(operator: GridOperator, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        if flow.steps + 1 in chosen:
            kept[f"solid_{flow.steps + 1}"] = ~operator.active
            kept[f"rhs_{flow.steps + 1}"] = rhs.copy()
        return pressure_solver(operator, rhs)

    for step in range(1, chosen[-1] + 1):
        flow.step(keep)
        on_step(step)
    with whole_file(path) as part:
        np.savez(part, **kept)  # type: ignore[arg-type]
    return flow


def read_systems(path: str | PathLike[str]) -> Iterator[System]:
    """The systems of a file of :func:`capture`, one after the other."""
    with np.load(path) as file:
        outside: Sides = tuple((int(low), int(high)) for low, high in file["outside"])
        solid, operator = None, None
        for frame in file["frames"]:
            now = file[f"solid_{frame}"]
            if operator is None or solid is None or not np.array_equal(now, solid):
                solid = now
                operator = GridOperator.from_cell_types(np.where(now, SOLID, FLUID), outside)
            yield System(int(frame), operator, file[f"rhs_{frame}"])
