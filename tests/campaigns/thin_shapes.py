"""The network on small and thin grids: M b finite, independent of memory, symmetric, the same on all ranks?

    .venv/bin/python tests/campaigns/thin_shapes.py [--count 100] [--first 0] [--seed 0] [--ranks 1 2 3 4 5]

Every case (see thin_shapes_ranks.py) runs three times on each number of ranks: with memory filled by NaN,
by a number, and with bounds checks in the kernels.  Half of the cases are all shapes from 1 x 1 to 5 x 5 x 5,
periodic along each axis or not, of which there are 1100; the others are lines, slabs and boxes of up to 130
cells a side, and now and then a thin grid for several threads.
Prints the cases in which something is wrong and one JSON line of counts; ends with 1 if there are any.

What is asked: all numbers finite; M b bit for bit the same whatever the memory held, in a second application
and after a second setup; no write beyond an array, zero frames; M symmetric to round-off and M A with
eigenvalues on the range of A between LOWEST and HIGHEST; M b on ranks as on one; conjugate gradients and dcd
with PC cnn at their tolerance, in as many iterations as on one rank.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from mpi_program import VARIABLES

PROGRAM = Path(__file__).with_name("thin_shapes_ranks.py")
KERNELS = Path(tempfile.gettempdir()) / "consolve-checked-kernels"
"""Where kernels with bounds checks are kept: apart from the others, which Numba would take for the same."""


def _poisoned(value: str, byte: int) -> dict[str, str]:
    """Environment of a program whose memory holds something: poison's arrays, and what malloc gives."""
    tunables = f"glibc.malloc.perturb={byte}:glibc.malloc.tcache_count=0"
    return {"CONSOLVE_POISON": value, "MALLOC_PERTURB_": str(byte), "GLIBC_TUNABLES": tunables}


# Memory of malloc holds the complement of the byte: 0x7f, a huge float, or 0x3f, a float near 1.
RUNS = {"nan": _poisoned("nan", 0x80), "number": _poisoned("number", 0xC0)}
RUNS["checked"] = RUNS["nan"] | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(KERNELS)}
ASYMMETRY, DIFFERENCE = 2e-5, 1e-5
"""Of single precision, relative to the largest number."""
LOWEST, HIGHEST = 0.02, 4.0
RESIDUAL = 1e-7


def run(folder: Path, kind: str, ranks: int, *arguments: str) -> tuple[dict[int, dict], str]:
    """Findings by case, and the end of what a program that crashed said."""
    folder.mkdir(parents=True, exist_ok=True)
    # Poisoned memory is for the program alone: mpirun does not bear it.
    own = RUNS[kind] | {"NUMBA_NUM_THREADS": "2" if ranks == 1 else "1"}
    program = [sys.executable, str(PROGRAM), str(folder), *arguments]
    command = ["mpirun", "-n", str(ranks), "env", *(f"{n}={value}" for n, value in own.items()), *program]
    done = subprocess.run(command, env=os.environ | VARIABLES, capture_output=True, text=True)
    file = folder / "findings"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    found = {line["number"]: line for line in lines if "number" in line}
    for line in lines:
        if "begun" in line and line["begun"] not in found:
            found[line["begun"]] = {"case": line["case"], "crashed": done.stderr[-3000:]}
    return found, done.stderr[-3000:] if done.returncode and not lines else ""


def run_all(folder: Path, kind: str, ranks: int, first: int, end: int, seed: int) -> dict[int, dict]:
    """The same of cases first..end - 1, begun again behind each crash."""
    found: dict[int, dict] = {}
    while first < end:
        some, fault = run(folder, kind, ranks, str(first), str(end), str(seed))
        if fault:
            raise RuntimeError(f"the program does not start: {fault}")
        found |= some
        first = max(found) + 1
    return found


def faults(facts: dict) -> list[str]:
    """What is wrong with the findings of one run of a case."""
    if "crashed" in facts:
        return ["crashed: " + facts["crashed"]]
    wrong = [n for n in ("finite", "positive", "same again", "frame", "guards") if not facts.get(n, True)]
    if not facts.get("asymmetry", 0.0) < ASYMMETRY:
        wrong.append(f"asymmetry {facts['asymmetry']:.1e}")
    if not LOWEST < facts.get("lowest", 1.0) <= facts.get("highest", 1.0) < HIGHEST:
        wrong.append(f"eigenvalues of M A from {facts['lowest']:.3g} to {facts['highest']:.3g}")
    if not facts.get("alone", 0.0) < DIFFERENCE:
        wrong.append(f"M b differs from that of one process by {facts['alone']:.1e}")
    for method in ("cg", "dcd"):
        solved = facts.get(method, {})
        if "refused" in solved:
            wrong.append(f"{method} refused: {solved['refused']}")
        elif solved and not (solved["reason"] > 0 and solved["residual"] < RESIDUAL):
            wrong.append(f"{method}: {solved}")
    return wrong


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    """Beyond the round-off of single precision."""
    return bool(np.abs(one - other).max(initial=0) > DIFFERENCE * np.abs(one).max(initial=0))


def judge(folder: Path, found: dict[tuple[str, int], dict[int, dict]], number: int) -> dict[str, list[str]]:
    """Faults of a case over all its runs, by kind: wrong, crashed, memory."""
    result: dict[str, list[str]] = {"wrong": [], "crashed": [], "memory": []}
    for (kind, ranks), cases in found.items():
        for fault in faults(cases[number]):
            result["crashed" if fault.startswith("crashed") else "wrong"].append(f"{kind} {ranks}: {fault}")
    if result["crashed"]:
        return result
    z = {run: np.load(folder / f"{run[0]} {run[1]}" / f"{number}.npy") for run in found}
    first = min(ranks for _, ranks in found)
    for kind, ranks in found:
        facts, alone = found[kind, ranks][number], found[kind, first][number]
        if kind == "number" and z[kind, ranks].tobytes() != z["nan", ranks].tobytes():
            result["memory"].append(f"{ranks} ranks")
        if kind == "checked" and differs(z["nan", ranks], z[kind, ranks]):
            result["wrong"].append(f"{ranks} ranks: M b is another one with bounds checks")
        if differs(z[kind, first], z[kind, ranks]):
            result["wrong"].append(f"{kind}: M b on {ranks} ranks is not that on {first}")
        for method in ("cg", "dcd"):
            count, expected = (f.get(method, {}).get("iterations", 0) for f in (facts, alone))
            if abs(count - expected) > 1:
                result["wrong"].append(f"{kind} {ranks}: {count} iterations of {method}, alone {expected}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    asked = parser.parse_args()
    end = asked.first + asked.count
    counts = {"tried": 0, "wrong": 0, "crashed": 0, "memory": 0, "refused": 0, "shared": 0}
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        for ranks in asked.ranks:
            for kind in RUNS:
                at = folder / f"{kind} {ranks}"
                found[kind, ranks] = run_all(at, kind, ranks, asked.first, end, asked.seed)
        for number in range(asked.first, end):
            result = judge(folder, found, number)
            facts = [cases[number] for cases in found.values()]
            counts["tried"] += 1
            counts["refused"] += any("refused" in f for f in facts)
            counts["shared"] += any(f.get("shared") for f in facts)
            for kind, texts in result.items():
                counts[kind] += bool(texts)
                for text in texts:
                    print(f"case {number}, {facts[0]['case']}: {kind}: {text}")
    print(json.dumps(counts))
    sys.exit(any(counts[kind] for kind in ("wrong", "crashed", "memory")))


if __name__ == "__main__":
    main()
