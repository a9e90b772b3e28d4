"""Numba kernels that place the vertices of a graph on the integer lattice, so that each edge joins lattice
neighbours and no two vertices share a point.

The kinds of neighbours are those of lattice_points.  The search places what is forced, in the order of a
breadth-first sweep; where nothing is forced it guesses, and takes guesses back when a vertex has no place
left.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT
from consolve.pde.matrix.lattice_points import (
    BOX,
    REACH,
    STAR,
    are_neighbours,
    is_occupied,
    key_of,
    points_around,
    slot_of,
)

PLACED, IMPOSSIBLE, GIVEN_UP = range(3)
"""Outcomes of a search: all placed, no placement exists, or the budget is spent."""

_SCANNED = 256
"""Waiting vertices that are looked at before a guess."""


@njit(**STRICT)
def _close_square(indptr, indices, u, p, q):
    """True if u - p - q are three corners of a 4-cycle: u and q have a common neighbour besides p."""
    for a in range(indptr[u], indptr[u + 1]):
        s = indices[a]
        if s != p:
            for b in range(indptr[q], indptr[q + 1]):
                if indices[b] == s:
                    return True
    return False


@njit(**STRICT)
def _goes_back(indptr, indices, placed, point, u, i, j, k):
    """True if (i, j, k) lies opposite to a vertex that must be beside it, seen from a common neighbour."""
    for a in range(indptr[u], indptr[u + 1]):
        p = indices[a]
        if not placed[p]:
            continue
        i2, j2, k2 = 2 * point[p, 0] - i, 2 * point[p, 1] - j, 2 * point[p, 2] - k
        for b in range(indptr[p], indptr[p + 1]):
            q = indices[b]
            if placed[q] and point[q, 0] == i2 and point[q, 1] == j2 and point[q, 2] == k2:
                if _close_square(indptr, indices, u, p, q):
                    return True
    return False


@njit(**STRICT)
def _candidates(u, indptr, indices, placed, point, keys, beyond, ndim, kind, out, near):
    """Points where vertex ``u`` can go, into ``out`` (27, 3); returns (how many, placed neighbours).

    Fills ``near`` (27, 3) with the points of the placed neighbours.

    Necessary conditions only: beside all placed neighbours, free, at right angles where a 4-cycle says so
    (else: with no other placed vertex around).  Mirror images in an axis along which nothing has been
    placed yet (``beyond`` is 0 there) count once.
    """
    i0 = j0 = k0 = -REACH + 2
    i1 = j1 = k1 = REACH - 2
    beside = 0
    for q in range(indptr[u], indptr[u + 1]):
        p = indices[q]
        if placed[p]:
            i, j, k = point[p, 0], point[p, 1], point[p, 2]
            near[beside, 0], near[beside, 1], near[beside, 2] = i, j, k
            beside += 1
            i0, i1 = max(i0, i - 1), min(i1, i + 1)
            j0, j1 = max(j0, j - 1), min(j1, j + 1)
            k0, k1 = max(k0, k - 1), min(k1, k + 1)
    if beside == 0:
        return 0, 0
    if ndim == 2:
        i0 = i1 = 0
    elif beyond[0] == 0:
        i0 = max(i0, 0)
    if beyond[1] == 0:
        j0 = max(j0, 0)
    if beyond[2] == 0:
        k0 = max(k0, 0)
    count = 0
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            if ndim == 3 and beyond[0] == 0 and beyond[1] == 0 and i > j:
                continue
            for k in range(k0, k1 + 1):
                if beyond[1] == 0 and beyond[2] == 0 and j > k:
                    continue
                fits = True
                if kind != BOX:
                    for q in range(beside):
                        if not are_neighbours(i - near[q, 0], j - near[q, 1], k - near[q, 2], kind):
                            fits = False
                            break
                if not fits or is_occupied(keys, i, j, k):
                    continue
                if kind != STAR and points_around(keys, i, j, k, ndim, kind) != beside:
                    continue
                out[count, 0], out[count, 1], out[count, 2] = i, j, k
                count += 1
    if count > 1 and kind == STAR:
        kept = 0
        for c in range(count):
            if not _goes_back(indptr, indices, placed, point, u, out[c, 0], out[c, 1], out[c, 2]):
                out[kept] = out[c]
                kept += 1
        count = kept
    return count, beside


@njit(**STRICT)
def _rank(u, indptr, indices, placed, point, keys, ndim, kind, beside, count, out):
    """Sort the candidates, most plausible first; returns how many touch no vertex but u's neighbours.

    Plausible is what leaves no open face to a vertex without coupling, then what goes straight on, then
    what goes along an axis.
    """
    score = np.zeros(count)
    tidy = 0
    for c in range(count):
        i, j, k = out[c, 0], out[c, 1], out[c, 2]
        if kind != STAR or points_around(keys, i, j, k, ndim, kind) == beside:
            tidy += 1
            score[c] -= 100
        for a in range(indptr[u], indptr[u + 1]):
            p = indices[a]
            if placed[p]:
                score[c] += abs(i - point[p, 0]) + abs(j - point[p, 1]) + abs(k - point[p, 2])
                if is_occupied(keys, 2 * point[p, 0] - i, 2 * point[p, 1] - j, 2 * point[p, 2] - k):
                    score[c] -= 10
    order = np.argsort(score, kind="mergesort")
    out[:count] = out[:count][order]
    return tidy


@njit(**STRICT)
def _put(v, where, placed, point, keys, beyond, trail, length):
    placed[v] = True
    for axis in range(3):
        point[v, axis] = where[axis]
        beyond[axis] += where[axis] != 0
    key = key_of(where[0], where[1], where[2])
    keys[slot_of(keys, key)] = key
    trail[length] = v


@njit(**STRICT)
def _take(v, placed, point, keys, beyond):
    """Undo the latest _put: in reverse order, so that no probe sequence of the table breaks."""
    placed[v] = False
    for axis in range(3):
        beyond[axis] -= point[v, axis] != 0
    keys[slot_of(keys, key_of(point[v, 0], point[v, 1], point[v, 2]))] = -1


@njit(**STRICT)
def _push_around(v, indptr, indices, placed, waits, queued, queue, head, count, waiting_size):
    """Queue v's unplaced neighbours, and those of its placed neighbours that wait; returns the new count."""
    size = queue.size
    for a in range(indptr[v], indptr[v + 1]):
        u = indices[a]
        if not placed[u]:
            if not queued[u]:
                queued[u] = True
                queue[(head + count) % size] = u
                count += 1
            continue
        if waiting_size == 0:
            continue
        for b in range(indptr[u], indptr[u + 1]):
            w = indices[b]
            if waits[w] and not placed[w] and not queued[w]:
                queued[w] = True
                queue[(head + count) % size] = w
                count += 1
    return count


@njit(inline="always")
def _let_wait(v, waits, waiting, size):
    if not waits[v]:
        waits[v] = True
        waiting[size] = v
        size += 1
    return size


@njit(**STRICT)
def place_component(seed, indptr, indices, ndim, kind, budget, placed, point, keys, trail, lists, flags):
    """Place the connected component of ``seed``, which goes to the origin.

    Parameters
    ----------
    seed
        A vertex.
    indptr, indices
        The graph in CSR form, symmetric, without loops; of degrees that the kind can have.
    ndim
        2 or 3; in 2D coordinate 0 stays 0.
    kind
        Which neighbours an edge may join; see the module.
    budget
        Looks at a vertex after which the search is given up.
    placed, point
        bool (vertices,), False in this component, and int32 (vertices, 3): filled.
    keys
        int64, a power of two above twice the vertices, all -1; so again at the end.
    trail
        int64 (vertices,): the component's vertices in the order of placement.
    lists, flags
        Memory to work in: int64 (2, vertices + 1), and bool (2, vertices), all False; so again at the end.

    Returns
    -------
    (outcome, vertices placed), outcome PLACED, IMPOSSIBLE or GIVEN_UP.

    Moves about 1 kB a vertex in 2D where everything is forced.
    """
    queue, head, queue_size = lists[0], 0, 0
    waiting, waiting_size = lists[1], 0
    queued, waits = flags[0], flags[1]
    guesses, guess_size = np.empty((64, 3), np.int64), 0  # vertex, length of the trail before, choice taken
    beyond = np.zeros(3, np.int64)
    out, best_out = np.empty((27, 3), np.int64), np.empty((27, 3), np.int64)
    near = np.empty((27, 3), np.int64)
    length, work = 0, 0
    _put(seed, np.zeros(3, np.int64), placed, point, keys, beyond, trail, length)
    length = 1
    queue_size = _push_around(
        seed, indptr, indices, placed, waits, queued, queue, head, queue_size, waiting_size
    )
    outcome = PLACED
    while True:
        stuck = False
        while queue_size > 0:
            u = queue[head]
            head, queue_size = (head + 1) % queue.size, queue_size - 1
            queued[u] = False
            if placed[u]:
                continue
            work += 1
            count, beside = _candidates(
                u, indptr, indices, placed, point, keys, beyond, ndim, kind, out, near
            )
            if count != 1:
                waiting_size = _let_wait(u, waits, waiting, waiting_size)
            if count == 0:
                stuck = True
                break
            if count == 1:
                _put(u, out[0], placed, point, keys, beyond, trail, length)
                length += 1
                while waiting_size > 0 and placed[waiting[waiting_size - 1]]:
                    waiting_size -= 1
                    waits[waiting[waiting_size]] = False
                queue_size = _push_around(
                    u, indptr, indices, placed, waits, queued, queue, head, queue_size, waiting_size
                )
        if not stuck:
            # Nothing is forced: the most certain of those that wait, latest first.
            best, best_tidy, best_count = -1, 28, 28
            seen, at = 0, waiting_size - 1
            while at >= 0 and seen < _SCANNED and best_tidy > 1:
                u = waiting[at]
                count, beside = 0, 0
                if not placed[u]:
                    count, beside = _candidates(
                        u, indptr, indices, placed, point, keys, beyond, ndim, kind, out, near
                    )
                if placed[u] or beside == 0:  # placed since, or its neighbours are no longer
                    waits[u] = False
                    waiting_size -= 1
                    waiting[at] = waiting[waiting_size]
                    at = min(at, waiting_size) - 1
                    continue
                at -= 1
                seen, work = seen + 1, work + 1
                if count == 0:
                    stuck = True
                    break
                tidy = _rank(u, indptr, indices, placed, point, keys, ndim, kind, beside, count, out)
                tidy = tidy if tidy > 0 else 28
                if count == 1:
                    tidy = 0
                if tidy < best_tidy or (tidy == best_tidy and count < best_count):
                    best, best_tidy, best_count = u, tidy, count
                    best_out[:count] = out[:count]
            if not stuck:
                if best < 0:
                    break
                if best_count > 1:
                    if guess_size == guesses.shape[0]:
                        more = np.empty((2 * guess_size, 3), np.int64)
                        more[:guess_size] = guesses
                        guesses = more
                    guesses[guess_size, 0], guesses[guess_size, 1], guesses[guess_size, 2] = best, length, 0
                    guess_size += 1
                _put(best, best_out[0], placed, point, keys, beyond, trail, length)
                length += 1
                queue_size = _push_around(
                    best, indptr, indices, placed, waits, queued, queue, head, queue_size, waiting_size
                )
        while stuck:
            while queue_size > 0:
                u = queue[head]
                queued[u] = False
                if not placed[u]:
                    waiting_size = _let_wait(u, waits, waiting, waiting_size)
                head, queue_size = (head + 1) % queue.size, queue_size - 1
            if guess_size == 0 or work > budget:
                outcome = IMPOSSIBLE if guess_size == 0 else GIVEN_UP
                break
            u, start, choice = guesses[guess_size - 1]
            while length > start:
                length -= 1
                v = trail[length]
                _take(v, placed, point, keys, beyond)
                waiting_size = _let_wait(v, waits, waiting, waiting_size)
            count, beside = _candidates(
                u, indptr, indices, placed, point, keys, beyond, ndim, kind, out, near
            )
            _rank(u, indptr, indices, placed, point, keys, ndim, kind, beside, count, out)
            choice += 1
            work += 1
            if choice < count:
                guesses[guess_size - 1, 2] = choice
                _put(u, out[choice], placed, point, keys, beyond, trail, length)
                length += 1
                queue_size = _push_around(
                    u, indptr, indices, placed, waits, queued, queue, head, queue_size, waiting_size
                )
                stuck = False
            else:
                guess_size -= 1
        if outcome != PLACED:
            break
    found = length
    for at in range(waiting_size):
        waits[waiting[at]] = False
    while length > 0:
        length -= 1
        v = trail[length]
        waits[v] = False
        keys[slot_of(keys, key_of(point[v, 0], point[v, 1], point[v, 2]))] = -1
        if outcome != PLACED:
            placed[v] = False
    return outcome, found
