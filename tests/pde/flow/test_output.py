"""Frames and their index: whole files, that say what they hold."""

import os
import xml.etree.ElementTree as ElementTree

import h5py
import numpy as np
import pytest
from direct_solver import DirectSolver
from full_disk import files_up_to

from consolve.pde.flow.flow import Flow
from consolve.pde.flow.output import FlowWriter, cell_velocity
from consolve.pde.flow.picture import render, save_animation, save_picture
from consolve.pde.flow.scenes import make_scene


@pytest.fixture(params=[(14, 11), (9, 8, 10)])
def flow(request):
    return Flow(make_scene("plume-moving-body", request.param, seed=2))


def write_series(flow, directory, frames=3):
    writer, solver = FlowWriter(directory, "smoke"), DirectSolver()
    for _ in range(frames):
        flow.step(solver)
        writer.write(flow)
    return writer


def test_a_frame_holds_the_flow(flow, tmp_path):
    write_series(flow, tmp_path / "new" / "folder")
    with h5py.File(tmp_path / "new" / "folder" / "smoke.000003.h5") as file:
        for key in ("density", "temperature", "pressure"):
            assert file[key].dtype == np.float32
            assert np.array_equal(file[key], getattr(flow, key).astype(np.float32))
        assert np.array_equal(file["solid"], flow.solid)
        velocity = file["velocity"][...]
        assert velocity.shape == (*flow.scene.shape, 3)
        ndim = len(flow.scene.shape)
        assert np.array_equal(velocity[..., :ndim], cell_velocity(flow)[..., ::-1])
        assert not velocity[..., ndim:].any()
        assert dict(file.attrs) == {
            "format_version": 1,
            "scene": "plume-moving-body",
            "seed": 2,
            "step": 3,
            "time": flow.time,
            "spacing": flow.scene.spacing,
        }


def test_cell_velocity_is_the_mean_of_two_faces(flow):
    for axis, u in enumerate(flow.velocity):
        u[:] = np.indices(u.shape)[axis] + axis
    velocity = cell_velocity(flow)
    for axis in range(len(flow.scene.shape)):
        assert np.array_equal(velocity[..., axis], np.indices(flow.scene.shape)[axis] + axis + 0.5)


def test_the_index_lists_every_frame_with_true_sizes(flow, tmp_path):
    writer = write_series(flow, tmp_path)
    root = ElementTree.parse(writer.index).getroot()
    frames = root.findall("./Domain/Grid/Grid")
    assert len(frames) == 3
    times = [float(f.find("Time").get("Value")) for f in frames]
    assert times == sorted(times) and times[-1] == flow.time
    cells = (1, *flow.scene.shape)[-3:]
    for frame in frames:
        assert frame.find("Topology").get("Dimensions") == " ".join(str(n + 1) for n in cells)
        names = []
        for attribute in frame.findall("Attribute"):
            names.append(attribute.get("Name"))
            item = attribute.find("DataItem")
            file, dataset = item.text.strip().split(":/")
            with h5py.File(tmp_path / file) as frame_file:
                data = frame_file[dataset]
                assert data.size == np.prod([int(n) for n in item.get("Dimensions").split()])
                assert data.dtype.itemsize == int(item.get("Precision", 1))
        assert names == ["density", "temperature", "pressure", "velocity", "solid"]


def test_an_interrupted_write_leaves_the_series_whole(flow, tmp_path, monkeypatch):
    writer = write_series(flow, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    flow.step(DirectSolver())
    with pytest.raises(KeyboardInterrupt):
        writer.write(flow)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_series_whole(flow, tmp_path):
    writer = write_series(flow, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    flow.step(DirectSolver())
    with files_up_to(2000), pytest.raises(OSError, match="File too large: .*.h5'"):
        writer.write(flow)
    frame = render(flow, 64)  # compiles, which writes too
    with files_up_to(100), pytest.raises(OSError, match="File too large: .*a.png"):
        save_picture(flow, tmp_path / "a.png", 64)
    with files_up_to(100), pytest.raises(OSError, match="File too large: .*a.gif"):
        save_animation([frame], tmp_path / "a.gif")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_step_written_twice_is_one_frame(flow, tmp_path):
    writer = write_series(flow, tmp_path, 2)
    writer.write(flow)
    assert len(ElementTree.parse(writer.index).getroot().findall("./Domain/Grid/Grid")) == 2


def test_a_series_has_one_grid(flow, tmp_path):
    writer = write_series(flow, tmp_path, 1)
    with pytest.raises(ValueError, match="this series has frames"):
        writer.write(Flow(make_scene("plume", (20, 20))))


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        FlowWriter(tmp_path / "file" / "folder")
