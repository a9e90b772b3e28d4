"""Cases that run in programs of their own, which may crash or hang: begun again behind each such case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mpi_program import VARIABLES

HUNG = "Timeout ("
"""What faulthandler says where it ends a program."""


def run_cases(
    program: Path, folder: Path, first: int, end: int, *arguments: str, ranks: int = 1
) -> dict[int, dict]:
    """Findings of cases first..end - 1 by number.

    The program writes ``{"begun": number}`` and ``{"number": number, ...}`` as lines of FOLDER/findings.  A
    case that it begins and does not end is ``{"crashed": text}``, or ``{"hung": text}`` where the program's
    own faulthandler has ended it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "findings"
    found: dict[int, dict] = {}
    while first < end:
        file.unlink(missing_ok=True)
        command = [sys.executable, str(program), str(folder), str(first), str(end), *arguments]
        if ranks > 1:
            command = ["mpirun", "-n", str(ranks), *command]
        done = subprocess.run(command, env=os.environ | VARIABLES, capture_output=True, text=True)
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if not lines:
            raise RuntimeError(f"{program.name} does not start: {done.stderr[-3000:]}")
        found |= {line["number"]: line for line in lines if "number" in line}
        last = max(line.get("begun", -1) for line in lines)
        if last not in found:
            word = "hung" if HUNG in done.stderr else "crashed"
            found[last] = {"number": last, word: f"{done.returncode} {done.stderr[-3000:]}"}
        first = last + 1
    return found
