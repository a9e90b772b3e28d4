"""What making Ritz data takes of memory and disk, known before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consolve.base.memory import GIB, NotEnoughMemory
from consolve.base.memory import available as free_memory
from consolve.pde.ritz.data import RitzSet

__all__ = ["GIB", "Needs", "NotEnoughMemory", "free_memory"]


@dataclass(frozen=True)
class Needs:
    """Bytes that a set takes at most at one time, beside the interpreter's own.

    The basis holds vectors x unknowns numbers, the eigenvectors of the tridiagonal matrix take vectors**2
    numbers in float32 and, before chunks are made, in float64; a chunk takes its coefficients, in Ritz and
    in Lanczos vectors, and its right-hand sides, on the unknowns and on the cells, in float32.
    """

    ritz_set: RitzSet
    unknowns: int

    def bytes(self, basis: str, vectors: int | None = None) -> int:
        """For a basis of this dtype, with these vectors instead of the set's."""
        m = self.ritz_set.vectors if vectors is None else vectors
        s, n, cells = self.ritz_set, self.unknowns, int(np.prod(self.ritz_set.shape))
        chunk = s.chunk * (8 * m + 4 * n + 4 * cells)
        return m * n * np.dtype(basis).itemsize + 4 * m * m + max(8 * m * m, chunk) + 250 * cells

    def basis_within(self, memory: float) -> str:
        """``float64`` if that fits into ``memory`` bytes, else ``float32``.

        Raises
        ------
        NotEnoughMemory
            If neither fits; the text names the bytes needed and the largest number of vectors that fits.
        """
        for basis in ("float64", "float32"):
            if self.bytes(basis) <= memory:
                return basis
        self.require(memory, "float32")
        raise AssertionError

    def require(self, memory: float, basis: str) -> None:
        """Raise NotEnoughMemory if a basis of this dtype does not fit into ``memory`` bytes."""
        if self.bytes(basis) <= memory:
            return
        most = self.most_vectors(memory, basis)
        instead = f"take at most {most} vectors" if most else "no number of vectors fits"
        raise NotEnoughMemory(
            f"{self.ritz_set.vectors} vectors of {self.unknowns} unknowns in {basis} need "
            f"{self.bytes(basis):,} bytes ({self.bytes(basis) / GIB:.2f} GiB) of memory, {memory / GIB:.2f} "
            f"GiB are allowed: {instead}, or allow more"
        )

    def most_vectors(self, memory: float, basis: str = "float32") -> int:
        """The largest number of vectors that fits; 0 if not even one."""
        low, high = 0, self.ritz_set.vectors
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes(basis, middle) <= memory else (low, middle - 1)
        return low

    @property
    def basis_file(self) -> int:
        """Bytes of the file that keeps the Lanczos steps until the set is whole."""
        return self.ritz_set.vectors * (8 * self.unknowns + 64)

    @property
    def data_file(self) -> int:
        """Bytes of the set, at most."""
        s, cells = self.ritz_set, int(np.prod(self.ritz_set.shape))
        return 4 * s.samples * cells + 32 * s.chunks + 16 * s.vectors + 40 * cells + (1 << 20)
