"""A smoke flow around an obstacle of your own, its pressure by PETSc with the learned preconditioner.

    python examples/flow_with_obstacle.py

A scene is plain data: bodies, sources and walls.  Here a turning paddle stands over a wide source of smoke.
"""

import sys
from pathlib import Path

import numpy as np

from consolve.pde import AIR, SOLID
from consolve.pde.flow.bodies import Paddle, Sphere
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.output import FlowWriter
from consolve.pde.flow.picture import save_picture
from consolve.pde.flow.scenes import Scene, Source
from consolve.solvers.pressure import PressureSolver


def scene(cells: int = 128) -> Scene:
    """A box as wide as high, open on top."""
    return Scene(
        name="own",
        shape=(cells, cells),
        outside=((SOLID, AIR), (SOLID, SOLID)),
        bodies=(
            Paddle((0.45, 0.5), length=0.4, thickness=0.05, width=0.3, angle=0.3, rate=2.0),
            Sphere((0.75, 0.3), 0.08),
        ),
        sources=(Source((0.07, 0.5), 0.1),),
        vorticity_confinement=0.15,
    )


def run(cells: int = 128, steps: int = 60, out: Path | None = None) -> tuple[float, float]:
    """Step the flow.

    Returns
    -------
    Mean iterations of a projection, and the greatest divergence left by one.
    """
    flow = Flow(scene(cells))
    pressure = PressureSolver("-ksp_type cg -ksp_rtol 1e-6 -pc_type cnn")
    writer = FlowWriter(out, "own") if out else None
    divergence = 0.0
    for step in range(steps):
        divergence = max(divergence, flow.step(pressure).divergence_after)
        if writer and step % 10 == 9:
            writer.write(flow)
    if out:
        save_picture(flow, out / "own.png")
    return float(np.mean([record.iterations for record in pressure.records])), divergence


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "own-flow")
    iterations, divergence = run(out=out)
    print(f"{iterations:.1f} iterations a projection, divergence at most {divergence:.1e}; see {out}/")
