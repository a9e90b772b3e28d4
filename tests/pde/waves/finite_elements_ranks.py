"""Program for mpirun: wave runs on ranks; prints one JSON line of values and errors."""

import json

import numpy as np
from mpi4py import MPI

from consolve.pde.waves.finite_elements import WaveModel
from consolve.pde.waves.mesh import unit_square_mesh
from consolve.pde.waves.problem import Boundaries, Medium, PixelMedium, Source, WaveProblem

comm = MPI.COMM_WORLD
SIDES = Boundaries("absorbing", "fixed", "free", "absorbing")
SOURCE = Source(0.31, 0.42, 4.0, radius=0.05)


def blocked(name):
    mask = np.zeros((8, 8), bool)
    mask[2:4, 5:7] = mask[6, 1] = True
    return PixelMedium(np.random.default_rng(0).uniform(1, 2, (8, 8)), **{name: mask})


def values(medium, **how):
    """Snapshots, energy, loss and work; steps are given, since the stable one is estimated."""
    model = WaveModel(WaveProblem(medium, SOURCE, SIDES), unit_square_mesh(25), **how)
    snapshots = model.run([0.3, 0.6], 9)
    rest = [model.energy(), model.lost, model.work, model.mesh.comm.allreduce(model.driven_points.shape[0])]
    return [*snapshots.reshape(-1).tolist(), *rest[:3]]


def driven():
    medium = blocked("hole")
    model = WaveModel(WaveProblem(medium, None, SIDES), unit_square_mesh(25), driven=lambda x, y: x < 1e-9)
    out = model.run([0.5], 9, lambda t, points: np.sin(9 * t) * np.sin(3 * points[:, 1]))
    return [*out.reshape(-1).tolist(), comm.allreduce(len(model.driven_points))]


def error_of(action):
    """The message, if it is the same on all ranks."""
    try:
        action()
        text = "no error"
    except ValueError as error:
        text = str(error)
    texts = comm.allgather(text)
    return text if len(set(texts)) == 1 else f"different: {texts}"


runs = {
    "holes": values(blocked("hole"), step=0.005),
    "fixed cells": values(blocked("fixed"), step=0.005),
    "smooth P2": values(Medium("smooth", 1), degree=2, step=0.003),
    "layered P3": values(Medium("layered", 1), degree=3, step=0.002),
    "consistent": values(blocked("fixed"), mass="consistent", step=0.005),
    "newmark": values(blocked("hole"), degree=2, mass="consistent", scheme="newmark", step=0.02),
    "driven": driven(),
}
plain = WaveProblem(PixelMedium([[1.0]]), None, SIDES)
errors = [
    error_of(lambda: WaveModel(plain, unit_square_mesh(9)).run([0.02], [[0.5, 0.5], [1.5, 0.5]])),
    error_of(
        lambda: WaveModel(WaveProblem(blocked("hole"), SOURCE), unit_square_mesh(9)).run([0], [[0.7, 0.3]])
    ),
    error_of(lambda: WaveModel(WaveProblem(PixelMedium([[1.0]], hole=[[True]])), unit_square_mesh(9))),
]
if comm.rank == 0:
    print("RESULT " + json.dumps({"runs": runs, "errors": errors}))
