"""Damaged files, loaded in another process:  python tests/campaigns/files.py [--count 1000] [--seed 0]

Weights, data sets, training checkpoints, matrices and cell images.  A file is refused by the error of its
kind, or it loads as what was written; it never crashes or hangs the process, and never loads as something
else.  Kinds that hold no digest (weights in the layout of earlier versions, matrices, images) cannot tell a
changed number from a right one: of those, changed ones that load are counted apart.

Prints what is wrong with the seed, which ``--count 1 --seed SEED`` runs alone, and the counts as JSON; ends
with 1 if anything is.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from consolve.base.hdf5 import import_h5py

LIMIT_S = 100
SEALED = ("multilevel", "dcdm", "wave", "ritz", "run", "checkpoint")
"""Kinds that hold a digest of their content."""
NO_DIGEST = ", without a digest"
BAD = ("wrong", "changed", "crashed", "hung")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one fault of those that disks, networks and editors make."""
    out = bytearray(data)
    kind = rng.integers(6)
    at = int(rng.integers(len(out))) if rng.random() < 0.4 else int(rng.integers(min(len(out), 6000)))
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        size = int(rng.integers(1, 600))
        out[at : at + size] = bytes(len(out[at : at + size]))
    elif kind == 3:
        out[at : at + 8] = int(rng.integers(2**63)).to_bytes(8, "little")[: len(out[at : at + 8])]
    elif kind == 4:
        out[at : at + 4] = b"\xff" * len(out[at : at + 4])
    else:
        other = int(rng.integers(len(out)))
        out[at : at + 64] = out[other : other + len(out[at : at + 64])]
    return bytes(out)


def originals(folder: Path) -> dict[str, tuple[Path, str]]:
    """A file of each kind, and what loading it gives."""
    from consolve.learned.dcdm.format import load_dcdm_weights, save_dcdm_weights
    from consolve.learned.multilevel.format import load_weights, save_weights
    from consolve.learned.training import run as training
    from consolve.learned.waves.format import PropagatorSettings, WaveWeights, save_wave_weights
    from consolve.pde.poisson.grid import GridOperator
    from consolve.pde.ritz.data import RitzSet
    from consolve.pde.ritz.generation import generate as generate_ritz
    from consolve.pde.waves.generation import generate as generate_waves
    from consolve.pde.waves.sampling import WaveSet

    settings = PropagatorSettings(2, 2, 4, 8, 3, 4, (3, 4, 2))
    rng = np.random.default_rng(0)
    tensors = {n: rng.standard_normal(s).astype(np.float32) for n, s in settings.tensor_shapes().items()}
    made = {
        "multilevel": (load_weights("multilevel", 2), save_weights),
        "dcdm": (load_dcdm_weights("dcdm-deep", 2), save_dcdm_weights),
        "wave": (WaveWeights(settings, tensors), save_wave_weights),
    }
    paths = {}
    for name, (weights, save) in made.items():
        paths[name] = folder / f"{name}.h5"
        save(weights, paths[name])
        bare = paths[f"{name} bare"] = folder / f"{name}-bare.h5"
        bare.write_bytes(paths[name].read_bytes()[512:])  # the layout of earlier versions
    paths["ritz"], paths["run"] = folder / "ritz.h5", folder / "waves.h5"
    image = GridOperator.from_cell_types(np.zeros((12, 12), int), outside=2)
    generate_ritz(paths["ritz"], RitzSet("box", (12, 12), 30, 40))
    generate_waves(paths["run"], WaveSet("propagator", "train"), 2, vertices=64)
    paths["checkpoint"] = folder / "w.checkpoint.pt"
    state = {"version": training.CHECKPOINT_VERSION, "identity": {"a": 1}, "step": 3}
    state["net"] = {n: torch_tensor(t) for n, t in tensors.items()}
    paths["checkpoint"].write_bytes(training.sealed(state))
    matrix = image.to_csr()
    for name, suffix in (("mtx", "mtx"), ("npz", "npz"), ("petsc", "bin")):
        paths[f"matrix {name}"] = folder / f"matrix.{suffix}"
    scipy.io.mmwrite(paths["matrix mtx"], matrix)
    sp.save_npz(paths["matrix npz"], matrix)
    integers = np.concatenate([[1211216, 144, 144, matrix.nnz], np.diff(matrix.indptr), matrix.indices])
    petsc = integers.astype(">i4").tobytes() + matrix.data.astype(">f8").tobytes()
    paths["matrix petsc"].write_bytes(petsc)
    mask = (rng.random((20, 24)) < 0.3).astype(np.uint8)
    paths["mask npy"], paths["mask npz"] = folder / "mask.npy", folder / "mask.npz"
    np.save(paths["mask npy"], mask)
    np.savez(paths["mask npz"], mask)
    paths["mask h5"] = folder / "mask.h5"
    with import_h5py().File(paths["mask h5"], "w") as file:
        file["cell_type"] = mask
    return {kind: (path, load(kind, str(path))) for kind, path in paths.items()}


def torch_tensor(array: np.ndarray) -> Any:
    """As torch's."""
    import torch

    return torch.from_numpy(array)


def content(kind: str, path: str) -> str:
    """Digest of what a file of a kind holds."""
    from consolve.learned.dcdm.format import load_dcdm_weights
    from consolve.learned.multilevel.format import load_weights
    from consolve.learned.training.run import read_checkpoint
    from consolve.learned.waves.format import load_wave_weights
    from consolve.pde.ritz.data import RitzData
    from consolve.pde.waves.data import WaveData
    from consolve.solvers.matrix.cell_images import read_cell_types
    from consolve.solvers.system_files import read_matrix

    first = kind.split()[0]
    loaders = {
        "multilevel": lambda p: load_weights(p, 2),
        "dcdm": lambda p: load_dcdm_weights(p, 2),
        "wave": load_wave_weights,
    }
    if first in loaders:
        return loaders[first](path).digest
    sha = hashlib.sha256()
    if first == "ritz":
        with RitzData(path) as data:
            sha.update(data.read(np.arange(len(data))).tobytes() + data.ritz_values.tobytes())
    elif first == "run":
        with WaveData(path) as data:
            for name, array in sorted(data.read().items()):
                sha.update(name.encode() + np.ascontiguousarray(array).tobytes())
    elif first == "checkpoint":
        state = read_checkpoint(Path(path), "cpu")
        for name, tensor in sorted(state["net"].items()):
            sha.update(name.encode() + tensor.numpy().tobytes())
        sha.update(str((state["identity"], state["step"])).encode())
    elif first == "matrix":
        matrix = read_matrix(path)
        sha.update(matrix.indptr.tobytes() + matrix.indices.tobytes() + matrix.data.tobytes())
    else:
        mask = read_cell_types(path)
        sha.update(str(mask.shape).encode() + mask.tobytes())
    return sha.hexdigest()


def load(kind: str, path: str) -> str:
    """What comes of loading a file: ``digest ...``, ``refused ...``, or the name of another exception."""
    from consolve.base.data_file import DataFileError
    from consolve.base.errors import SystemFileError
    from consolve.learned.training.run import CheckpointError
    from consolve.learned.weights.file import WeightsError

    try:
        return f"digest {content(kind, path)}"
    except (WeightsError, DataFileError, CheckpointError, SystemFileError) as error:
        return f"refused {error}"
    except Exception as error:
        return f"wrong {type(error).__name__}: {error}"


def _worker(connection) -> None:
    while True:
        connection.send(load(*connection.recv()))


class Worker:
    """A process that loads files; another one takes its place when it dies or hangs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._end, other = self._context.Pipe()
        self._process = self._context.Process(target=_worker, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def load(self, kind: str, path: Path) -> str:
        """As the function, or ``crashed`` or ``hung``."""
        self._end.send((kind, str(path)))
        try:
            if self._end.poll(LIMIT_S):
                return str(self._end.recv())
            outcome = "hung"
        except EOFError:
            outcome = "crashed"
        self._process.kill()
        self._start()
        return outcome


def mutation(data: bytes, seed: int) -> bytes:
    """That of a seed."""
    return mutated(data, np.random.default_rng(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="of files; default: all")
    asked = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        files, worker = originals(Path(name)), Worker()
        kinds = asked.kinds or list(files)
        for seed in range(asked.seed, asked.seed + asked.count):
            kind = kinds[seed % len(kinds)]
            path, right = files[kind]
            target = Path(name) / f"mutated{path.suffix}"
            target.write_bytes(mutation(path.read_bytes(), seed))
            outcome = worker.load(kind, target)
            word = outcome.split()[0]
            if word == "digest":
                word = "as written" if outcome == right else f"changed{NO_DIGEST * (kind not in SEALED)}"
            if word in BAD:
                bad += 1
                print(f"seed {seed} {kind}: {outcome}")
            counts[kind][word] += 1
    print(json.dumps({"files": asked.count, "bad": bad, **counts}, indent=1))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
