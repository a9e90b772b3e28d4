"""Where the time of the engine goes: each kernel of the finest level, the cycle, and the stages of set-up.

    python benchmarks/kernels.py [DIM CELLS]        default: 3 128, domain spheres

Prints nanoseconds per cell of the grid (best of several runs, all threads) and milliseconds of set-up, for
`mg` and `multilevel`.  Run it on an idle machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from consolve.learned import coarsen_kernels, cycle_kernels, setup_kernels
from consolve.learned.multilevel import MultilevelPreconditioner
from consolve.learned.weights import SHIPPED, load_weights
from consolve.pde.domains import make_domain

STAGES = (
    (setup_kernels, ("largest_face", "is_uniform", "load_finest", "inverse_diagonal", "level_kernels")),
    (coarsen_kernels, ("block_sums", "coarse_faces")),
)
SEED, RUNS = 7, 7


def best(function: Callable[..., Any], *arguments: Any) -> float:
    """Shortest of several runs after a first one, seconds."""
    function(*arguments)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def fine_kernels(m: MultilevelPreconditioner) -> dict[str, float]:
    """Seconds of each kernel on the finest level, of a cycle from the first and from the second level."""
    hierarchy, threads = m._hierarchy, m.threads
    assert hierarchy is not None
    layout, arena = hierarchy.layout, hierarchy.arena
    n0, n1, _ = (int(n) for n in layout.shapes[0])
    c0, c1, c2 = (int(n) for n in layout.shapes[1])

    def array(name: str, level: int = 0) -> np.ndarray:
        return layout.array(arena, level, name)

    own = [array(name) for name in ("own", "prolong0", "prolong1", "prolong2")]
    sweep = [
        array(name) for name in ("x", "b", "residual", "smoother", "diagonal", "face0", "face1", "face2")
    ]
    uniform, alpha = bool(layout.table[0, 5]), np.float32(1)

    def half(mode: int, colour: int) -> float:
        kernel = cycle_kernels.half_sweep_threads
        return best(kernel, *sweep, uniform, n0, n1, colour, alpha, mode, 0, n0 * n1, threads)

    coarse_x = array("x", 1)
    joined = np.zeros((coarse_x.shape[1], c2 + 2), np.float32)
    down, up = (n0, n1, c0, c1, c2, 0, c0 * c1, threads), (n0, n1, c0, c1, 0, n0 * n1, threads)
    cycle = (hierarchy._alpha, hierarchy.inverse, threads)
    return {
        "half-sweep, red from zero": half(cycle_kernels.FRESH, 0),
        "half-sweep, black from zero": half(cycle_kernels.FRESH, 1),
        "half-sweep": half(cycle_kernels.RELAX, 0),
        "half-sweep and residual": half(cycle_kernels.RELAX_AND_RESIDUAL, 1),
        "residual of one colour": half(cycle_kernels.RESIDUAL, 0),
        "restriction": best(cycle_kernels.restrict_threads, array("residual"), *own, array("b", 1), *down),
        "prolongation": best(cycle_kernels.prolong_threads, array("x"), *own, joined, *up),
        "cycle": best(cycle_kernels.v_cycle, arena, layout.table, *cycle),
        "cycle from the second level": best(cycle_kernels.v_cycle, arena, layout.table[1:].copy(), *cycle),
    }


def setup_stages(m: MultilevelPreconditioner, operator: Any) -> dict[str, float]:
    """Seconds of each stage of one set-up over all levels, and of the whole; memory is in use already."""
    spent: dict[str, float] = {}
    originals = [(module, name, getattr(module, name)) for module, names in STAGES for name in names]

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return result

        return call

    try:
        for module, name, function in originals:
            setattr(module, name, timed(name, function))
        m.update(operator)
        spent.clear()
        start = time.perf_counter()
        m.update(operator)
        spent["set-up"] = time.perf_counter() - start
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
    return spent


def main() -> int:
    """Print the tables."""
    dim, n = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (3, 128)
    operator = make_domain("spheres", (n,) * dim, SEED).operator()
    r = np.random.default_rng(0).standard_normal(operator.unknowns)
    z = np.empty_like(r)
    for name in SHIPPED:
        m = MultilevelPreconditioner(operator, load_weights(name, dim))
        print(f"\n{name}, {n}^{dim}, {m.threads} threads\n\n| kernel | ns per cell |\n|---|---|")
        rows = fine_kernels(m) | {"apply, ways in and out included": best(m.apply, r, z)}
        for kernel, seconds in rows.items():
            print(f"| {kernel} | {seconds / n**dim * 1e9:.2f} |")
        print("\n| stage of set-up | ms |\n|---|---|")
        for stage, seconds in setup_stages(m, operator).items():
            print(f"| {stage} | {seconds * 1e3:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
