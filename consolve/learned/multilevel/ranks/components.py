"""Connected components of a grid that several ranks hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle.transfer import Transfer
from consolve.pde.poisson import kernels
from consolve.pde.poisson.null_space import closed_numbers

_MOST_LABELS = 1 << 24
"""Labels travel between ranks as float32, which holds integers up to here."""


def number_closed_components(
    comm: Any,
    faces: list[NDArray[np.float32]],
    fixed: NDArray[np.float32],
    active: NDArray[np.bool_],
    own: tuple[slice, slice, slice],
    halo: Transfer,
    periodic: tuple[bool, bool, bool],
) -> tuple[NDArray[np.int32], int]:
    """Number the components without a Dirichlet part, over all ranks.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    faces, fixed, active
        The operator on this rank's box and halo, volumes (n0, n1, n2); empty for a rank without a box.
    own
        The box within them.
    halo
        Fills the halo of such a volume.
    periodic
        For each axis; one that lies in a box without a halo joins its own ends.

    Returns
    -------
    int32 volume on box and halo with the number of each own cell's closed component, -1 elsewhere; and how
    many closed components there are.  Collective.
    """
    rank = 0 if comm is None else comm.rank
    labels = np.full(fixed.shape, -1, np.int32)
    has_dirichlet = np.empty(0, np.bool_)
    if fixed.size:
        mine = np.empty(fixed[own].shape, np.int32)
        with _closed_at_the_end(faces, own):
            inner = (np.ascontiguousarray(f[own] if f.shape == fixed.shape else f) for f in faces)
            rest = (np.ascontiguousarray(v[own]) for v in (fixed, active))
            has_dirichlet = kernels.label_components(*inner, *rest, mine)
        labels[own] = mine
    counts = np.array([has_dirichlet.size] if comm is None else comm.allgather(has_dirichlet.size), np.int64)
    if counts.max() >= _MOST_LABELS:
        raise ValueError(
            f"a rank's part of the grid falls into {counts.max()} components, most: {_MOST_LABELS}"
        )
    start = np.concatenate([[0], np.cumsum(counts)])
    shared_label, shared_rank = labels.astype(np.float32), np.full(fixed.shape, rank, np.float32)
    halo.run(shared_label, shared_label)
    halo.run(shared_rank, shared_rank)
    edges = [np.empty((0, 2), np.int64)]
    if fixed.size:
        for axis in range(3):
            end = own[axis].stop
            has_halo = end < fixed.shape[axis]
            if fixed.shape[axis] > 1 and (has_halo or periodic[axis]):
                beyond = end if has_halo else 0
                edges.append(
                    _crossing(faces[axis], own, axis, beyond, labels, shared_label, shared_rank, start, rank)
                )
    local = np.unique(np.concatenate(edges), axis=0)
    everyone = local if comm is None else np.concatenate(comm.allgather(local))
    dirichlet = has_dirichlet if comm is None else np.concatenate(comm.allgather(has_dirichlet))
    number = closed_numbers(dirichlet, everyone)
    lookup = np.append(number[start[rank] : start[rank + 1]], np.int32(-1))
    return lookup[labels].astype(np.int32), int(number.max(initial=-1)) + 1


@contextmanager
def _closed_at_the_end(faces: list[NDArray], own: tuple[slice, slice, slice]) -> Iterator[None]:
    """Within, the faces that lead out of the box are 0: slabs then need no copies of their volumes."""
    layers = []
    for axis, face in enumerate(faces):
        last: list[Any] = list(own) if face.size > 1 else [slice(None)] * 3
        last[axis] = min(own[axis].stop, face.shape[axis]) - 1
        layer = face[tuple(last)]
        layers.append((layer, layer.copy()))
        layer[...] = 0
    try:
        yield
    finally:
        for layer, values in layers:
            layer[...] = values


def _crossing(
    face: NDArray,
    own: tuple[slice, slice, slice],
    axis: int,
    end: int,
    labels: NDArray,
    shared_label: NDArray,
    shared_rank: NDArray,
    start: NDArray,
    rank: int,
) -> NDArray[np.int64]:
    """Pairs of components (numbered over all ranks) that an open face to the layer ``end`` joins."""
    inside, beyond = list(own), list(own)
    inside[axis] = slice(own[axis].stop - 1, own[axis].stop)
    beyond[axis] = slice(end, end + 1)
    a, b = tuple(inside), tuple(beyond)
    is_open = face[a] > 0
    here = start[rank] + labels[a][is_open]
    there = start[shared_rank[b][is_open].astype(np.int64)] + shared_label[b][is_open].astype(np.int64)
    return np.unique(np.stack([here, there], 1), axis=0)
