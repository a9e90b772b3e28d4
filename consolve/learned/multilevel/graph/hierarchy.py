"""Levels of the graph: their setup, and the cycle on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.base.threads import run_lines
from consolve.learned.multilevel.graph import cycle_kernels, finest_kernels, port_kernels, splitting_kernels
from consolve.learned.multilevel.graph.coarsest import factorise, is_coarsest
from consolve.learned.multilevel.graph.widths import NARROW, Rings, Widths, coarser, estimate_widths
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.learned.multilevel.setup.level_builder import EXTREME

MOST_LEFT = 0.8
"""Of the nodes: where more would become unknowns, weak edges connect, too."""
OVERSHOOT = 9.0
"""How many times the bound on the energy of P may be the coarse coefficient."""
WEAKEST = 0.03
"""An edge weaker than so many times the strongest of its nodes does not connect them within a block."""
MOST_UNKNOWNS = 512
"""Of a coarse cell."""
OMEGA = np.array([[[1.05, 1.1], [1.05, 1.1]]])
"""Relaxation factors (level classes, sweeps, colours)."""
Array32 = NDArray[np.float32]

K_CYCLE = 1, 4
"""Levels first <= l < last with a K-cycle, where M may be nonlinear."""


@dataclass
class GraphTransfer:
    """P from a level to the one above it; see port_kernels."""

    child: NDArray[np.int32]
    child_begin: NDArray[np.int32]
    size: NDArray[np.int32]
    weight_begin: NDArray[np.int32]
    weight: Array32
    drained: NDArray[np.uint8]
    opposite: NDArray[np.int32]


@dataclass
class GraphLevel:
    """A graph: nodes in the order of relaxation, by colour, and edges in compressed rows.

    Parameters
    ----------
    shape
        Cells along three axes.
    start, count
        First node and number of nodes of each cell, volumes.
    colours
        First node of each of four colours, and their end; see finest_kernels.colour.
    rings
        Axes along which the last cells are neighbours of the first.
    pointer, neighbour, coefficient, direction
        Edges of each node; see finest_kernels for directions.
    fixed
        Dirichlet part of each node.
    widths
        Of the cells along each axis.
    width
        Edges of every node, some of them closed; 0 where they differ.
    cells_begin
        Where nodes of another cell may begin, ascending: the joints at which threads part.
    transfer
        From this level to the finer one.
    """

    shape: tuple[int, ...]
    start: NDArray[np.int32]
    count: NDArray
    colours: NDArray[np.int32]
    rings: Rings
    pointer: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    coefficient: Array32
    direction: NDArray[np.uint8]
    fixed: Array32
    widths: Widths
    width: int = 0
    cells_begin: NDArray[np.int32] | None = None
    transfer: GraphTransfer | None = None
    vectors: dict[str, NDArray] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """Unknowns."""
        return self.fixed.size

    @property
    def edges(self) -> int:
        """Entries of the matrix beside its diagonal."""
        return int(np.count_nonzero(self.coefficient)) if self.width else self.coefficient.size

    @property
    def bytes(self) -> int:
        """Memory that the cycle needs."""
        held = [self.pointer, self.neighbour, self.coefficient, self.fixed, *self.vectors.values()]
        if self.transfer is not None:
            held += list(vars(self.transfer).values())
        return sum(a.nbytes for a in held)


def finest(
    faces: Sequence[NDArray], dirichlet: NDArray, active: NDArray, scale: float, threads: int
) -> GraphLevel:
    """The graph of a grid's operator, divided by ``scale``: volumes of coefficients, active cells.

    Open faces of a last layer lead to the first one.

    Raises
    ------
    ValueError
        If coefficients leave the range of single precision.
    """
    shape = active.shape
    lines = shape[0] * shape[1]
    rings: Rings = tuple(
        n > 1 and bool(np.moveaxis(f, a, 0)[-1].any()) for a, (n, f) in enumerate(zip(shape, faces))
    )
    nodes = np.zeros((finest_kernels.COLOURS, lines), np.int64)
    run_lines(finest_kernels.count, lines, threads, active, _odd(shape, rings), nodes)
    colours = _begins(nodes.sum(1))
    total = int(colours[-1])
    flat = nodes.reshape(-1)
    np.subtract(np.cumsum(flat), flat, out=flat)
    start = np.empty(shape, np.int32)
    run_lines(finest_kernels.number, lines, threads, active, _odd(shape, rings), nodes, start)
    width = 6 if shape[0] > 1 else 4
    neighbour, direction = np.empty((total, width), np.int32), np.empty((total, width), np.uint8)
    coefficient, fixed = np.empty((total, width), np.float32), np.empty(total, np.float32)
    fault = np.zeros(1, np.bool_)
    run_lines(
        finest_kernels.fill, lines, threads, *faces, dirichlet, start, 1 / scale, neighbour, coefficient,
        direction, fixed, fault,
    )  # fmt: skip
    if fault[0]:
        raise ValueError(EXTREME)
    edges = neighbour.reshape(-1), coefficient.reshape(-1), direction.reshape(-1)
    pointer = np.arange(0, width * total + 1, width, dtype=np.int32)
    return GraphLevel(
        shape, start, active.view(np.uint8), colours, rings, pointer, *edges, fixed, estimate_widths(faces),
        width,
    )  # fmt: skip


def _odd(shape: tuple[int, ...], rings: Rings) -> Rings:
    return tuple(ring and n % 2 == 1 for n, ring in zip(shape, rings))


def _begins(counts: ArrayLike) -> NDArray[np.int32]:
    """0 and the sums of the counts up to each."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)


def coarsen(
    level: GraphLevel, most: float, jumps: bool, weakest: float, threads: int
) -> tuple[GraphLevel, float]:
    """The next coarser level, and the most that its blocks are wide.

    Parameters
    ----------
    level, most
        The finer level, and how wide its cells are at most.
    jumps
        Coefficients may jump.
    weakest
        See WEAKEST.
    threads
        Of the kernels.
    """
    starts, widths, most_wide = coarser(level.widths, most, level.rings)
    shape = tuple(s.size - 1 for s in starts)
    rings = tuple(ring and n > 1 for n, ring in zip(shape, level.rings))
    lines, blocks, nodes = shape[0] * shape[1], int(np.prod(shape)), level.nodes
    squares = [((w + np.roll(w, -1)) / 2) ** 2 for w in level.widths]
    narrowest = min(float(w.min()) for w in level.widths) ** 2
    squares = [np.append(s, narrowest) / narrowest for s in squares]

    # Blocks in the order of relaxation, and the nodes of each.
    counted = np.empty(blocks, np.int32)
    run_lines(splitting_kernels.count_nodes, lines, threads, level.count, *starts, counted)
    index = np.empty(shape, np.uint8)
    run_lines(finest_kernels.colours, lines, threads, _odd(shape, rings), index)
    by_colour = [np.flatnonzero(index == q) for q in range(finest_kernels.COLOURS)]
    order = np.concatenate(by_colour)
    members_begin = np.empty(blocks + 1, np.int32)
    members_begin[order] = _begins(counted[order])[:-1]
    largest = int(counted.max(initial=1))
    members, block = np.empty(nodes, np.int32), np.full(nodes, -1, np.int32)
    place, component = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    strongest, kept = np.empty(nodes, np.float32), np.empty(blocks, np.int32)
    graph = level.pointer, level.neighbour, level.coefficient, level.direction, level.fixed
    for threshold in (weakest, 0.0):
        run_lines(
            splitting_kernels.split, lines, threads, level.start, level.count, *graph, *starts, *squares,
            threshold, MOST_UNKNOWNS, largest, members_begin, members, block, place, strongest, component,
            kept,
        )  # fmt: skip
        if kept.sum() <= MOST_LEFT * nodes:
            break
    del block, strongest
    cells_begin = _begins(kept[order])
    unknowns, colours = int(cells_begin[-1]), cells_begin[_begins([cells.size for cells in by_colour])]
    begin = np.empty(blocks, np.int32)
    begin[order] = cells_begin[:-1]
    child, aggregate = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    child_begin, size = np.empty(unknowns, np.int32), np.empty(unknowns, np.int32)
    home = np.empty(unknowns, np.int32)
    run_lines(
        splitting_kernels.assign, blocks, threads, members_begin, counted, members, component, kept, begin,
        MOST_UNKNOWNS, child, child_begin, size, home, aggregate, place,
    )  # fmt: skip
    del members, component

    # Ports.
    edges = int(np.diff(level.pointer).max(initial=0))
    largest = int(size.max(initial=1))
    most = min(edges * largest, max(unknowns, 1)) + 1
    ports, drained = np.empty(unknowns, np.int32), np.empty(unknowns, np.uint8)
    tree = child, child_begin, size, aggregate
    run_lines(
        port_kernels.count_ports, unknowns, threads, level.pointer, level.neighbour, level.fixed, *tree, most,
        ports, drained,
    )  # fmt: skip
    most = int(ports.max(initial=0))
    port_begin = _begins(ports)
    weight_begin = _begins(size * (ports + drained))
    n = int(port_begin[-1])
    neighbour, direction = np.empty(n, np.int32), np.empty(n, np.uint8)
    total, resistance = np.empty(n, np.float32), np.empty(n, np.float32)
    drain_total, drain_resistance = np.zeros(unknowns, np.float32), np.zeros(unknowns, np.float32)
    weight = np.empty(int(weight_begin[-1]), np.float32)
    run_lines(
        port_kernels.solve_ports, unknowns, threads, *graph, *tree, place, home, largest, most, port_begin,
        drained, weight_begin, neighbour, direction, total, resistance, drain_total, drain_resistance, weight,
    )  # fmt: skip
    coefficient, opposite = np.empty(n, np.float32), np.empty(n, np.int32)
    fixed = np.empty(unknowns, np.float32)
    run_lines(
        port_kernels.couple, unknowns, threads, child_begin, size, port_begin, drained, weight_begin,
        neighbour, total, resistance, drain_total, drain_resistance, weight, coefficient, opposite, fixed,
    )  # fmt: skip
    if jumps:
        bound, drain_bound = np.empty(n, np.float32), np.empty(unknowns, np.float32)
        run_lines(
            port_kernels.energy_bounds, unknowns, threads, level.pointer, level.neighbour, level.coefficient,
            level.fixed, *tree, place, port_begin, drained, weight_begin, weight, opposite, neighbour, bound,
            drain_bound,
        )  # fmt: skip
        run_lines(
            port_kernels.clamp, unknowns, threads, port_begin, drained, opposite, bound, drain_bound,
            OVERSHOOT, coefficient, fixed,
        )  # fmt: skip
    transfer = GraphTransfer(child, child_begin, size, weight_begin, weight, drained, opposite)
    coarse = GraphLevel(
        shape, begin.reshape(shape), kept.reshape(shape), colours, rings, port_begin, neighbour, coefficient,
        direction, fixed, widths, 0, cells_begin, transfer,
    )  # fmt: skip
    return coarse, most_wide


class GraphHierarchy:
    """All levels of a graph, and their cycle.

    Parameters
    ----------
    level
        The finest.
    ndim
        2 or 3: axes of the grid.
    jumps
        Its coefficients jump.
    threads
        Of the kernels.

    Attributes
    ----------
    is_irregular
        Some cell of the first coarse levels has several unknowns.
    facts
        Of each level, finest first.
    """

    def __init__(self, level: GraphLevel, ndim: int, jumps: bool, threads: int) -> None:
        self.levels, self.threads = [level], threads
        most = NARROW * min(float(w.min()) for w in level.widths)
        self.is_irregular, weakest = False, WEAKEST if jumps else 0.0
        while not is_coarsest(level.nodes, level.edges) and max(level.shape) > 1:
            level, most = coarsen(level, most, jumps, weakest, threads)
            if int(level.count.max()) > 1:
                weakest = WEAKEST  # holes in walls lead to weak edges
                self.is_irregular |= len(self.levels) < K_CYCLE[1]
            self.levels.append(level)
        self.factors = factorise(level.pointer, level.neighbour, level.coefficient, level.fixed)
        self.records = np.zeros((len(self.levels), len(cycle_kernels.COLUMNS)), np.int64)
        for number in range(len(self.levels)):
            self._lay_out(number)
        self.facts = [LevelFacts(v.shape[3 - ndim :], v.nodes, v.bytes) for v in self.levels]

    def _lay_out(self, number: int) -> None:
        """Vectors and the record of a level; what only setup needs goes."""
        level, record = self.levels[number], self.records[number]
        names = ["b", "x", "t"] + (["e", "v"] if number else [])
        level.vectors |= {name: np.zeros(level.nodes) for name in names}
        inverse = np.empty(level.nodes)
        run_lines(
            port_kernels.invert,
            level.nodes,
            self.threads,
            level.pointer,
            level.coefficient,
            level.fixed,
            inverse,
        )
        level.vectors["inverse"] = inverse
        level.vectors["bounds"] = _bounds(level, self.threads)
        arrays = vars(level) | level.vectors | {"edges": level.neighbour.size, "parts": self.threads}
        joined = bool((level.direction == finest_kernels.INNER).any())
        arrays |= {"joined": int(joined or level.colours[2] < level.nodes)}
        if level.transfer is not None:
            arrays |= vars(level.transfer) | {
                "flow": np.empty(level.neighbour.size),
                "finer": level.transfer.child.size,
                "largest": int(level.transfer.size.max(initial=1)),
                "weights": level.transfer.weight.size,
            }
            level.vectors["flow"] = arrays["flow"]
        for column, name in enumerate(cycle_kernels.COLUMNS):
            value = level.nodes if name == "nodes" else arrays.get(name, 0)
            record[column] = value.ctypes.data if isinstance(value, np.ndarray) else value
        level.direction, level.cells_begin = level.direction[:0], None
        if number:
            level.start = level.count = level.start.reshape(-1)[:0]

    def cycle(self, flexible: bool) -> None:
        """x = M b on the finest level, by a K-cycle where that is allowed and of use."""
        first, last = K_CYCLE if flexible and self.is_irregular else (0, 0)
        cycle_kernels.cycle(self.records, OMEGA, self.factors, 0, first, last, self.threads)

    @property
    def flops(self) -> float:
        """Additions and multiplications of one V-cycle."""
        sweeps = OMEGA.shape[1]
        edges = sum(level.neighbour.size for level in self.levels[:-1])
        nodes = sum(level.nodes for level in self.levels[:-1])
        weights = sum(level.transfer.weight.size for level in self.levels if level.transfer is not None)
        return 3.0 * 2 * sweeps * edges + 10.0 * sweeps * nodes + 4.0 * (weights + self.factors[2].size)


def _bounds(level: GraphLevel, parts: int) -> NDArray[np.int32]:
    """Where the nodes of each thread begin, by colour, (4, parts + 1): never within a cell."""
    low, high = level.colours[:-1, None].astype(np.int64), level.colours[1:, None]
    bounds = low + (high - low) * np.arange(parts + 1) // parts
    if level.cells_begin is not None:
        bounds = level.cells_begin[np.searchsorted(level.cells_begin, bounds)]
    return np.ascontiguousarray(bounds, np.int32)
