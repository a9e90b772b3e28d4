"""Threads: how many kernels use, and a pool for kernels that work on a range of lines.

Compiling a loop as ``prange`` takes several times as long as compiling it once, which counts for kernels that
run once a setup only; these release the interpreter's lock, so that its threads serve as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numba

_pool: dict[int, ThreadPoolExecutor] = {}

_forked_with_openmp = False


def _in_child() -> None:
    """A child has none of its parent's threads, and GNU OpenMP ends it at its first parallel loop."""
    global _forked_with_openmp
    _pool.clear()
    try:
        _forked_with_openmp = numba.threading_layer() == "omp"
    except ValueError:  # no parallel loop has run yet
        _forked_with_openmp = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check_not_forked() -> None:
    """Say what GNU OpenMP would end the process for.

    Raises
    ------
    RuntimeError
        In a process that was forked from one in which kernels had run.
    """
    if _forked_with_openmp:
        raise RuntimeError(
            "this process was forked after kernels had run with GNU OpenMP, which would end it: start "
            "processes by 'spawn' (multiprocessing.get_context('spawn')), or set "
            "NUMBA_THREADING_LAYER=workqueue"
        )


@contextmanager
def limited_to(threads: int | None) -> Iterator[int]:
    """Kernels within use so many threads, or as many as before if None; the program's number is restored."""
    check_not_forked()
    before = numba.get_num_threads()
    numba.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        numba.set_num_threads(before)


def checked_threads(threads: int | None) -> int | None:
    """A number of threads that a caller gives; None for Numba's.

    Raises
    ------
    ValueError
        If it is no whole number from 1 to what Numba has.
    """
    most = numba.config.NUMBA_NUM_THREADS
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, Integral) or not 1 <= threads <= most:
        raise ValueError(f"threads is {threads!r}, expected 1 to {most} (NUMBA_NUM_THREADS raises the limit)")
    return int(threads)


def run_lines(kernel: Callable[..., Any], lines: int, threads: int, *arguments: Any) -> None:
    """kernel(*arguments, first, end) on ``threads`` equal parts of 0..lines.

    Parameters
    ----------
    kernel
        Compiled, releasing the interpreter's lock; what it does to different lines is independent.
    lines, threads
        Their numbers.
    """
    threads = max(1, min(threads, lines))
    if not getattr(kernel, "signatures", None):
        kernel(*arguments, 0, 0)  # compiled before several threads ask for it
    ends = [lines * q // threads for q in range(threads + 1)]
    if threads == 1:
        kernel(*arguments, 0, lines)
        return
    pool = _pool.get(threads) or _pool.setdefault(threads, ThreadPoolExecutor(threads - 1, "consolve-lines"))
    others = [pool.submit(kernel, *arguments, ends[q], ends[q + 1]) for q in range(1, threads)]
    kernel(*arguments, 0, ends[1])
    for other in others:
        other.result()
