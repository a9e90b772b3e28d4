"""How the propagator lies in memory: packed weights, the table of layers, buffers of a grid.

The columns of the table and the places of the sizes are named in `wave_step_kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from consolve.learned.separable.kernels import pack_filters
from consolve.learned.separable.matrix_tiles import LANES, aligned, pack, padded
from consolve.learned.waves import step_kernels as step
from consolve.learned.waves.format import PropagatorSettings

TILE_POINTS = 64
"""Points of a tile of rows: what a layer reads and writes of it fits the first cache."""


class PackedLayers:
    """Weights of the wave convolutions in the order in which the kernels read them.

    Attributes
    ----------
    weights
        float32, flat.
    table
        int64 (layers, LAYER_COLUMNS); FIRST is set for a grid by `GridLayout`.
    """

    def __init__(self, settings: PropagatorSettings, tensors: Mapping[str, NDArray[np.float32]]):
        self.settings = settings
        self.table = np.zeros((settings.layers, step.LAYER_COLUMNS), np.int64)
        self._parts: list[NDArray[np.float32]] = []
        self._size = 0
        source = 0
        for layer, row in enumerate(self.table):
            name = f"wave.{layer}"
            row[step.SOURCE] = source
            row[step.GATE] = layer
            if f"{name}.weight" in tensors:
                self._pack_dense(layer, row, tensors[f"{name}.weight"])
                source = 1 - source if layer > 0 else source
            else:
                a, b, v, h = (
                    tensors[f"{name}.{part}"]
                    for part in ("output_factor", "input_factor", "filter_y", "filter_x")
                )
                self._pack_compressed(layer, row, a, b, v, h)
            row[step.TARGET] = source
        self.weights = aligned(self._size)
        self.weights[:] = np.concatenate(self._parts)

    def _append(self, part: NDArray[np.float32]) -> int:
        start, self._size = self._size, self._size + part.size
        self._parts.append(part)
        return start

    def _input_taps(self, layer: int, kernel: NDArray) -> NDArray:
        """Kernel (input channels, ...) as (snapshots, channels of each, ...)."""
        parts = self.settings.past if layer == 0 else 1
        return kernel.reshape(parts, kernel.shape[0] // parts, *kernel.shape[1:])

    def _pack_outputs(self, layer: int, row: NDArray, kernel: NDArray) -> int:
        """Kernel (taps, depth, output channels), snapshot by snapshot in the last layer."""
        parts = self.settings.ahead if layer == self.settings.layers - 1 else 1
        split = kernel.reshape(*kernel.shape[:2], parts, -1)
        packed = [pack(split[:, :, part]) for part in range(parts)]
        row[step.OUTPUT_VECTORS] = padded(split.shape[3]) // LANES
        row[step.SNAPSHOT_WEIGHTS] = packed[0].size
        return self._append(np.concatenate(packed))

    def _pack_dense(self, layer: int, row: NDArray, kernel: NDArray) -> None:
        row[step.TAPS_Y], row[step.TAPS_X] = kernel.shape[2:]
        taps = self._input_taps(layer, kernel.transpose(1, 2, 3, 0))  # snapshot, channel, y, x, out
        taps = taps.transpose(0, 2, 3, 1, 4).reshape(-1, taps.shape[1], kernel.shape[0])
        row[step.TAPS], row[step.DEPTH] = taps.shape[:2]
        row[step.INPUT_WEIGHTS] = self._pack_outputs(layer, row, taps)

    def _pack_compressed(
        self, layer: int, row: NDArray, a: NDArray, b: NDArray, v: NDArray, h: NDArray
    ) -> None:
        row[step.COMPRESSED] = 1
        row[step.TAPS_Y], row[step.TAPS_X] = v.shape[1], h.shape[1]
        row[step.RANK], row[step.RANK_VECTORS] = len(b), padded(len(b)) // LANES
        taps = self._input_taps(layer, b.T)
        row[step.TAPS], row[step.DEPTH] = taps.shape[:2]
        row[step.INPUT_WEIGHTS] = self._append(pack(taps))
        row[step.FILTERS] = self._append(pack_filters(v, h))
        row[step.OUTPUT_WEIGHTS] = self._pack_outputs(layer, row, a.T[None])


class GridLayout:
    """Buffers and tap distances for grids of ny x nx points.

    Attributes
    ----------
    sizes
        int64 (SIZE_COLUMNS,).
    table
        That of the packed layers, with FIRST and GATE filled in.
    offsets
        int64: distances of the taps of every layer, in elements; of the first layer for each newest slot.
    gate_image
        Elements of one gate, an image in its frame.
    """

    def __init__(self, packed: PackedLayers, ny: int, nx: int):
        s, table = packed.settings, packed.table.copy()
        self.table = table
        sizes = self.sizes = np.zeros(step.SIZE_COLUMNS, np.int64)
        height, width = ny // s.factor, nx // s.factor
        frame_y, frame_x = (int(table[:, column].max()) // 2 for column in (step.TAPS_Y, step.TAPS_X))
        hidden_pitch, snapshot_pitch = padded(s.width), padded(s.factor**2)
        term_pitch = int(table[:, step.RANK_VECTORS].max()) * LANES
        points = (height + 2 * frame_y) * (width + 2 * frame_x)
        tile_rows = max(1, TILE_POINTS // width)
        tiles = math.ceil(height / tile_rows)
        images = [points * hidden_pitch] * 2 + [points * term_pitch] * 2
        starts = np.concatenate([[0], np.cumsum(images)])
        slots = s.past + s.ahead
        sizes[: step.HIDDEN_0] = [
            s.layers, s.past, s.ahead, s.factor, height, width, frame_y, frame_x, hidden_pitch, term_pitch,
            snapshot_pitch,
        ]  # fmt: skip
        sizes[step.HIDDEN_0 : step.RING + 1] = starts
        sizes[step.SLOT] = points * snapshot_pitch
        sizes[step.TILE_ROWS], sizes[step.TILES] = tile_rows, tiles
        sizes[step.REACH] = math.ceil(frame_y / tile_rows)
        sizes[step.STATE] = starts[-1] + slots * points * snapshot_pitch
        kernel_x = int(table[:, step.TAPS_X].max())
        filtered = (width + kernel_x) * LANES
        sizes[step.SCRATCH] = math.ceil((tile_rows * width * term_pitch + filtered) / 64) * 64
        self.gate_image = points * hidden_pitch
        table[:, step.GATE] *= self.gate_image
        self.offsets = self._tap_offsets(slots, width + 2 * frame_x)

    def _tap_offsets(self, slots: int, columns: int) -> NDArray[np.int64]:
        offsets = [0]  # of products without taps
        for layer, row in enumerate(self.table):
            pitch = self.sizes[step.HIDDEN_PITCH if layer else step.SNAPSHOT_PITCH]
            near = np.zeros(1, np.int64)
            if not row[step.COMPRESSED]:
                y, x = (np.arange(n) - n // 2 for n in (row[step.TAPS_Y], row[step.TAPS_X]))
                near = ((y[:, None] * columns + x) * pitch).ravel()
            row[step.FIRST] = 0 if layer and row[step.COMPRESSED] else len(offsets)
            if layer == 0:
                past = self.sizes[step.PAST]
                for newest in range(slots):
                    slot = (newest - past + 1 + np.arange(past)) % slots
                    offsets.extend((slot[:, None] * self.sizes[step.SLOT] + near).ravel())
            elif not row[step.COMPRESSED]:
                offsets.extend(near)
        return np.array(offsets, np.int64)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the grid."""
        f = self.sizes[step.FACTOR]
        return int(self.sizes[step.HEIGHT] * f), int(self.sizes[step.WIDTH] * f)

    def states(self, count: int) -> NDArray[np.float32]:
        """Zeroed buffers of `count` rollouts, (count, n)."""
        return aligned(count * self._rounded(step.STATE)).reshape(count, -1)

    def scratch(self, threads: int) -> NDArray[np.float32]:
        """Buffers of each thread, (threads, n)."""
        return aligned(threads * self._rounded(step.SCRATCH)).reshape(threads, -1)

    def _rounded(self, place: int) -> int:
        return math.ceil(int(self.sizes[place]) / 16) * 16

    def framed_gates(self, gates: NDArray[np.float32], free: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gates (ny/f, nx/f, (layers - 1) width) of the hidden layers and (ny/f, nx/f, f^2) of the last one,
        one framed image for each layer."""
        s, layers = self.sizes, int(self.sizes[step.LAYERS]) - 1
        height, width, fy, fx = (int(n) for n in s[step.HEIGHT : step.FRAME_X + 1])
        frame, hidden = (height + 2 * fy, width + 2 * fx), layers * self.gate_image
        framed = aligned(hidden + int(s[step.SLOT]))
        images = framed[:hidden].reshape(layers, *frame, int(s[step.HIDDEN_PITCH]))
        last = framed[hidden:].reshape(*frame, int(s[step.SNAPSHOT_PITCH]))
        last[fy : fy + height, fx : fx + width, : free.shape[2]] = free
        channels = gates.shape[2] // layers
        for layer, image in enumerate(images):
            image[fy : fy + height, fx : fx + width, :channels] = gates[
                ..., layer * channels : (layer + 1) * channels
            ]
        return framed
