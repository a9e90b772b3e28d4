"""Random mazes: spanning trees of passages of one cell between walls of one cell."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.pde.poisson.grid import FLUID, SOLID


def carve_maze(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A maze as a cell image: FLUID passages, SOLID walls.

    Rooms lie two cells apart.  A depth-first walk that picks its next room at random joins all of them by
    exactly one way, which gives long winding passages.  The last layer of the first axis is a wall with one
    exit.

    Parameters
    ----------
    shape
        At least 3 cells along the first axis.
    rng
        The source of all randomness; the walk has a generator of its own, seeded from it, so that images do
        not depend on the version of Numba.

    Returns
    -------
    ndarray
        uint8, of ``shape``.
    """
    image = np.full(shape, SOLID, np.uint8)
    # Counting rooms from the far end puts a wall into the last layer, whether the side is odd or even.
    first = shape[0] % 2
    image_3d = image if len(shape) == 3 else image[:, :, None]
    rooms = image_3d[first:-1, :, :]
    _walk(rooms, np.uint64(rng.integers(2**63)))
    doors = image[-1, ...][tuple(slice(None, None, 2) for _ in shape[1:])]
    doors.flat[0] = SOLID
    index = tuple(2 * int(rng.integers((n + 1) // 2)) for n in shape[1:])
    image[(-1, *index)] = FLUID
    return image


@njit(**STRICT)
def _walk(image, state):
    """Carve a random spanning tree of the cells with even indices, by iterative depth-first search."""
    n0, n1, n2 = image.shape
    r0, r1, r2 = (n0 + 1) // 2, (n1 + 1) // 2, (n2 + 1) // 2
    path = np.empty(r0 * r1 * r2, np.int32)
    choices = np.empty(6, np.int64)
    path[0] = 0
    image[0, 0, 0] = 0
    length = 1
    while length > 0:
        room = path[length - 1]
        i, j, k = room // (r1 * r2), room // r2 % r1, room % r2
        count = 0
        for side in range(6):
            step = 1 if side % 2 else -1
            a = i + step if side // 2 == 0 else i
            b = j + step if side // 2 == 1 else j
            c = k + step if side // 2 == 2 else k
            if 0 <= a < r0 and 0 <= b < r1 and 0 <= c < r2 and image[2 * a, 2 * b, 2 * c] != 0:
                choices[count] = side
                count += 1
        if count == 0:
            length -= 1
            continue
        # splitmix64: small, and the same on every platform
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        side = choices[np.int64((z >> np.uint64(33)) % np.uint64(count))]
        step = 1 if side % 2 else -1
        a = i + step if side // 2 == 0 else i
        b = j + step if side // 2 == 1 else j
        c = k + step if side // 2 == 2 else k
        image[i + a, j + b, k + c] = 0
        image[2 * a, 2 * b, 2 * c] = 0
        path[length] = (a * r1 + b) * r2 + c
        length += 1
