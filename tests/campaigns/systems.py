"""Random Poisson systems by every route, against direct solutions.

    python tests/campaigns/systems.py [--count 1000] [--seed 0] [--ranks 1]

Systems are of random_systems.py, routes of systems_ranks.py: consolve.solve and raw KSPs with PC cnn, under
cg and dcd, GridSolver, and conjugate gradients of SciPy with aspreconditioner; on several ranks the raw KSPs.
Prints what is wrong with the seed, which ``--count 1 --seed SEED`` runs alone, and one JSON line of counts;
ends with 1 if anything is.

What is asked: a solution has its true residual at the tolerance, up to the rounding of A x, and is as near to
the direct solution as the condition number lets it be; a right-hand side without a solution is refused as
such; nothing else is refused but coefficients that span more than single precision, nothing ends without
converging but where double precision has no such solution, where the matrix is not definite, or where PC cnn
has warned of coefficients that its precision does not bear.
"""

import argparse
import collections
import json
import sys
import tempfile
from pathlib import Path

from programs import run_cases

PROGRAM = Path(__file__).with_name("systems_ranks.py")
MAY_REFUSE = ("single precision", "cannot be read from its pattern", "is not a neighbour")
"""In the text of what may be refused; the last two where no grid is given."""
SLOW = 300
"""Iterations; counted, not a fault."""


def judge(facts: dict, name: str, found: dict) -> str:
    """right, or one word for what is wrong or special."""
    kind, raw = found["kind"], name.startswith("ksp")
    if facts["fault"] == "inconsistent":
        # No preconditioner sees b, and no solver that refuses the matrix.
        unseen = {("SciPy", "not converged"), (name, "refused")}
        return "right" if kind == "inconsistent" or (name, kind) in unseen else "wrong"
    if kind == "error":
        return "error"
    if facts["fault"] == "zero":
        return "right" if kind == "inconsistent" or "the matrix is zero" in found.get("text", "") else "wrong"
    if not facts["direct"] < 1:
        return "limit of double precision"
    if kind == "solved":
        if not found["finite"]:
            return "wrong"
        # PETSc's own methods go by a residual that rounding takes away from the true one.
        allowed = facts["rtol"] * (4 if raw else 1.001) + found["round off"] * (4 if raw else 1)
        if not found["residual"] <= allowed:
            beyond = (raw or name == "SciPy") and facts["direct"] > facts["rtol"]
            return "limit of double precision" if beyond else "wrong"
        near = 4 * found["condition"] * max(allowed, facts["direct"])
        if not (found["distance"] <= near or near > 0.1):
            return "wrong"
        return "right" if found["iterations"] <= SLOW else "slow"
    if facts["indefinite"]:
        return "indefinite"
    if kind == "not converged" and found["warned"]:
        return "warned"
    if kind == "not converged":
        return "limit of double precision" if facts["direct"] > 0.1 * facts["rtol"] else "stalled"
    if kind == "refused" and any(text in found["text"] for text in MAY_REFUSE):
        return "refused"
    return "refused without need"


GOOD = {"right", "slow", "warned", "refused", "indefinite", "limit of double precision"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    asked = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        found = run_cases(PROGRAM, Path(folder), asked.seed, asked.seed + asked.count, ranks=asked.ranks)
    for seed, facts in sorted(found.items()):
        ended = next((word for word in ("crashed", "hung") if word in facts), "")
        if ended:
            counts["programs"][ended] += 1
            print(f"seed {seed}: {ended}: {facts[ended]}")
            bad += 1
            continue
        for name, outcome in facts["routes"].items():
            word = judge(facts, name, outcome)
            counts[name][word] += 1
            if word not in GOOD:
                bad += 1
                print(f"seed {facts['system']}: {name}: {word}: {outcome}, direct {facts.get('direct')}")
    print(json.dumps({"systems": len(found), "bad": bad, **counts}))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
