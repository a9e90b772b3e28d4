"""Frames of a flow as HDF5 files, with an XDMF index that ParaView opens as a time series.

A directory holds ``NAME.xdmf`` and one ``NAME.000042.h5`` for each frame.  Each file is written to a
temporary name and renamed, the frame before the index: whenever the run is stopped, the index lists whole
frames only.  One file per frame keeps the work of a frame independent of the number of frames before it.

A frame file (format version 1) holds, on the cells (axis 0 points up)::

    /density      float32 (cells)           smoke, relative to the air around
    /temperature  float32 (cells)           relative to the air around
    /pressure     float32 (cells)           over the density of air, length^2 / time^2
    /velocity     float32 (cells, 3)        at cell centres, in the order x, y, z, length / time
    /solid        uint8   (cells)           1 in solid cells
    attributes    format_version, scene, seed, step, time, spacing

where x is the last axis of the grid, y the one before, z the first axis of a 3D grid.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from consolve.base.files import write_file
from consolve.base.hdf5 import whole_hdf5
from consolve.pde.flow.flow import Flow

FORMAT_VERSION = 1


class FlowWriter:
    """Writes frames of one flow into a directory.

    Parameters
    ----------
    directory
        Made if it is not there.  Frames of an earlier run with the same name are replaced as they come; the
        index lists only this run's.
    name
        Stem of the files.

    Raises
    ------
    OSError
        If the directory cannot be made or written.
    """

    def __init__(self, directory: str | Path, name: str = "flow") -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._frames: list[tuple[float, str]] = []
        self._layout: tuple[tuple[int, ...], float] | None = None

    @property
    def index(self) -> Path:
        """The XDMF file to open."""
        return self.directory / f"{self.name}.xdmf"

    def write(self, flow: Flow) -> Path:
        """Add the present state of the flow as a frame; returns the path of its HDF5 file."""
        layout = (flow.scene.shape, flow.scene.spacing)
        if self._layout not in (None, layout):
            raise ValueError(f"this series has frames of (shape, spacing) {self._layout}, got {layout}")
        self._layout = layout
        target = self.directory / f"{self.name}.{flow.steps:06d}.h5"
        with whole_hdf5(target) as file:
            for key, array in _fields(flow).items():
                file.create_dataset(key, data=array, compression="gzip", compression_opts=1, shuffle=True)
            file.attrs.update(
                format_version=FORMAT_VERSION,
                scene=flow.scene.name,
                seed=flow.scene.seed,
                step=flow.steps,
                time=flow.time,
                spacing=flow.scene.spacing,
            )
        self._frames = [f for f in self._frames if f[1] != target.name] + [(flow.time, target.name)]
        text = _xdmf(self._frames, *layout)
        write_file(self.index, text.encode())
        return target


def cell_velocity(flow: Flow) -> NDArray[np.float32]:
    """Velocity at cell centres, components in the order of the axes; shape (cells, axes)."""
    components = []
    for axis, u in enumerate(flow.velocity):
        along = np.moveaxis(u, axis, 0)
        components.append(np.moveaxis(0.5 * (along[1:] + along[:-1]), 0, axis))
    return np.stack(components, axis=-1).astype(np.float32)


def _fields(flow: Flow) -> dict[str, NDArray]:
    velocity = cell_velocity(flow)[..., ::-1]
    if velocity.shape[-1] == 2:
        velocity = np.concatenate([velocity, np.zeros_like(velocity[..., :1])], axis=-1)
    return {
        "density": flow.density.astype(np.float32),
        "temperature": flow.temperature.astype(np.float32),
        "pressure": flow.pressure.astype(np.float32),
        "velocity": velocity,
        "solid": flow.solid.astype(np.uint8),
    }


def _xdmf(frames: list[tuple[float, str]], shape: tuple[int, ...], spacing: float) -> str:
    """The index: a temporal collection of regular grids, whose cell fields are references into the frames."""
    # A plane is written as one layer of a volume: readers disagree about which axes a 2D mesh has.
    cells = shape if len(shape) == 3 else (1, *shape)
    size, nodes = " ".join(map(str, cells)), " ".join(str(n + 1) for n in cells)
    lines = [
        '<?xml version="1.0" ?>',
        '<Xdmf Version="2.0"><Domain>',
        '<Grid Name="flow" GridType="Collection" CollectionType="Temporal">',
    ]
    for time, file in frames:
        lines += [
            f'<Grid Name="frame" GridType="Uniform"><Time Value="{time!r}"/>',
            f'<Topology TopologyType="3DCoRectMesh" Dimensions="{nodes}"/>',
            '<Geometry GeometryType="ORIGIN_DXDYDZ">',
            '<DataItem Format="XML" Dimensions="3">0 0 0</DataItem>',
            f'<DataItem Format="XML" Dimensions="3">{" ".join([repr(spacing)] * 3)}</DataItem>',
            "</Geometry>",
        ]
        for key in ("density", "temperature", "pressure", "velocity", "solid"):
            vector = key == "velocity"
            number = 'NumberType="UChar"' if key == "solid" else 'NumberType="Float" Precision="4"'
            lines += [
                f'<Attribute Name="{key}" AttributeType="{"Vector" if vector else "Scalar"}" Center="Cell">',
                f'<DataItem Format="HDF" {number} Dimensions="{size}{" 3" if vector else ""}">',
                f"{quoteattr(file)[1:-1]}:/{key}",
                "</DataItem></Attribute>",
            ]
        lines.append("</Grid>")
    return "\n".join([*lines, "</Grid></Domain></Xdmf>", ""])
