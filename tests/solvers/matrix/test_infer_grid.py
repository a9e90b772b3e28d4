"""The grid of a PETSc matrix from its pattern: on one rank, on several, and as the preconditioner uses it."""

import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mpi_program import needs_mpirun, result_on_ranks
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.pde.poisson.domains import make_domain
from consolve.solvers import MatrixError, attach_grid
from consolve.solvers.matrix.infer_grid import infer_grid
from consolve.solvers.matrix.stencil import read_stencil

PROGRAM = Path(__file__).parent / "infer_ranks.py"


def shuffled(matrix, seed=0):
    order = np.random.default_rng(seed).permutation(matrix.shape[0])
    return sp.csr_matrix(matrix[order][:, order])


def test_all_cells_in_order(problems):
    operator = problems.operator((7, 9), "mixed")
    grid = infer_grid(problems.matrix(operator.to_csr("all")))
    assert grid.shape == (7, 9) and grid.cells.dtype == np.int32 and "pattern" in grid.origin
    np.testing.assert_array_equal(grid.cells, np.arange(63))


@pytest.mark.parametrize("shape", [(8, 9), (4, 5, 6)], ids=str)
@pytest.mark.parametrize("kind", ["seqsbaij", "seqbaij", "seqdense", "seqsell"])
def test_other_types_are_converted(problems, shape, kind):
    matrix = GridOperator.from_cell_types(np.zeros(shape, int), outside=2).to_csr()
    mat = problems.matrix(matrix)
    mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    assert infer_grid(mat.convert(kind, PETSc.Mat())).shape == shape


@pytest.mark.parametrize("name", ["box", "spheres", "free-surface", "pockets", "two-phase"])
@pytest.mark.parametrize("shape", [(24, 26), (9, 10, 11)], ids=str)
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_reader_takes_what_is_found(problems, name, shape, shuffle):
    """The operator on the inferred grid is the matrix again."""
    matrix = make_domain(name, shape).operator().to_csr()
    matrix = shuffled(matrix) if shuffle else matrix
    mat = problems.matrix(matrix)
    grid = infer_grid(mat)
    operator = read_stencil(mat, grid).operator
    x = np.random.default_rng(0).standard_normal(matrix.shape[0])
    image = np.zeros(grid.shape)
    image.reshape(-1)[grid.cells] = x
    coupled = operator.active.reshape(-1)[grid.cells]
    product = operator.apply(image).reshape(-1)[grid.cells]
    scale = abs(matrix).max()
    np.testing.assert_allclose(product[coupled], (matrix @ x)[coupled], atol=1e-12 * scale)


@pytest.mark.parametrize("shape", [(32, 40), (12, 13, 14)], ids=str)
@pytest.mark.parametrize("boundary", ["mixed", "closed"])
def test_iterations_are_those_of_the_true_grid(problems, shape, boundary):
    operator = GridOperator.from_cell_types(
        np.zeros(shape, int), outside=((1, 2 if boundary == "mixed" else 1),) + ((1, 1),) * (len(shape) - 1)
    )
    matrix = operator.to_csr()
    order = np.random.default_rng(1).permutation(matrix.shape[0])
    b = np.random.default_rng(2).standard_normal(matrix.shape[0])
    b -= b.mean()
    solved = []
    for new, right in ((matrix, b), (sp.csr_matrix(matrix[order][:, order]), b[order])):
        mat = problems.matrix(new)
        grid = infer_grid(mat)
        attach_grid(mat, grid.shape, grid.cells)
        solved.append(problems.solve(problems.ksp(mat), right))
        assert np.linalg.norm(right - new @ solved[-1].x) < 1.1e-8 * np.linalg.norm(b)
    assert abs(solved[0].iterations - solved[1].iterations) <= 2


@pytest.mark.parametrize(
    "matrix",
    [
        sp.csr_matrix(np.full((40, 40), -1.0) + 50 * np.eye(40)),
        sp.csr_matrix(sp.random(60, 60, 0.2, random_state=0) + sp.identity(60)),
    ],
    ids=["dense", "random"],
)
def test_what_cannot_be_found_is_refused_with_advice(problems, matrix):
    with pytest.raises(MatrixError) as caught:
        infer_grid(problems.matrix(matrix))
    for words in (f"{matrix.shape[0]} rows", "looked for", "lattice", "-pc_cnn_grid NX,NY", "attach_grid"):
        assert words in str(caught.value)


def test_a_matrix_that_is_not_square_is_refused():
    mat = PETSc.Mat().createAIJ((4, 5), nnz=1, comm=PETSc.COMM_SELF)
    mat.assemble()
    with pytest.raises(MatrixError, match="4 x 5"):
        infer_grid(mat)


@functools.cache
def found(ranks):
    return result_on_ranks(ranks, PROGRAM)


@needs_mpirun
@pytest.mark.parametrize("ranks", [*(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (2, 3)), 5])
class TestRanks:
    def test_every_rank_finds_the_same_grid(self, ranks):
        cases = {name: result for name, result in found(ranks).items() if "," in name}
        assert len(cases) == 22
        wraps = {"periodic x": [1], "periodic y": [0], "periodic": [0, 1]}
        for name, (fine, axes) in cases.items():
            assert fine, name
            assert axes == [wraps.get(name.split(",")[0], [])] * ranks, name

    def test_what_is_not_found_is_refused_on_all(self, ranks):
        for name in ("shuffled", "far"):
            alike, text = found(ranks)[name]
            assert alike and text.startswith("refused") and "recognised on one rank only" in text
