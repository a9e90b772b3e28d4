"""Where the time of the engine goes: each kernel of the finest level, the cycle, and the stages of set-up.

    python benchmarks/kernels.py [DIM CELLS]        default: 3 128, domain spheres

Prints, for `mg` and `multilevel`, nanoseconds per cell of the grid (best of several runs, all threads), the
bytes that have to come from or go to memory, counted, the bytes per second that this makes, and their share
of the triad's (over 1 where the levels fit into a cache, as at 64^3); and milliseconds of each stage of
set-up.  The kernels' rows go to benchmarks/results/kernels.json, from which `benchmarks/roofline.py` draws.
Run it on an idle machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba.extending import is_jitted
from row_file import RowFile

from consolve.bench.triad import triad
from consolve.learned.multilevel.cycle import cycle_kernels
from consolve.learned.multilevel.cycle.row_vectors import LANES, PRODUCTS, RELAX
from consolve.learned.multilevel.engine import preconditioner as multilevel
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import SHIPPED, load_weights
from consolve.learned.multilevel.setup import hierarchy
from consolve.pde.poisson.domains import make_domain

RESULTS = Path(__file__).parent / "results" / "kernels.json"
KEY = ("kernel", "network", "domain", "dim", "cells", "threads")
DOMAIN, SEED, RUNS = "spheres", 7, 15


@dataclass(frozen=True)
class Kernel:
    """One kernel, per cell of the grid.

    Attributes
    ----------
    kernel
        Its name.
    flops
        Additions and multiplications in floating point.
    bytes
        That must come from or go to memory once, a line that is written without being read first counted
        twice; 0 where nothing is counted.
    ns
        Measured nanoseconds.
    """

    kernel: str
    flops: float
    bytes: float
    ns: float

    @property
    def gb_per_s(self) -> float | None:
        """Counted bytes over measured time."""
        return self.bytes / self.ns if self.bytes else None


@dataclass(frozen=True)
class Work:
    """Flops and bytes per cell of a level, as the code of cycle_kernels and row_vectors has them.

    Parameters
    ----------
    axes
        2 or 3.
    packed
        Two words of coefficients a cell, no face coefficients.
    sweeps
        Red-black sweeps before, and after, the coarse correction.
    """

    axes: int
    packed: bool
    sweeps: int

    @property
    def coefficients(self) -> int:
        """Bytes of all: 2 words, or smoother, diagonal, own, and a weight and a face coefficient an axis."""
        return 8 if self.packed else 4 * (3 + 2 * self.axes)

    @property
    def weights(self) -> int:
        """Bytes of the coefficients of transfers."""
        return 4 if self.packed else 4 * (1 + self.axes)

    def sweep_flops(self, after_sum: float, neighbours: bool = True) -> float:
        """Of a half-sweep, per cell of the level: the sum over neighbours, and ``after_sum`` more."""
        each = (1 if self.packed else 2) * 2 * self.axes if neighbours else 0
        return (each + after_sum) / 2

    def half_sweep(self) -> tuple[float, float]:
        """x_c += alpha w (b - A x)_c: reads b, w and d of one colour, x of both, all faces; writes x_c."""
        return self.sweep_flops(5), 8 + (2 if self.packed else 4 + 4 * self.axes)

    def restriction(self) -> tuple[float, float]:
        """Flops inside a block 7 a cell if packed, else 4, from each block beside 2.5, else 2; t, weights."""
        flops = 7 + 2.5 * (self.axes - 1) if self.packed else 4 + 2 * (self.axes - 1)
        return flops, 4 + self.weights

    def prolongation(self) -> tuple[float, float]:
        """x += P x_coarse: x in and out, weights."""
        flops = 2 * self.axes + 5.5 if self.packed else 2 * (1 + self.axes)
        return flops, 8 + self.weights

    def down(self, update: bool) -> tuple[float, float]:
        """The pass down: b; x and t, which are allocated; coefficients.  With the update s, and b back."""
        steps = 2 * self.sweeps
        flops = self.sweep_flops(2, neighbours=False) + self.sweep_flops(2 if steps > 2 else 5)
        if steps > 2:
            flops += (steps - 3) * self.sweep_flops(5) + self.sweep_flops(7)
        flops += self.sweep_flops(2) + self.restriction()[0] + (4 if update else 0)
        return flops, 4 + 8 + 8 + self.coefficients + (12 if update else 0)

    def up(self, product: bool) -> tuple[float, float]:
        """The pass up: x in and out, b, coefficients.  With the product w, allocated, and s."""
        flops = self.prolongation()[0] + 2 * self.sweeps * self.sweep_flops(5)
        flops += 2 * self.axes + 1 + 2 * PRODUCTS if product else 0
        return flops, 12 + self.coefficients + (12 if product else 0)


def added(*parts: tuple[float, float]) -> tuple[float, float]:
    """Sum of flops, sum of bytes."""
    return sum(p[0] for p in parts), sum(p[1] for p in parts)


def coarse_work(m: MultilevelPreconditioner, axes: int) -> tuple[float, float]:
    """Both passes over all levels but the first and the last, per cell of the first."""
    shapes, sweeps = m._hierarchy.layout.shapes, m._hierarchy.alpha.shape[1]
    work = Work(axes, False, sweeps)
    share = sum(float(np.prod(shape)) for shape in shapes[1:-1]) / float(np.prod(shapes[0]))
    flops, moved = added(work.down(False), work.up(False))
    return share * flops, share * moved


def best(function: Callable[..., Any], *arguments: Any) -> float:
    """Shortest of several runs after a first one, seconds."""
    function(*arguments)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def fine_kernels(m: MultilevelPreconditioner, operator: Any) -> list[Kernel]:
    """Each kernel on the finest level, a cycle, an iteration in grid space, and the ways in and out."""
    levels, threads, axes = m._hierarchy, m.threads, operator.ndim
    assert levels is not None
    work = Work(axes, levels.layout.packed, levels.alpha.shape[1])
    cells, share = operator.active.size, operator.unknowns / operator.active.size
    (n0, n1, _), (c0, c1, _) = levels.layout.shapes[:2]
    fine_units, coarse_units = (n0, c0) if n0 > 1 else (n1, c1)
    g, coarse, unit, alpha = (
        levels.records[0],
        levels.records[1],
        levels.units[0],
        levels.alpha[0],
    )
    rows: list[Kernel] = []

    def add(name: str, counted: tuple[float, float], function: Callable[..., Any], *arguments: Any) -> None:
        rows.append(Kernel(name, *counted, best(function, *arguments) / cells * 1e9))

    r = np.random.default_rng(0).standard_normal(operator.unknowns)
    z = np.empty_like(r)
    ways = (2.0 * share, (8 + 16 + 20) * share)  # |r|; r to b; x to z
    on_coarse = coarse_work(m, axes)
    cycle = added(work.down(False), work.up(False), on_coarse)
    m.apply(r, z)
    zero, none = np.float32(0), np.empty((0, 0))
    a = (unit, alpha)
    add("half-sweep", work.half_sweep(), cycle_kernels.half_sweep, g, 0, fine_units, 0, RELAX, zero, threads)
    add("restriction", work.restriction(), cycle_kernels.restrict, g, coarse, unit, 0, coarse_units, threads)
    add("prolongation", work.prolongation(), cycle_kernels.prolong, g, coarse, unit,
        coarse[cycle_kernels.B], 0, fine_units, threads)  # fmt: skip
    add("pass down", work.down(False), cycle_kernels.pass_down, g, coarse, *a, 0, zero, zero, threads)
    add("pass up", work.up(False), cycle_kernels.pass_up, g, coarse, *a, none, threads)
    directions = m.directions()
    if directions is not None:
        whole, sums = directions._records[0], np.zeros((threads, PRODUCTS * LANES // 2))
        whole[cycle_kernels.X] = g[cycle_kernels.X]
        add("pass down with updates", work.down(True), cycle_kernels.pass_down, whole, coarse, *a, 1, zero,
            zero, threads)  # fmt: skip
        add("pass up with product", work.up(True), cycle_kernels.pass_up, whole, coarse, *a, sums, threads)
    rest = (levels.records, levels.units, levels.alpha, levels.inverse)
    add("coarse levels", on_coarse, cycle_kernels.v_cycle, *rest, 1, threads)
    add("cycle", cycle, levels.cycle, threads)
    add("apply, ways in and out included", added(cycle, ways), m.apply, r, z)
    if directions is not None:
        counted = added(work.down(True), work.up(True), on_coarse)
        rows.append(Kernel("iteration in grid space", *counted, best_step(m, r) / cells * 1e9))
    return rows


def best_step(m: MultilevelPreconditioner, r: np.ndarray) -> float:
    """Shortest of the iterations with updates that fill the slots, over several solves, seconds."""
    directions, x = m.directions(), np.zeros_like(r)
    assert directions is not None
    shortest = np.inf
    for _ in range(RUNS // 3):
        directions.begin(r, float(np.linalg.norm(r)), 1.0, 1.0)
        directions.step(x)
        for _ in range(3):
            start = time.perf_counter()
            directions.step(x)
            shortest = min(shortest, time.perf_counter() - start)
    return shortest


def stages() -> list[tuple[Any, str]]:
    """Functions that the set-up's Python code calls and that are compiled, or share lines of a compiled one
    among threads: the module or namespace, and the name there."""
    places: dict[int, tuple[Any, str]] = {}
    for user in (hierarchy, multilevel):
        for name, value in vars(user).items():
            if is_jitted(value) or name == "run_lines":
                places.setdefault(id(value), (user, name))
            elif isinstance(value, ModuleType) and value.__name__.startswith("consolve.learned."):
                for inner, function in vars(value).items():
                    if is_jitted(function):
                        places.setdefault(id(function), (value, inner))
    return list(places.values())


def setup_stages(m: MultilevelPreconditioner, operator: Any) -> dict[str, float]:
    """Seconds of each compiled stage of one set-up over all levels, and of the whole, in memory that is used.

    Functions are replaced by timed ones in the modules that the set-up finds them in, once all are compiled.
    """
    m.update(operator)
    spent: dict[str, float] = {}
    running: list[str] = []  # what such a function calls in turn, on its thread or others, is a part of it

    def timed(function: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if running:
                return function(*arguments, **named)
            stage = function if is_jitted(function) else arguments[0]
            running.append(f"{stage.__module__.rpartition('.')[2]}.{stage.__name__}")
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                label = running.pop()
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        call.__module__, call.__name__ = function.__module__, function.__name__
        call.signatures = getattr(function, "signatures", ())  # type: ignore[attr-defined]
        return call

    originals = [(place, name, getattr(place, name)) for place, name in stages()]
    try:
        for place, name, function in originals:
            setattr(place, name, timed(function))
        m.update(operator)
        spent.clear()
        start = time.perf_counter()
        m.update(operator)
        spent["set-up"] = time.perf_counter() - start
    finally:
        for place, name, function in originals:
            setattr(place, name, function)
    return spent


def main() -> int:
    """Print the tables and write the rows."""
    dim, n = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (3, 128)
    operator = make_domain(DOMAIN, (n,) * dim, SEED).operator()
    found = RowFile(RESULTS, KEY)
    for name in SHIPPED:
        m = MultilevelPreconditioner(operator, load_weights(name, dim))
        before = triad(np.float32, m.threads)
        kernels = fine_kernels(m, operator)
        at_triad = max(before, triad(np.float32, m.threads)) / 1e9
        print(f"\n{name}, {n}^{dim}, {m.threads} threads, triad {at_triad:.1f} GB/s")
        print("\n| kernel | ns per cell | bytes per cell | GB/s | of the triad | flops per cell |")
        print("|---|---:|---:|---:|---:|---:|")
        for kernel in kernels:
            rate = kernel.gb_per_s
            moved = "| |" if rate is None else f"{kernel.bytes:.1f} | {rate:.1f} | {rate / at_triad:.0%}"
            print(f"| {kernel.kernel} | {kernel.ns:.2f} | {moved} | {kernel.flops:.1f} |", flush=True)
            place = {"network": name, "domain": DOMAIN, "dim": dim, "cells": n, "threads": m.threads}
            found.put(place | asdict(kernel) | {"triad_gb_per_s": at_triad})
        print("\n| stage of set-up | ms |\n|---|---:|")
        for stage, seconds in setup_stages(m, operator).items():
            print(f"| {stage} | {seconds * 1e3:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
