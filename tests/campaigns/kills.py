"""Long commands killed at random moments, and taken up again:

    python tests/campaigns/kills.py [--count 50] [--seed 0] [--ranks 1] [--commands multilevel ritz ...]

Each command runs once undisturbed.  Then it gets SIGKILL, with all that it started, after a random part of
that time, and starts again with ``--resume`` where it has left something (commands without one: the same
command again), until it ends by itself; so on, until COUNT kills of every command are done.  What it writes
must equal what the undisturbed one wrote: weights and log of a training, arrays of data sets, flows and
forecasts.
On several ranks: trainings under torchrun, wave data under mpirun.

Prints what differs with the seed of its kills, and the counts as JSON; ends with 1 if anything does.
"""

import argparse
import collections
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from mpi_program import VARIABLES

from consolve.base.hdf5 import import_h5py

TRAINING = str(Path(__file__).parents[1] / "learned" / "training_process.py")
"""Validates, and so writes a checkpoint, every few steps."""
MOST_SECONDS = 300
MOST_TRIES, MOST_ANEW = 40, 4
"""Kills of a command before it may end undisturbed; of one that starts anew each time."""


@dataclass(frozen=True)
class Command:
    """A long command.

    Parameters
    ----------
    program
        What comes before its words.
    words
        Its arguments, with ``OUT`` where the result goes.
    digest
        Of the result.
    left
        Names beside the result which, if there, ``--resume`` goes on from; none: no such option.
    ranks
        Launcher for several ranks; none: there is one only.
    """

    program: tuple[str, ...]
    words: tuple[str, ...]
    digest: Callable[[Path], str]
    left: tuple[str, ...] = ()
    ranks: tuple[str, ...] = field(default=())

    def line(self, out: Path, ranks: int) -> list[str]:
        """What to start, before --resume."""
        launcher = [word.replace("RANKS", str(ranks)) for word in self.ranks] if ranks > 1 else []
        python = [] if launcher[:1] == ["-m"] else [sys.executable]
        head = [sys.executable, *launcher] if launcher[:1] == ["-m"] else [*launcher, *python]
        return [*head, *self.program, *(word.replace("OUT", str(out)) for word in self.words)]

    def resume(self, out: Path) -> list[str]:
        """--resume where there is something to go on from."""
        return ["--resume"] * any(out.with_name(name).exists() for name in self.left)


def arrays_of(path: Path) -> str:
    """Digest of all datasets of an HDF5 file."""
    sha = hashlib.sha256()

    def add(name, thing):
        if hasattr(thing, "dtype"):
            sha.update(name.encode() + np.ascontiguousarray(thing[()]).tobytes())

    with import_h5py().File(path, "r") as file:
        file.visititems(add)
    return sha.hexdigest()


def training_of(path: Path) -> str:
    """Digest of weights and log, without its seconds."""
    sha = hashlib.sha256(arrays_of(path).encode())
    with path.with_suffix(".csv").open(newline="") as file:
        for row in csv.reader(file):
            sha.update(str([row[0], *row[2:]]).encode())
    return sha.hexdigest()


def flow_of(path: Path) -> str:
    """Digest of the frames of a flow."""
    return "".join(arrays_of(file) for file in sorted(path.glob("*.h5")))


def commands(folder: Path) -> dict[str, Command]:
    """By name; makes the data sets that trainings need."""
    consolve = ("-m", "consolve")
    training = (TRAINING, "2", "none", "train")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "RANKS")
    checkpoint = ("w.checkpoint.pt",)
    ritz = ("data", "ritz", "--cells", "24", "--vectors", "200", "--samples", "9000", "--out", "OUT")
    waves = ("data", "wave", "--set", "propagator", "--vertices", "64", "--out", "OUT")
    made = {"r.h5": (*ritz,), "t.h5": (*waves, "--runs", "4"), "v.h5": (*waves, "--runs", "2", "--split",
            "validation")}  # fmt: skip
    for name, words in made.items():
        line = [sys.executable, *consolve, *(w.replace("OUT", str(folder / name)) for w in words)]
        subprocess.run(line, check=True, capture_output=True, env=os.environ | VARIABLES)
    r, t, v = (str(folder / name) for name in made)
    return {
        "multilevel": Command(
            training, ("multilevel", "--dim", "2", "--steps", "60", "--batch", "1", "--cells", "64", "--out",
            "OUT"), training_of, checkpoint, torchrun,
        ),
        "dcdm": Command(
            training, ("dcdm", "--data", r, "--steps", "40", "--batch", "2", "--out", "OUT"), training_of,
            checkpoint, torchrun,
        ),
        "wave": Command(
            training, ("wave", "--network", "propagator", "--data", t, "--validation", v, "--steps", "30",
            "--batch", "2", "--width", "8", "--layers", "3", "--out", "OUT"), training_of, checkpoint,
            torchrun,
        ),
        "ritz": Command(consolve, ritz, arrays_of, ("w.h5", "w.h5.part")),
        "waves": Command(
            consolve, (*waves, "--runs", "60"), arrays_of, ("w.h5", "w.h5.part"),
            ("mpirun", "-n", "RANKS", "--oversubscribe"),
        ),
        "flow": Command(
            consolve, ("flow", "plume", "--cells", "32,48", "--steps", "60", "--every", "4", "--pixels", "0",
            "--out", "OUT"), flow_of,
        ),
        "predict": Command(
            consolve, ("wave", "predict", "--data", t, "--steps", "30", "--out", "OUT"), arrays_of
        ),
    }  # fmt: skip


def start(line: list[str], seconds: float) -> tuple[bool, str]:
    """Whether a command ended by itself within so many seconds, and what it said if it failed."""
    running = subprocess.Popen(
        line, env=os.environ | VARIABLES, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = running.communicate(timeout=seconds)
        return True, said if running.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        return False, ""


def series(
    command: Command, folder: Path, right: str, whole: float, seed: int, ranks: int
) -> tuple[int, str]:
    """Kills until the command ends by itself, and what is wrong then."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    out = folder / "w.h5"
    most = MOST_TRIES if command.left else MOST_ANEW
    for kills in range(most):
        seconds = float(rng.uniform(0.05, 1.0)) * whole
        ended, fault = start([*command.line(out, ranks), *command.resume(out)], seconds)
        if fault:
            return kills, f"fails: {fault[-600:]}"
        if ended:
            return kills, "" if command.digest(out) == right else "another result"
    ended, fault = start([*command.line(out, ranks), *command.resume(out)], MOST_SECONDS)
    if not ended or fault:
        return most, f"fails: {fault[-600:]}" if ended else "hung"
    return most, "" if command.digest(out) == right else "another result"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--commands", nargs="*")
    asked = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        known = commands(Path(name))
        chosen = asked.commands or [c for c, one in known.items() if one.ranks or asked.ranks == 1]
        for command in chosen:
            found = counts[command] = collections.Counter(kills=0, ends=0, bad=0)
            out = Path(name) / f"{command}-right" / "w.h5"
            out.parent.mkdir()
            begin = time.perf_counter()
            ended, fault = start(known[command].line(out, asked.ranks), MOST_SECONDS)
            if fault or not ended:
                raise RuntimeError(f"{command} undisturbed: {fault or 'hung'}")
            whole = time.perf_counter() - begin
            right = known[command].digest(out)
            seed = asked.seed
            while found["kills"] < asked.count:
                where = Path(name) / f"{command}-{seed}"
                kills, wrong = series(known[command], where, right, whole, seed, asked.ranks)
                found["kills"] += kills
                found["ends"] += 1
                if wrong:
                    found["bad"] += 1
                    print(f"seed {seed}: {command}: {wrong}", flush=True)
                seed += 1
    print(json.dumps(counts))
    sys.exit(any(found["bad"] for found in counts.values()))


if __name__ == "__main__":
    main()
