"""``consolve data ritz``: right-hand sides made of Ritz vectors, and the check of such files."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import click

from consolve.commands.output import Document, print_result, progress
from consolve.commands.parameters import Positive, Sizes, grid_shape

PAPER_VECTORS, PAPER_SAMPLES = 10_000, 20_000


@click.command()
@click.option("--dim", type=click.Choice(["2", "3"]), default="2", show_default=True)
@click.option("--cells", type=Sizes(), required=True, help="Cells along each axis: N, or NX,NY[,NZ].")
@click.option(
    "--domain", "name", metavar="NAME", default="box", show_default=True,
    help="A domain of the gallery, with or without closed- before it.",
)  # fmt: skip
@click.option("--domain-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of the Lanczos start vector and of the coefficients.",
)  # fmt: skip
@click.option(
    "--vectors", type=click.IntRange(min=1), metavar="M",
    help="Lanczos vectors.  [default: 10000 as in the paper, at most the rank of the operator]",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(min=1), metavar="K", default=PAPER_SAMPLES, show_default=True,
    help="Right-hand sides.",
)  # fmt: skip
@click.option(
    "--low-excess", type=click.IntRange(min=0), metavar="T",
    help="The lowest M/2 + T Ritz vectors weigh 9 times as much.  [default: M/20, the paper's 500 of 10000]",
)  # fmt: skip
@click.option("--memory", type=Positive(), metavar="GIB", help="Memory to use.  [default: half of the free]")
@click.option("--out", metavar="FILE.h5", required=True, help="Where the set goes; FILE.h5.part until whole.")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run left.")
@click.option("--json", "json_path", metavar="FILE", help="Write a summary as JSON; - is stdout.")
def ritz(
    dim: str,
    cells: tuple[int, ...],
    name: str,
    domain_seed: int,
    seed: int,
    vectors: int | None,
    samples: int,
    low_excess: int | None,
    memory: float | None,
    out: str,
    resume: bool,
    json_path: str | None,
) -> None:
    """Right-hand sides made of Ritz vectors of a domain's operator, as an HDF5 file.

    The set that the Deep Conjugate Direction Method is trained on: Lanczos vectors of A, and unit vectors
    with normal coefficients in its Ritz vectors, those of the lower part of the spectrum weighted by 9.
    Ctrl-C, or a kill, loses nothing: the same command with --resume goes on, to the same content.
    """
    from consolve.base.files import check_writable_file
    from consolve.base.memory import GIB, available
    from consolve.learned.training.record import revision
    from consolve.pde.poisson.domains import make_domain
    from consolve.pde.ritz.data import RitzSet
    from consolve.pde.ritz.generation import generate
    from consolve.pde.ritz.lanczos import rank
    from consolve.pde.ritz.memory import Needs

    if not out.endswith(".h5"):
        raise click.UsageError(f"--out {out!r}: expected a name that ends in .h5")
    shape = grid_shape(cells, int(dim))
    try:
        operator = make_domain(name, shape, domain_seed).operator()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    most = rank(operator)
    if vectors is not None and vectors > most:
        raise click.UsageError(
            f"--vectors {vectors}: the operator of {name!r} has rank {most}, take at most {most}"
        )
    check_writable_file(out)
    document = Document(json_path)
    ritz_set = RitzSet(
        name, shape, min(PAPER_VECTORS, most) if vectors is None else vectors, samples, seed, low_excess,
        domain_seed,
    )  # fmt: skip
    needs = Needs(ritz_set, operator.unknowns)
    allowed = available() / 2 if memory is None else memory * GIB
    if sys.stderr.isatty():
        click.echo(
            f"{ritz_set.vectors} vectors of {operator.unknowns} unknowns take "
            f"{needs.bytes('float64') / GIB:.2f} GiB of memory in float64, "
            f"{needs.bytes('float32') / GIB:.2f} in float32; {samples} right-hand sides take "
            f"{needs.data_file / 1e6:.0f} MB of disk",
            err=True,
        )
    command = shlex.join(["consolve", *(word for word in sys.argv[1:] if word != "--resume")])
    begin = time.perf_counter()
    with progress() as line:

        def report(what: str, done: int, of: int) -> None:
            line.show(f"{what}  {done}/{of}  {time.perf_counter() - begin:.0f} s")

        try:
            made = generate(out, ritz_set, allowed, resume, command, revision(), report)
        except KeyboardInterrupt:
            click.echo(f"what is done is kept beside {out}; go on with: {command} --resume", err=True)
            raise
    seconds = time.perf_counter() - begin
    document.write(
        {
            "file": out, "domain": name, "domain_seed": domain_seed, "cells": list(shape[::-1]),
            "unknowns": operator.unknowns, "seed": seed, "vectors": ritz_set.vectors, "kept": made.kept,
            "low_vectors": ritz_set.low_vectors(made.kept), "samples": samples, "basis": made.basis,
            "lanczos_steps_made": made.steps, "samples_made": made.samples, "digest": made.digest,
            "megabytes": needs.data_file / 1e6, "seconds": seconds,
        }
    )  # fmt: skip
    if not document.alone:
        print_result(
            f"{out}: {samples} right-hand sides of {name} on {' x '.join(map(str, shape[::-1]))} cells, seed "
            f"{seed}, {needs.data_file / 1e6:.0f} MB, digest {made.digest[:12]}",
            f"{made.kept} of {ritz_set.vectors} Ritz vectors, the lowest {ritz_set.low_vectors(made.kept)} "
            f"weighted by 9; basis in {made.basis}",
            f"{made.steps} Lanczos steps and {made.samples} right-hand sides made in {seconds:.1f} s",
        )


def is_ritz_file(file: str) -> bool:
    """True if ``file`` says that it holds Ritz data; OSError if it is there and cannot be read as HDF5."""
    from consolve.base.hdf5 import import_h5py
    from consolve.pde.ritz.data import CONTENT

    try:
        with import_h5py().File(file, "r") as opened:
            return bool(opened.attrs.get("content") == CONTENT)
    except OSError as error:
        if not Path(file).is_file() or "lock file" in str(error):
            return False
        raise OSError(
            f"{file}: cannot be read as HDF5 ({error}); make it anew by the command that made it"
        ) from error


def check_ritz_file(file: str, json_path: str | None) -> None:
    """``consolve data check`` of a file of Ritz data."""
    from consolve.pde.ritz.check import check
    from consolve.pde.ritz.data import RitzData

    document = Document(json_path)
    with RitzData(file) as found:
        s, digest, kept = found.ritz_set, found.digest, found.ritz_values.size
        cells = found.attributes["cells"]
    with progress() as line:
        result = check(file, lambda done, of: line.show(f"{done}/{of} right-hand sides"))
    quotients = {
        "rayleigh_quotient": result.rayleigh_quotient, "expected_quotient": result.expected_quotient,
        "quotient_tolerance": result.quotient_tolerance,
    }  # fmt: skip
    document.write(
        {
            "file": file, "content": "ritz data", "domain": s.domain, "cells": cells, "seed": s.seed,
            "vectors": s.vectors, "kept": kept, "samples": s.samples, "digest": digest,
            "norm_error": result.norm_error, "faults": result.faults,
        } | {name: None if value != value else value for name, value in quotients.items()}
    )  # fmt: skip
    if not document.alone:
        print_result(
            f"{file}: {s.samples} right-hand sides of {s.domain} on {' x '.join(map(str, cells))} cells, "
            f"seed {s.seed}, {kept} Ritz values, digest {digest[:12]}",
            f"norms are 1 to {result.norm_error:.1g}; mean Rayleigh quotient {result.rayleigh_quotient:.4g}, "
            f"expected {result.expected_quotient:.4g} within {result.quotient_tolerance:.1g}",
            *(f"fault: {fault}" for fault in result.faults),
        )
    if result.faults:
        raise RuntimeError(f"{file} is not good: {result.faults[0]}")
