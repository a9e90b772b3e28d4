"""What the first use costs: kernels compiled into an empty cache, then loaded from it.

    python benchmarks/first_use.py

Runs one process with an empty cache of kernels and two with the full one; each solves a small image of fluid
and solid in 3D and in 2D by ``-ksp_type dcd -pc_type cnn`` and ``cg``.  Prints the seconds of the imports,
of all set-ups and of all solves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

PROGRAM = """
import time
start = time.perf_counter()
import petsc4py
petsc4py.init([])
from petsc4py import PETSc
import consolve.solvers
from consolve.pde.poisson.domains import make_domain
from consolve.solvers import assemble_matrix

imported, set_up, solved = time.perf_counter() - start, 0.0, 0.0
for shape in ((48, 48, 48), (160, 160)):
    A = assemble_matrix(make_domain("spheres", shape, 7).operator())
    x, b = A.createVecs()
    b.setRandom()
    for kind in ("dcd", "cg"):
        ksp = PETSc.KSP().create()
        ksp.setOperators(A)
        ksp.setType(kind)
        ksp.getPC().setType("cnn")
        begin = time.perf_counter()
        ksp.setUp()
        middle = time.perf_counter()
        ksp.solve(b, x)
        set_up += middle - begin
        solved += time.perf_counter() - middle
        assert ksp.getConvergedReason() > 0
print(f"{imported:.2f} | {set_up:.2f} | {solved:.2f} | {imported + set_up + solved:.2f}")
"""


def main() -> int:
    """Print the table."""
    print("| cache | import s | set-ups s | solves s | together s |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="consolve-kernels-") as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        for name in ("empty", "full", "full"):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
            )
            print(f"| {name} | {done.stdout.strip()} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
