"""``consolve data``: the sets that networks are trained and judged on."""

from __future__ import annotations

import sys
import time

import click

from consolve.commands.data_ritz import check_ritz_file, is_ritz_file, ritz
from consolve.commands.output import Document, print_result, progress


@click.group()
def data() -> None:
    """Make and check data sets."""


data.add_command(ritz)


@data.command()
@click.option(
    "--set", "name", type=click.Choice(["propagator", "zone"]), required=True,
    help="propagator: the whole square from the source's end on, in many media.  zone: the upper right "
    "corner, by source and inclusion.",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(min=1), required=True, help="Number of simulations.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--split", type=click.Choice(["train", "validation", "test", "unseen"]), default="train",
    show_default=True, help="Splits share no run; unseen: other media and higher frequencies.",
)  # fmt: skip
@click.option("--out", metavar="FILE.h5", required=True, help="Where the set goes; FILE.h5.part until whole.")
@click.option(
    "--vertices", type=int, default=253, show_default=True,
    help="Vertices a side of the finite-element grid, 63 k + 1.",
)  # fmt: skip
@click.option(
    "--solver", type=click.Choice(["leap-frog", "dolfinx"]), default="leap-frog", show_default=True,
    help="leap-frog: ours, on structured grids.  dolfinx: the same elements and steps by DOLFINx.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run left.")
@click.option("--json", "json_path", metavar="FILE", help="Write a summary as JSON; - is stdout.")
def wave(
    name: str,
    runs: int,
    seed: int,
    split: str,
    out: str,
    vertices: int,
    solver: str,
    resume: bool,
    json_path: str | None,
) -> None:
    """Solutions of the wave equation by finite elements, as an HDF5 file.

    The file depends on the options alone, and the runs of a shorter set are the first of a longer one.
    Under mpirun the ranks share the runs.  Ctrl-C, or a kill, loses nothing: the same command with --resume
    goes on, to the same content.
    """
    from consolve.base.files import check_writable_file
    from consolve.pde.waves.data import megabytes
    from consolve.pde.waves.generation import generate, world
    from consolve.pde.waves.sampling import WaveSet

    if not out.endswith(".h5"):
        raise click.UsageError(f"--out {out!r}: expected a name that ends in .h5")
    wave_set = WaveSet(name, split, seed)
    try:
        wave_set.every(vertices)
    except ValueError as error:
        raise click.UsageError(f"--vertices: {error}") from error
    check_writable_file(out)
    document = Document(json_path)
    comm = world()
    command = "consolve " + " ".join(word for word in sys.argv[1:] if word != "--resume")
    begin = time.perf_counter()
    with progress() as line:
        line.start("wave data")

        def report(done: int, of: int) -> None:
            line.show(f"{done}/{of} runs  {time.perf_counter() - begin:.0f} s")

        try:
            made = generate(out, wave_set, runs, vertices, solver, resume, command, comm, report)
        except KeyboardInterrupt:
            click.echo(f"the runs that are done are in {out}.part; --resume goes on from there", err=True)
            raise
        except Exception:
            if comm is not None and comm.rank:
                raise SystemExit(1) from None  # all ranks raise it, rank 0 says it
            raise
    seconds = time.perf_counter() - begin
    if comm is not None and comm.rank:
        return
    document.write(
        {
            "file": out, "set": name, "split": split, "seed": seed, "runs": runs, "solved": made.solved,
            "vertices": vertices, "solver": solver, "ranks": made.ranks, "digest": made.digest,
            "megabytes": megabytes(wave_set, runs), "seconds": seconds,
        }
    )  # fmt: skip
    if not document.alone:
        print_result(
            f"{out}: {runs} runs of the {name} set ({split}), {megabytes(wave_set, runs)} MB, digest "
            f"{made.digest[:12]}",
            f"{made.solved} runs solved on {vertices} x {vertices} vertices in {seconds:.1f} s",
        )


@data.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--run", "again", type=click.IntRange(min=0), multiple=True,
    help="Wave data: a run to solve again; may be repeated.  [default: one, picked by the file's digest]",
)  # fmt: skip
@click.option("--json", "json_path", metavar="FILE", help="Write what was found as JSON; - is stdout.")
def check(file: str, again: tuple[int, ...], json_path: str | None) -> None:
    """Check a file of wave or Ritz data.

    Wave data: layout, digests, ranges, and a run solved again.  Ritz data: layout, digests, norms, Ritz
    values, and the spectrum of the right-hand sides.
    """
    if is_ritz_file(file):
        if again:
            raise click.UsageError(f"--run is for wave data, {file} holds Ritz data")
        check_ritz_file(file, json_path)
        return
    from consolve.pde.waves.check import check as check_file
    from consolve.pde.waves.data import WaveData

    document = Document(json_path)
    with WaveData(file) as found:
        w, runs, digest, vertices = found.wave_set, found.runs, found.digest, found.vertices
    with progress() as line:
        result = check_file(file, again or None, lambda done, of: line.show(f"{done}/{of} runs"))
    document.write(
        {
            "file": file, "set": w.name, "split": w.split, "seed": w.seed, "runs": runs, "digest": digest,
            "vertices": vertices, "largest": result.largest, "faults": result.faults,
            "solved_again": [{"run": run, "difference": d} for run, d in result.differences.items()],
        }
    )  # fmt: skip
    if not document.alone:
        print_result(
            f"{file}: {runs} runs of the {w.name} set ({w.split}, seed {w.seed}), digest {digest[:12]}",
            f"largest |u| {result.largest:.3g}",
            *(f"run {run} solved again: differs by {d:.2g} of its largest |u|"
              for run, d in result.differences.items()),
            *(f"fault: {fault}" for fault in result.faults),
        )  # fmt: skip
    if result.faults:
        raise RuntimeError(f"{file} is not good: {result.faults[0]}")
