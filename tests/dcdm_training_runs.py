"""Runs of trainings of the deep conjugate direction method on tiny sets, for the tests that need them."""

from consolve.learned.dcdm.runs import dcdm_training
from consolve.pde.ritz.data import RitzSet
from consolve.pde.ritz.generation import generate

KINDS = {
    "ritz": dict(loss="ritz", batch=4),
    "image": dict(loss="ritz", batch=4, image=True, optimiser="muon", amp=True),
    "unrolled": dict(loss="unrolled", batch=2, dim=2, cells=10, unrolled=2, warm_up=2, image=True),
    "energy": dict(loss="energy", batch=2, dim=2, cells=10, network="dcdm-deep", gate_width=4),
}
SHORT = dict(steps=7, width=4, command="consolve train dcdm")


def write_sets(folder):
    """Paths of Ritz data: 2D, another seed of it, with obstacles, of few cells, and 3D."""
    sets = {
        "2d": RitzSet("box", (12, 9), 40, 100),
        "other": RitzSet("box", (12, 9), 40, 30, seed=1),
        "spheres": RitzSet("spheres", (16, 16), 40, 30),
        "few": RitzSet("box", (4, 4), 6, 100),
        "3d": RitzSet("box", (6, 5, 4), 30, 40),
    }
    paths = {}
    for name, ritz_set in sets.items():
        paths[name] = folder / f"{name}.h5"
        generate(paths[name], ritz_set)
    return paths


def small_training(sets, folder, kind="ritz", name="w", data="2d", **changes):
    """Context of a run that is not started."""
    chosen = {**SHORT, **KINDS[kind], **changes}
    if chosen["loss"] == "ritz":
        chosen["data"] = [str(sets[given]) for given in ([data] if isinstance(data, str) else data)]
    return dcdm_training(out=str(folder / f"{name}.h5"), **chosen)
