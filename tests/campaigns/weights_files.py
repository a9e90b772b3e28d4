"""Damaged files of weights, loaded in another process:  python tests/campaigns/weights_files.py [COUNT]

A file is refused by a WeightsError, or it loads as what was written; it never crashes or hangs the process,
and never loads as something else.  Half of the files are sealed, as every file is that is written now; the
others have the layout of earlier versions, where nothing tells a changed number from a right one: of those,
changed ones that load are counted apart.
"""

from __future__ import annotations

import collections
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path

import numpy as np

LIMIT_S = 100


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
    """A file of each format, sealed and not, with its digest."""
    from consolve.learned.dcdm.format import load_dcdm_weights, save_dcdm_weights
    from consolve.learned.multilevel.format import load_weights, save_weights
    from consolve.learned.waves.format import PropagatorSettings, WaveWeights, save_wave_weights

    settings = PropagatorSettings(2, 2, 4, 8, 3, 4, (3, 4, 2))
    rng = np.random.default_rng(0)
    tensors = {n: rng.standard_normal(s).astype(np.float32) for n, s in settings.tensor_shapes().items()}
    made = {
        "multilevel": (load_weights("multilevel", 2), save_weights),
        "dcdm": (load_dcdm_weights("dcdm-deep", 2), save_dcdm_weights),
        "wave": (WaveWeights(settings, tensors), save_wave_weights),
    }
    found = {}
    for name, (weights, save) in made.items():
        path = folder / f"{name}.h5"
        save(weights, path)
        found[f"{name} sealed"] = path, weights.digest
        bare = folder / f"{name}-bare.h5"
        bare.write_bytes(path.read_bytes()[512:])  # the layout of earlier versions
        found[f"{name} bare"] = bare, weights.digest
    return found


def load(kind: str, path: str) -> str:
    """What comes of loading a file: ``digest ...``, ``refused ...``, or the name of another exception."""
    from consolve.learned.dcdm.format import load_dcdm_weights
    from consolve.learned.multilevel.format import load_weights
    from consolve.learned.waves.format import load_wave_weights
    from consolve.learned.weights.file import WeightsError

    loaders = {
        "multilevel": lambda p: load_weights(p, 2),
        "dcdm": lambda p: load_dcdm_weights(p, 2),
        "wave": load_wave_weights,
    }
    try:
        return f"digest {loaders[kind](path).digest}"
    except WeightsError as error:
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


def run(count: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Counts of outcomes, by format."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as name:
        files = originals(Path(name))
        worker, rng = Worker(), np.random.default_rng(seed)
        for number in range(count):
            kind = list(files)[number % len(files)]
            path, digest = files[kind]
            target = Path(name) / "mutated.h5"
            target.write_bytes(mutated(path.read_bytes(), rng))
            outcome = worker.load(kind.split()[0], target)
            word = outcome.split()[0]
            if word == "digest":
                same = outcome == f"digest {digest}"
                word = "as written" if same else "changed" if "sealed" in kind else "changed, not sealed"
            if word in ("wrong", "changed", "crashed", "hung"):
                print(f"{number} {kind}: {outcome}", file=sys.stderr)
            counts[kind][word] += 1
    return {kind: dict(found) for kind, found in counts.items()}


if __name__ == "__main__":
    found = run(*(int(word) for word in sys.argv[1:] or ["1000"]))
    print(json.dumps(found, indent=1))
    bad = {"wrong", "changed", "crashed", "hung"}
    sys.exit(any(bad & set(outcomes) for outcomes in found.values()))
