"""Finite elements on unstructured meshes: cnn beside BoomerAMG and GAMG, tuned by the scan below.

    pip install gmsh scikit-fem
    python benchmarks/meshes.py --folder meshes --out benchmarks/results/meshes.json

Meshes by Gmsh, matrices by scikit-fem, rows in reverse Cuthill-McKee order as mesh programs leave them, kept
in the folder.  Each solver sets up and solves ``--repeats`` times in a process of its own; peers run on two
ranks, cnn on one with two threads and on two ranks.  A peer's options are those that were fastest in total
on the family's mesh of about 10^5 points; the whole scan is kept.  Times are wall-clock seconds of set-up and
solve.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

RTOL = ("1e-6", "1e-10")
SIZES = {
    "disc": (1e4, 1e5, 1e6),
    "lshape": (1e4, 1e5),
    "ball": (3e4, 2e5, 1e6),
    "disc-p2": (3e4, 1e5),
    "ball-p2": (1e4, 5e4),
    "q1-2": (1.6e4, 2.6e5),
    "q1-3": (3.6e4, 9.4e5),
    "graded-10": (2e4,),
    "graded-100": (2e4,),
    "delaunay": (1.6e4,),
    "axis-10": (1e4,),
    "axis-100": (1e4,),
}
"""Vertices asked for, by family."""
SCANS = {
    "hypre": [
        f"-ksp_type cg -pc_type hypre -pc_hypre_boomeramg_strong_threshold {s} {more}".strip()
        for s in (0.25, 0.5, 0.7)
        for more in ("", "-pc_hypre_boomeramg_agg_nl 1 -pc_hypre_boomeramg_interp_type ext+i")
    ],
    "gamg": [
        f"-ksp_type cg -pc_type gamg -pc_gamg_threshold {t} -pc_gamg_square_graph {s} -mg_levels_ksp_max_it 2"
        for t in (-1, 0.01, 0.05)
        for s in (0, 1)
    ],
}
TUNED_AT = 1e5


def mesh(family: str, vertices: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and simplices."""
    import gmsh

    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    occ, flat = gmsh.model.occ, not family.startswith("ball")
    width = (3.1 / vertices / 0.87) ** 0.5 if flat else (4.0 / vertices / 1.5) ** (1 / 3)
    if family.startswith(("disc", "axis")):
        holes = [
            (2, occ.addDisk(x, y, 0, r, r))
            for x, y, r in ((0.4, 0.3, 0.2), (-0.45, 0.1, 0.15), (0, -0.5, 0.25))
        ]
        occ.cut([(2, occ.addDisk(0, 0, 0, 1, 1))], holes)
    elif family == "lshape":
        occ.cut([(2, occ.addRectangle(-1, -1, 0, 2, 2))], [(2, occ.addRectangle(0, -1, 0, 1, 1))])
    elif family.startswith("graded"):
        occ.cut([(2, occ.addDisk(0, 0, 0, 1, 1))], [(2, occ.addDisk(0.2, 0.1, 0, 0.05, 0.05))])
        ratio, field = float(family.split("-")[1]), gmsh.model.mesh.field
        field.add("MathEval", 1)
        field.setString(1, "F", f"{width / ratio} + {width} * sqrt((x - 0.2)^2 + (y - 0.1)^2)")
        field.setAsBackgroundMesh(1)
        for source in ("FromPoints", "FromCurvature", "ExtendFromBoundary"):
            gmsh.option.setNumber(f"Mesh.MeshSize{source}", 0)
    else:
        balls = ((0.4, 0.3, 0.1, 0.25), (-0.45, 0.1, -0.2, 0.2), (0, -0.5, 0.3, 0.25))
        occ.cut([(3, occ.addSphere(0, 0, 0, 1))], [(3, occ.addSphere(*ball)) for ball in balls])
        gmsh.option.setNumber("Mesh.Algorithm3D", 10)
    occ.synchronize()
    if not family.startswith("graded"):
        gmsh.option.setNumber("Mesh.MeshSizeMin", width)
        gmsh.option.setNumber("Mesh.MeshSizeMax", width)
    dim = 2 if flat else 3
    gmsh.model.mesh.generate(dim)
    tags, points, _ = gmsh.model.mesh.getNodes()
    number = np.zeros(int(tags.max()) + 1, int)
    number[tags.astype(int)] = np.arange(tags.size)
    cells = number[gmsh.model.mesh.getElementsByType(2 if flat else 4)[1].astype(int)].reshape(-1, dim + 1)
    gmsh.finalize()
    used, cells = np.unique(cells, return_inverse=True)
    return points.reshape(-1, 3)[used, :dim], cells.reshape(-1, dim + 1)


def delaunay(vertices: float) -> tuple[np.ndarray, np.ndarray]:
    """A cube of jittered points, unimproved: slivers among its tetrahedra."""
    from scipy.spatial import Delaunay

    n = round(vertices ** (1 / 3))
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    inner = ((points > 0) & (points < 1)).all(1)
    points[inner] += np.random.default_rng(0).uniform(-0.25, 0.25, (inner.sum(), 3)) / n
    cells = Delaunay(points).simplices
    volume = np.abs(np.linalg.det(points[cells][:, 1:] - points[cells][:, :1]))
    return points, cells[volume > 1e-3 / n**3]


def discretised(family: str, vertices: float) -> tuple[Any, Any]:
    """Mesh and element of scikit-fem."""
    import skfem

    if family.startswith("q1"):
        dim = int(family[3])
        line = np.linspace(0, 1, round(vertices ** (1 / dim)))
        if dim == 2:
            return skfem.MeshQuad.init_tensor(line, line), skfem.ElementQuad1()
        return skfem.MeshHex.init_tensor(line, line, line), skfem.ElementHex1()
    points, cells = delaunay(vertices) if family == "delaunay" else mesh(family, vertices)
    make, element = {
        (2, False): (skfem.MeshTri, skfem.ElementTriP1), (2, True): (skfem.MeshTri, skfem.ElementTriP2),
        (3, False): (skfem.MeshTet, skfem.ElementTetP1), (3, True): (skfem.MeshTet, skfem.ElementTetP2),
    }[points.shape[1], family.endswith("p2")]  # fmt: skip
    return make(points.T.copy(), cells.T.copy()), element()


def system(folder: Path, family: str, vertices: float) -> Path:
    """The file of a system, made where it is not there: u = 0 on all of the boundary."""
    path = folder / f"{family}-{int(vertices)}.npz"
    if path.exists():
        return path
    import skfem
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    basis = skfem.Basis(*discretised(family, vertices))
    strong = float(family.split("-")[1]) if family.startswith("axis") else 1.0

    @skfem.BilinearForm
    def diffusion(u, v, _):
        return sum((strong if k == 0 else 1.0) * u.grad[k] * v.grad[k] for k in range(len(u.grad)))

    inner = np.setdiff1d(np.arange(basis.N), basis.get_dofs().all())
    matrix = diffusion.assemble(basis).tocsr()[inner][:, inner]
    order = reverse_cuthill_mckee(matrix, symmetric_mode=True)
    if family.startswith("q1"):  # as a DMDA numbers them
        order = np.lexsort(basis.doflocs[:, inner].round(9))
    matrix = matrix[order][:, order].tocsr()
    matrix.sort_indices()
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(
        part, indptr=matrix.indptr, indices=matrix.indices, data=matrix.data,
        points=basis.doflocs.T[inner][order],
    )  # fmt: skip
    part.rename(path)
    return path


def run(path: Path, options: str, ranks: int, threads: int, rtol: str, repeats: int) -> dict[str, Any]:
    """One solver in a process of its own."""
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    command += [
        sys.executable,
        __file__,
        "--work",
        str(path),
        "--repeats",
        str(repeats),
        "--",
        *options.split(),
    ]
    command += ["-ksp_rtol", rtol, "-ksp_norm_type", "unpreconditioned", "-ksp_max_it", "2000"]
    variables = {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=3000)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def work(path: Path, repeats: int, options: list[str]) -> None:
    """In the process of a solver: set up and solve a few times, print what it took."""
    import petsc4py

    petsc4py.init(["meshes", *options, "-options_left", "no"])
    import time

    from petsc4py import PETSc

    from consolve.solvers import attach_points

    held = np.load(path)
    rows, comm = held["indptr"].size - 1, PETSc.COMM_WORLD
    start, stop = rows * comm.rank // comm.size, rows * (comm.rank + 1) // comm.size
    first, last = held["indptr"][[start, stop]]
    csr = held["indptr"][start : stop + 1] - first, held["indices"][first:last], held["data"][first:last]
    A = PETSc.Mat().createAIJ(((stop - start, rows),) * 2, csr=csr, comm=comm)
    if "cnn" in options and not path.name.startswith("q1"):  # the grid of those is seen from the matrix
        attach_points(A, held["points"][start:stop])
    b, x = A.createVecs()
    b.array_w[:] = np.random.default_rng(3).standard_normal(rows)[start:stop]
    found = []
    for _ in range(repeats + 1):
        ksp = PETSc.KSP().create(comm)
        ksp.setOperators(A)
        ksp.setFromOptions()
        comm.barrier()
        begin = time.perf_counter()
        ksp.setUp()
        between = time.perf_counter()
        x.set(0.0)
        ksp.solve(b, x)
        end = time.perf_counter()
        facts = ksp.getIterationNumber(), ksp.getConvergedReason()
        found.append((between - begin, end - between))
        ksp.destroy()
    residual = (b - A * x).norm() / b.norm()
    setup, solve = np.array(found[1:]).T  # the first one loads code
    if comm.rank == 0:
        total = setup + solve
        best = int(total.argmin())
        result = {
            "rows": rows,
            "nonzeros": int(held["indptr"][-1]),
            "iterations": facts[0],
            "reason": facts[1],
            "residual": residual,
            "setup_s": setup[best],
            "solve_s": solve[best],
            "total_s": total[best],
            "median_s": float(np.median(total)),
            "repeats": repeats,
        }
        print("RESULT", json.dumps(result), flush=True)


def main() -> None:
    """The scan and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("meshes"), help="of the systems")
    parser.add_argument("--out", type=Path, help="JSON lines, one a run")
    parser.add_argument("--family", action="append", choices=SIZES)
    parser.add_argument("--most", type=float, default=1e6, help="vertices")
    parser.add_argument("--solver", action="append", choices=("cnn", *SCANS), help="default: all")
    parser.add_argument("--model", default="auto", help="-pc_cnn_model")
    parser.add_argument("--rtol", action="append", choices=RTOL, help="default: both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work, asked.repeats, asked.options)
        return
    rows = []
    for family in asked.family or SIZES:
        sizes = [size for size in SIZES[family] if size <= asked.most]
        paths = {size: system(asked.folder, family, size) for size in sizes}
        reference = min(sizes, key=lambda size: abs(np.log(size / TUNED_AT)))
        tuned = {}
        for peer, scan in SCANS.items():
            if peer not in (asked.solver or SCANS):
                continue
            tried = [run(paths[reference], options, 2, 1, RTOL[0], asked.repeats) for options in scan]
            rows += [{"family": family, "scan": peer, "options": o} | r for o, r in zip(scan, tried)]
            valid = [(r["total_s"], o) for o, r in zip(scan, tried) if r["reason"] > 0]
            tuned[peer] = min(valid)[1]
        for size in sizes:
            for rtol in asked.rtol or RTOL:
                solvers = [
                    ("cnn", f"-ksp_type {kind} -pc_type cnn -pc_cnn_model {asked.model}", ranks, 2 // ranks)
                    for kind in ("cg", "dcd")
                    for ranks in (1, 2)
                ]
                if "cnn" not in (asked.solver or ("cnn",)):
                    solvers = []
                solvers += [(peer, options, 2, 1) for peer, options in tuned.items()]
                for name, options, ranks, threads in solvers:
                    row = {"family": family, "rtol": rtol, "solver": name, "options": options, "ranks": ranks}
                    row |= run(paths[size], options, ranks, threads, rtol, asked.repeats)
                    rows.append(row)
                    kind = options.split()[1]
                    print(
                        f"{family:10} {row['rows']:8} rtol {rtol:5} {kind}+{name:5} ranks {ranks}"
                        f" {row['iterations']:4} iterations {row['setup_s']:7.3f} + {row['solve_s']:7.3f} s",
                        flush=True,
                    )
        if asked.out:
            asked.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
