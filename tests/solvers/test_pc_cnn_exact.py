"""PC cnn with an exact stand-in for the network: whatever misplaces a row or a value costs iterations."""

import numpy as np
import pytest
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import attach_grid, network


class Exact:
    """A stand-in for the network: z = A^-1 r by dense algebra (the pseudo-inverse if A is singular)."""

    built = 0

    def __init__(self, operator, cells):
        self.cells, self.updates = cells, 0
        Exact.built += 1
        self._read(operator)

    def _read(self, operator):
        dense = operator.to_csr("all").toarray()
        inactive = ~operator.active.reshape(-1)
        dense[inactive, inactive] = 0
        self.inverse = np.linalg.pinv(dense, rcond=1e-10, hermitian=True)

    def update(self, operator):
        self.updates += 1
        self._read(operator)

    def apply(self, r, z):
        full = np.zeros(len(self.inverse))
        full[self.cells] = r
        z[:] = (self.inverse @ full)[self.cells]

    def close(self):
        self.closed = True

    levels = ()
    bytes = 0


@pytest.fixture
def exact(monkeypatch):
    Exact.built = 0
    monkeypatch.setattr(
        network, "build_model", lambda name, operator, cells: (Exact(operator, cells), "exact")
    )


def consistent_rhs(operator, seed=1):
    b = np.random.default_rng(seed).standard_normal(operator.shape)
    return operator.remove_null_space(np.where(operator.active, b, 0)).reshape(-1)[operator.cells]


def residual(csr, x, b):
    return np.linalg.norm(b - csr @ x) / np.linalg.norm(b)


@pytest.mark.parametrize("sizes", [(12, 17), (7, 8, 10)], ids=str)
@pytest.mark.parametrize("stencil", ["star", "box"])
@pytest.mark.parametrize("kind", ["cg", "dcd"])
def test_solves_on_a_dmda(problems, exact, sizes, stencil, kind):
    """The order of axes is right: with another the exact stand-in would not solve in one iteration."""
    dm = PETSc.DMDA().create(sizes, dof=1, stencil_width=1, stencil_type=stencil, comm=PETSc.COMM_SELF)
    mat = problems.dmda_matrix(dm)
    ksp = problems.ksp(mat, kind)
    ksp.getPC().setDM(dm)
    b = np.random.default_rng(0).standard_normal(mat.getSize()[0])
    solved = problems.solve(ksp, b)
    assert solved.iterations == 1 and solved.reason > 0
    operator = GridOperator.from_cell_types(np.zeros(sizes[::-1], int), outside=2)
    assert residual(operator.to_csr(), solved.x, b) < 1e-8


def test_a_matrix_that_a_dmda_made_knows_its_grid(problems, exact):
    dm = PETSc.DMDA().create((12, 17), stencil_width=1, stencil_type="star", comm=PETSc.COMM_SELF)
    mat = problems.dmda_matrix(dm)
    ksp = problems.ksp(mat)
    assert problems.solve(ksp, np.random.default_rng(0).standard_normal(204)).iterations == 1
    assert ksp.getPC().getPythonContext()._stencil.grid.shape == (17, 12)


@pytest.mark.parametrize("shape", [(6, 7), (4, 3, 5)], ids=str)
@pytest.mark.parametrize("boundary", ["mixed", "closed"])
@pytest.mark.parametrize("numbering", ["active", "all"])
def test_exact_network_makes_an_exact_preconditioner(problems, exact, shape, boundary, numbering):
    operator = problems.operator(shape, boundary, seed=5)
    csr = operator.to_csr(numbering)
    mat = problems.matrix(csr)
    attach_grid(mat, operator) if numbering == "active" else attach_grid(mat, shape)
    ksp = problems.ksp(mat)
    ksp.setUp()
    r = np.random.default_rng(2).standard_normal(csr.shape[0])
    expected = np.linalg.pinv(csr.toarray(), rcond=1e-10) @ r
    np.testing.assert_allclose(problems.apply(ksp, r), expected, atol=1e-9)


def test_grid_attached_as_a_c_program_would(problems, exact):
    """Two index sets: the cell of each row, and NX, NY."""
    operator = problems.operator((5, 8), "mixed")
    mat = problems.matrix(operator.to_csr())
    create = PETSc.IS().createGeneral
    mat.compose("consolve_cells", create(operator.cells.astype(PETSc.IntType), comm=PETSc.COMM_SELF))
    mat.compose("consolve_shape", create(np.array([8, 5], PETSc.IntType), comm=PETSc.COMM_SELF))
    assert problems.solve(problems.ksp(mat), consistent_rhs(operator)).iterations == 1


class TestReuse:
    @pytest.fixture
    def system(self, problems, exact):
        operator = problems.operator((6, 7), "mixed")
        mat = problems.matrix(operator.to_csr())
        attach_grid(mat, operator)
        return operator, mat, problems.ksp(mat)

    def test_solving_again_sets_up_once(self, problems, system):
        operator, _, ksp = system
        for seed in range(3):
            assert problems.solve(ksp, consistent_rhs(operator, seed)).iterations == 1
        assert ksp.getPC().getPythonContext().setups == 1 and Exact.built == 1

    def test_changed_values_update_the_network(self, problems, system):
        operator, mat, ksp = system
        problems.solve(ksp, consistent_rhs(operator))
        mat.scale(2.0)
        assert problems.solve(ksp, consistent_rhs(operator)).iterations == 1
        context = ksp.getPC().getPythonContext()
        assert context.setups == 2 and Exact.built == 1 and context.network.updates == 1

    def test_reuse_keeps_the_old_one(self, problems, system):
        operator, mat, ksp = system
        r = consistent_rhs(operator)
        problems.solve(ksp, r)
        before = problems.apply(ksp, r)
        ksp.getPC().setReusePreconditioner(True)
        mat.shift(0.7)
        assert problems.solve(ksp, r).iterations > 1
        assert ksp.getPC().getPythonContext().setups == 1
        np.testing.assert_array_equal(problems.apply(ksp, r), before)

    def test_other_cells_of_the_same_grid(self, problems, system):
        operator, _, ksp = system
        problems.solve(ksp, consistent_rhs(operator))
        other = problems.operator((6, 7), "mixed", seed=9)
        assert other.unknowns != operator.unknowns
        mat = problems.matrix(other.to_csr())
        attach_grid(mat, other)
        ksp.reset()
        ksp.setOperators(mat)
        assert problems.solve(ksp, consistent_rhs(other)).iterations == 1

    def test_other_grid(self, problems, system):
        operator, _, ksp = system
        problems.solve(ksp, consistent_rhs(operator))
        other = problems.operator((3, 4, 5), "open", seed=8)
        mat = problems.matrix(other.to_csr())
        attach_grid(mat, other)
        ksp.reset()
        ksp.setOperators(mat)
        assert problems.solve(ksp, consistent_rhs(other)).iterations == 1

    def test_shell_operator_with_assembled_preconditioning_matrix(self, problems, system):
        operator, mat, _ = system

        class Shell:
            def mult(self, _, x, y):
                mat.mult(x, y)

        shell = PETSc.Mat().createPython(mat.getSizes(), Shell(), comm=PETSc.COMM_SELF)
        shell.setUp()
        assert problems.solve(problems.ksp(shell, pmat=mat), consistent_rhs(operator)).iterations == 1
