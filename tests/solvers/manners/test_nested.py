"""PC cnn inside PETSc's other solvers: multigrid, block methods, Newton's method, time steps; sides."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import attach_grid

SELF = PETSc.COMM_SELF


def noise(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


def csr_of(mat):
    indptr, indices, data = mat.getValuesCSR()
    return sp.csr_matrix((data, indices, indptr), mat.getSize())


def box(shape, outside=2):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)


class Database:
    """Options that are set for a block, and must all have been used in it."""

    def __init__(self, prefix, **options):
        self.options, self.names = PETSc.Options(prefix), list(options)
        self.prefix = prefix
        for name, value in options.items():
            self.options[name] = value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        from consolve.solvers.petsc.versions import is_option_used

        unused = [name for name in self.names if not is_option_used(self.prefix + name)]
        for name in self.names:
            self.options.delValue(name)
        assert kind is not None or not unused, unused


def dirichlet_laplacian(dm):
    """Vertex-centred 5- or 7-point stencil, boundary values eliminated."""
    sizes = dm.getSizes()
    mat = dm.createMatrix()
    row, col = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    for index in np.ndindex(*sizes):
        row.index = index
        mat.setValueStencil(row, row, 2.0 * len(sizes))
        for axis in range(len(sizes)):
            for step in (-1, 1):
                other = list(index)
                other[axis] += step
                if 0 <= other[axis] < sizes[axis]:
                    col.index = tuple(other)
                    mat.setValueStencil(row, col, -1.0)
    mat.assemble()
    return mat


class TestMultigrid:
    """PETSc's geometric multigrid on a DMDA, all levels but the coarsest smoothed by the network."""

    @pytest.mark.parametrize("smoother", ["richardson", "chebyshev"])
    @pytest.mark.parametrize("galerkin", ["none", "pmat"])
    @pytest.mark.filterwarnings("error::UserWarning")
    def test_smoother(self, smoother, galerkin):
        dm = PETSc.DMDA().create([17, 17], stencil_width=1, comm=SELF)
        options = {
            "ksp_type": "cg",
            "ksp_rtol": 1e-8,
            "ksp_norm_type": "unpreconditioned",
            "pc_type": "mg",
            "pc_mg_levels": 2,
            "pc_mg_galerkin": galerkin,
            "mg_levels_ksp_type": smoother,
            "mg_levels_ksp_max_it": 1,
            "mg_levels_pc_type": "cnn",
            "mg_levels_pc_cnn_model": "mg",
        }
        ksp = PETSc.KSP().create(SELF)
        ksp.setOptionsPrefix("nest_")
        ksp.setDM(dm)
        ksp.setComputeOperators(lambda ksp, J, P: fill(ksp.getDM(), P))
        A = csr_of(dirichlet_laplacian(dm))
        with Database("nest_", **options):
            ksp.setFromOptions()
            b = dm.createGlobalVec()
            b.array_w[:] = noise(289)
            x = b.duplicate()
            ksp.setComputeRHS(lambda ksp, vector: b.copy(vector))
            ksp.solve(b, x)
        smooth = ksp.getPC().getMGSmoother(1)
        assert smooth.getPC().getType() == "cnn" and ksp.getConvergedReason() > 0
        assert ksp.getIterationNumber() <= 8
        exact = spla.spsolve(A.tocsc(), noise(289))
        np.testing.assert_allclose(x.array_r, exact, atol=1e-6 * np.abs(exact).max())
        ksp.destroy()


def fill(dm, mat):
    other = dirichlet_laplacian(dm)
    indptr, indices, data = other.getValuesCSR()
    mat.zeroEntries()
    mat.setValuesCSR(indptr, indices, data)
    mat.assemble()


class TestBlocks:
    """Blocks of rows, each a grid of its own that no DM knows."""

    @pytest.mark.parametrize("method", ["bjacobi", "asm"])
    def test_two_halves_of_a_grid(self, problems, method):
        operator = box((16, 12))
        csr, b = operator.to_csr(), noise(192)
        options = {f"pc_{method}_blocks": 2, "sub_pc_type": "cnn", "sub_pc_cnn_grid": "12,8"}
        if method == "asm":
            options["pc_asm_overlap"] = 0
        options["sub_pc_cnn_model"] = "mg"
        ksp = problems.ksp(problems.matrix(csr), "fgmres", method, ksp_pc_side="right", **options)
        # what lies under sub_ is read when the blocks are made, after the options of the test are gone
        prefix = ksp.getOptionsPrefix()
        with Database(prefix, **{k: v for k, v in options.items() if k.startswith("sub_")}):
            ksp.setUp()
            for block in sub_solvers(ksp.getPC(), method):
                block.setUp()
        solved = problems.solve(ksp, b)
        assert [block.getPC().getType() for block in sub_solvers(ksp.getPC(), method)] == ["cnn", "cnn"]
        assert sub_solvers(ksp.getPC(), method)[0].getPC().getPythonContext().model == "mg"
        exact = spla.spsolve(csr.tocsc(), b)
        assert solved.reason > 0 and solved.iterations < 40
        np.testing.assert_allclose(solved.x, exact, atol=1e-6 * np.abs(exact).max())


def sub_solvers(pc, method):
    return pc.getASMSubKSP() if method == "asm" else sub_of_bjacobi(pc)


def sub_of_bjacobi(pc):
    import ctypes

    from consolve.solvers.petsc.versions import call, handle, wrap_pointer

    count, first, blocks = ctypes.c_int(), ctypes.c_int(), ctypes.POINTER(ctypes.c_void_p)()
    call("PCBJacobiGetSubKSP", handle(pc), *(ctypes.byref(v) for v in (count, first, blocks)))
    return [wrap_pointer("KSP", blocks[q]) for q in range(count.value)]


class TestFieldSplit:
    @pytest.mark.parametrize("kind", ["additive", "multiplicative", "schur"])
    def test_one_field_of_two(self, kind):
        """Pressure Poisson coupled weakly to a mass-like field; only the first field is the network's."""
        operator = box((9, 11))
        n, k = operator.unknowns, 30
        coupling = sp.random(n, k, 0.02, random_state=1, format="csr") * 0.1
        A = sp.bmat([[operator.to_csr(), coupling], [coupling.T, sp.diags(np.linspace(1, 2, k))]]).tocsr()
        A.sort_indices()
        arrays = A.indptr.astype("i4"), A.indices.astype("i4"), A.data
        mat = PETSc.Mat().createAIJ(A.shape, csr=arrays, comm=SELF)
        sets = [PETSc.IS().createStride(n, 0, 1, comm=SELF), PETSc.IS().createStride(k, n, 1, comm=SELF)]
        options = {
            "ksp_type": "fgmres",
            "ksp_rtol": 1e-9,
            "pc_type": "fieldsplit",
            "pc_fieldsplit_type": kind,
            "fieldsplit_p_ksp_type": "preonly",
            "fieldsplit_p_pc_type": "cnn",
            "fieldsplit_p_pc_cnn_grid": "11,9",
            "fieldsplit_m_ksp_type": "preonly",
            "fieldsplit_m_pc_type": "jacobi",
        }
        if kind == "schur":
            options["pc_fieldsplit_schur_precondition"] = "a11"
        ksp = PETSc.KSP().create(SELF)
        ksp.setOptionsPrefix("nest_")
        ksp.setOperators(mat)
        with Database("nest_", **options):
            ksp.setFromOptions()
            ksp.getPC().setFieldSplitIS(("p", sets[0]), ("m", sets[1]))
            b, x = mat.createVecs()
            b.array_w[:] = noise(n + k)
            ksp.solve(b, x)
        exact = spla.spsolve(A.tocsc(), noise(n + k))
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 25
        np.testing.assert_allclose(x.array_r, exact, atol=1e-7 * np.abs(exact).max())
        ksp.destroy()


class Bratu:
    """-Laplace u + c u^3 = f on the unit square, u = 0 outside; the Jacobian stays an M-matrix."""

    def __init__(self, dm, c, f):
        self.dm, self.c, self.f = dm, c, f
        self.A = dirichlet_laplacian(dm)
        self.h2 = 1.0 / (dm.getSizes()[0] + 1) ** 2

    def function(self, snes, u, F):
        self.A.mult(u, F)
        F.array_w[:] += self.h2 * (self.c * u.array_r**3 - self.f)

    def jacobian(self, snes, u, J, P):
        P.zeroEntries()
        P.axpy(1.0, self.A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        diagonal = u.duplicate()
        diagonal.array_w[:] = 3 * self.h2 * self.c * u.array_r**2
        P.setDiagonal(self.A.getDiagonal() + diagonal)
        P.assemble()
        return True


@pytest.mark.parametrize("kind", ["cg", "dcd"])
def test_newton_on_a_nonlinear_reaction(kind):
    n, found = 19, {}
    for pc in ("lu", "cnn"):
        dm = PETSc.DMDA().create([n, n], stencil_width=1, comm=SELF)
        problem = Bratu(dm, 50.0, 400 * noise(n * n, 2))
        snes = PETSc.SNES().create(SELF)
        snes.setOptionsPrefix("nest_")
        snes.setDM(dm)
        r, P = dm.createGlobalVec(), problem.A.duplicate(copy=True)
        snes.setFunction(problem.function, r)
        snes.setJacobian(problem.jacobian, P)
        inner = {"ksp_type": kind, "ksp_rtol": 1e-8} if pc == "cnn" else {"ksp_type": "preonly"}
        with Database("nest_", pc_type=pc, **inner):
            snes.setFromOptions()
            snes.setTolerances(rtol=1e-10)
            u = r.duplicate()
            snes.solve(None, u)
        assert snes.getConvergedReason() > 0 and snes.getIterationNumber() >= 3
        found[pc] = u.array_r.copy(), snes.getIterationNumber(), snes.getLinearSolveIterations()
        if pc == "cnn":
            assert snes.getKSP().getPC().getPythonContext().setups == snes.getIterationNumber()
        snes.destroy()
    np.testing.assert_allclose(found["cnn"][0], found["lu"][0], atol=1e-8 * np.abs(found["lu"][0]).max())
    assert found["cnn"][1] == found["lu"][1] and found["cnn"][2] <= 10 * found["cnn"][1]


@pytest.mark.parametrize("method", ["beuler", "cn"])
def test_heat_equation_in_implicit_steps(method):
    """u = exp(-lambda t) sin(pi x) sin(pi y) with the scheme's lambda: the discrete solution is known."""
    n, steps, dt = 23, 8, 2e-3
    h = 1 / (n + 1)
    dm = PETSc.DMDA().create([n, n], stencil_width=1, comm=SELF)
    A = dirichlet_laplacian(dm)
    A.scale(1 / h**2)
    ts = PETSc.TS().create(SELF)
    ts.setOptionsPrefix("nest_")
    ts.setDM(dm)
    r, J = dm.createGlobalVec(), A.duplicate(copy=True)

    def function(ts, t, u, du, F):
        A.mult(u, F)
        F.axpy(1.0, du)

    def jacobian(ts, t, u, du, shift, J, P):
        P.zeroEntries()
        P.axpy(1.0, A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        P.shift(shift)
        P.assemble()
        return True

    ts.setIFunction(function, r)
    ts.setIJacobian(jacobian, J)
    options = {
        "ts_type": method,
        "ksp_type": "cg",
        "pc_type": "cnn",
        "ksp_rtol": 1e-10,
        "snes_type": "ksponly",
    }
    x = np.arange(1, n + 1) * h
    mode = np.outer(np.sin(np.pi * x), np.sin(np.pi * x)).reshape(-1)
    u = dm.createGlobalVec()
    u.array_w[:] = mode
    with Database("nest_", **options):
        ts.setTimeStep(dt)
        ts.setMaxSteps(steps)
        ts.setMaxTime(1.0)
        ts.setExactFinalTime(PETSc.TS.ExactFinalTime.STEPOVER)
        ts.setFromOptions()
        ts.solve(u)
    rate = 2 * 4 / h**2 * np.sin(np.pi * h / 2) ** 2
    growth = 1 / (1 + dt * rate) if method == "beuler" else (1 - dt * rate / 2) / (1 + dt * rate / 2)
    assert ts.getStepNumber() == steps
    np.testing.assert_allclose(u.array_r, growth**steps * mode, atol=1e-8)
    ts.destroy()


class TestSides:
    @pytest.fixture
    def system(self, problems):
        operator = box((13, 14))
        mat = problems.matrix(operator.to_csr())
        attach_grid(mat, operator)
        return mat, operator.to_csr(), noise(operator.unknowns)

    @pytest.mark.parametrize("kind", ["fgmres", "gcr"])
    def test_right(self, problems, system, kind):
        mat, csr, b = system
        solved = problems.solve(problems.ksp(mat, kind, ksp_pc_side="right"), b)
        exact = spla.spsolve(csr.tocsc(), b)
        assert solved.reason > 0
        np.testing.assert_allclose(solved.x, exact, atol=1e-6 * np.abs(exact).max())

    def test_symmetric_halves_are_refused_with_advice(self, problems, system):
        mat, _, b = system
        ksp = problems.ksp(mat, "gmres", ksp_pc_side="symmetric", ksp_norm_type="preconditioned")
        with pytest.raises((NotImplementedError, PETSc.Error)) as caught:
            problems.solve(ksp, b)
        error = caught.value if isinstance(caught.value, NotImplementedError) else caught.value.__cause__
        assert "-ksp_pc_side symmetric" in str(error) and "left or right" in str(error)

    @pytest.mark.parametrize("kind", ["cg", "fgmres"])
    def test_transposed_system(self, problems, system, kind):
        """A is symmetric, so that the transposed solve has the same solution."""
        mat, csr, b = system
        ksp = problems.ksp(mat, kind, ksp_pc_side="right" if kind == "fgmres" else "left")
        x = problems.vector(np.zeros_like(b))
        ksp.solveTranspose(problems.vector(b), x)
        exact = spla.spsolve(csr.T.tocsc(), b)
        assert ksp.getConvergedReason() > 0
        np.testing.assert_allclose(x.array_r, exact, atol=1e-6 * np.abs(exact).max())

    def test_transposed_application_of_a_nonsymmetric_part(self, problems):
        """M is symmetric: (M x, y) = (x, M^T y), with rows without couplings as well."""
        csr = GridOperator.from_cell_types(np.eye(9, 10, dtype=int), outside=2).to_csr("all")
        ksp = problems.ksp(problems.matrix(csr), pc_cnn_grid="10,9")
        ksp.setUp()
        x, y = noise(90, 1), noise(90, 2)
        z = problems.vector(np.zeros(90))
        ksp.getPC().applyTranspose(problems.vector(y), z)
        assert problems.apply(ksp, x) @ y == pytest.approx(x @ z.array_r, rel=1e-5)
