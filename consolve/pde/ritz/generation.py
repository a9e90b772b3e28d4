"""Making Ritz data: Lanczos steps, then right-hand sides chunk by chunk, each kept as soon as it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.growing_file import part_path
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.ritz.data import LEAST, LOW_WEIGHT, RitzData, RitzDataError, RitzSet
from consolve.pde.ritz.lanczos import Lanczos, rank
from consolve.pde.ritz.memory import Needs, free_memory
from consolve.pde.ritz.step_log import StepLog, log_path, logged_basis
from consolve.pde.ritz.writer import RitzWriter

Report = Callable[[str, int, int], None]
"""Called with what is made (``Lanczos steps``, ``right-hand sides``), how many are done, and of how many."""


@dataclass(frozen=True)
class Generated:
    """What :func:`generate` did: Lanczos steps and right-hand sides made now, dtype of the basis, number of
    Ritz values kept, and the digest of the file."""

    steps: int
    samples: int
    basis: str
    kept: int
    digest: str


def generate(
    path: str | os.PathLike[str],
    ritz_set: RitzSet,
    memory: float | None = None,
    resume: bool = False,
    command: str = "",
    revision: str = "unknown",
    report: Report | None = None,
) -> Generated:
    """Make a file of Ritz data.

    Parameters
    ----------
    path
        Of the file; it appears when whole.
    ritz_set
        What goes into it.
    memory
        Bytes that may be used; default: half of what is free.  The basis is stored in float64 if that fits,
        else in float32; a set that is resumed keeps its own.
    resume
        Go on with what an interrupted call left; a file that is whole is left as it is.
    command, revision
        For the record in the file.
    report
        Told of progress.

    Raises
    ------
    NotEnoughMemory
        If the basis fits in neither way; nothing was allocated.
    ValueError, RitzDataError, OSError
        If the set is not possible; what an earlier call left cannot be gone on with; the disk is full.
    """
    operator = make_domain(ritz_set.domain, ritz_set.shape, ritz_set.domain_seed).operator()
    _check_set(ritz_set, operator)
    needs = Needs(ritz_set, operator.unknowns)
    if resume and (whole := _whole(path, ritz_set, operator)) is not None:
        return whole
    if not resume:
        _refuse_unfinished(path)
    if not log_path(path).exists():
        _check_disk(path, needs)
    allowed = free_memory() / 2 if memory is None else memory
    basis = logged_basis(path) or needs.basis_within(allowed)
    needs.require(allowed, basis)
    settings = ritz_set.settings(operator, basis)
    log = StepLog(path, settings, operator.unknowns, ritz_set.vectors, resume)
    try:
        lanczos, steps = _lanczos(operator, ritz_set, basis, log, report)
        sampler = RitzSampler(ritz_set, operator, lanczos)
        record = {"command": command, "revision": revision}
        file = RitzWriter(path, ritz_set, settings, operator, sampler.values, sampler.residuals, record)
        try:
            samples = _stream(file, sampler, report)
            digest = file.finish()
        finally:
            file.close()
        log.remove()
        return Generated(steps, samples, basis, sampler.values.size, digest)
    finally:
        log.close()


class RitzSampler:
    """Right-hand sides from the Ritz pairs of a finished Lanczos run.

    The Ritz vectors are not formed: with S the eigenvectors of the tridiagonal matrix a chunk is
    ``(C S) Q``, two products of matrices in float32.  The basis of ``lanczos`` is narrowed to float32 in
    place.

    Attributes
    ----------
    values, residuals
        (kept,) float64: Ritz values that are kept, ascending, and their residual norms.
    """

    def __init__(self, ritz_set: RitzSet, operator: GridOperator, lanczos: Lanczos) -> None:
        self._set, self._operator = ritz_set, operator
        values, coefficients, residuals = lanczos.ritz()
        first = int(np.searchsorted(values, LEAST * values[-1]))
        self.values, self.residuals = values[first:], residuals[first:]
        self._coefficients = coefficients[first:].astype(np.float32)
        self._basis = narrowed(lanczos.basis)
        self._weights = np.ones(self.values.size)
        self._weights[: ritz_set.low_vectors(self.values.size)] = LOW_WEIGHT

    def draw(self, sample: int) -> NDArray[np.float64]:
        """Weighted coefficients w c of one right-hand side, (kept,); they depend on seed and number alone."""
        source = np.random.SeedSequence(self._set.seed, spawn_key=(1, sample))
        return self._weights * np.random.default_rng(source).standard_normal(self.values.size)

    def chunk(self, number: int) -> NDArray[np.float32]:
        """Right-hand sides of a chunk, (samples of it, *shape), of unit norm."""
        # The last chunk is made whole, so that a shorter set is the beginning of a longer one to the bit.
        begin, size = number * self._set.chunk, self._set.chunk
        drawn = np.empty((size, self.values.size), np.float32)
        for k in range(size):
            drawn[k] = self.draw(begin + k)
        unknowns = (drawn @ self._coefficients) @ self._basis
        norm = np.sqrt(np.einsum("ij,ij->i", unknowns, unknowns, dtype=np.float64))
        unknowns /= norm.astype(np.float32)[:, None]
        samples = self._set.samples_of(number)
        count = samples.stop - samples.start
        result = np.zeros((count, self._operator.active.size), np.float32)
        result[:, self._operator.cells] = unknowns[:count]
        return result.reshape(count, *self._operator.shape)


def narrowed(basis: NDArray) -> NDArray[np.float32]:
    """The rows in float32, in the memory of ``basis``, which is of no use any more."""
    if basis.dtype == np.float32:
        return basis
    rows, columns = basis.shape
    narrow = basis.reshape(-1).view(np.float32)[: rows * columns].reshape(rows, columns)
    for row in range(rows):  # each lands at or before its own place
        narrow[row] = basis[row].astype(np.float32)
    return narrow


def _check_set(ritz_set: RitzSet, operator: GridOperator) -> None:
    most = rank(operator)
    if not 1 <= ritz_set.vectors <= most:
        raise ValueError(
            f"{ritz_set.vectors} Lanczos vectors: the operator of {ritz_set.domain!r} on {operator.unknowns} "
            f"cells has rank {most}, take 1 to {most}"
        )
    if ritz_set.samples < 1:
        raise ValueError(f"a set has at least one right-hand side, got {ritz_set.samples}")
    if ritz_set.excess < 0:
        raise ValueError(f"low_excess must be at least 0, got {ritz_set.low_excess}")


def _whole(path: str | os.PathLike[str], ritz_set: RitzSet, operator: GridOperator) -> Generated | None:
    """What is said of a file that is whole already; None if there is work to do."""
    if not Path(path).exists() or part_path(path).exists():
        return None
    with RitzData(path) as data:
        expected = ritz_set.settings(operator, data.attributes["basis"])
        try:
            data.check_settings(expected)
        except RitzDataError:
            if log_path(path).exists():  # another set was being made in its place
                return None
            raise
        log_path(path).unlink(missing_ok=True)
        return Generated(0, 0, data.attributes["basis"], data.ritz_values.size, data.digest)


def _refuse_unfinished(path: str | os.PathLike[str]) -> None:
    for left in (part_path(path), log_path(path)):
        if left.exists():
            raise RitzDataError(f"{left} holds an unfinished set; go on with --resume, or remove it first")


def _check_disk(path: str | os.PathLike[str], needs: Needs) -> None:
    data = 0 if part_path(path).exists() else needs.data_file
    size, free = needs.basis_file + data, shutil.disk_usage(Path(path).parent).free
    if size > free:
        raise OSError(
            f"cannot make {path}: it takes {needs.data_file / 1e6:.0f} MB and, until it is whole, "
            f"{needs.basis_file / 1e6:.0f} MB beside it for the Lanczos vectors, {free / 1e6:.0f} MB are free"
        )


def _lanczos(
    operator: GridOperator, ritz_set: RitzSet, basis: str, log: StepLog, report: Report | None
) -> tuple[Lanczos, int]:
    """All Lanczos steps, those in the log first; and how many were done now."""
    dtype: Any = np.dtype(basis).type
    lanczos = Lanczos(operator, ritz_set.vectors, ritz_set.seed, dtype)
    while lanczos.size < lanczos.vectors and (step := log.read(lanczos.size)) is not None:
        lanczos.restore(*step)
    old = lanczos.size
    while lanczos.size < lanczos.vectors:
        j = lanczos.size
        lanczos.step()
        log.write(j, float(lanczos.diagonal[j]), float(lanczos.off_diagonal[j]), lanczos.following)
        if report is not None:
            report("Lanczos steps", lanczos.size, lanczos.vectors)
    return lanczos, lanczos.size - old


def _stream(file: RitzWriter, sampler: RitzSampler, report: Report | None) -> int:
    """Make and write the chunks that are missing; how many right-hand sides these are."""
    ritz_set, made = file.ritz_set, 0
    for chunk in np.flatnonzero(~file.done):
        values = sampler.chunk(int(chunk))
        file.write(int(chunk), {"right_hand_sides": values})
        made += values.shape[0]
        if report is not None:
            report("right-hand sides", ritz_set.samples_of(int(chunk)).stop, ritz_set.samples)
    return made
