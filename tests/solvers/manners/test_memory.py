"""Solvers that are made, used and destroyed leave nothing behind."""

import gc
import tracemalloc

import numpy as np
import pytest
from petsc4py import PETSc

from consolve.pde import AIR, SOLID, GridOperator
from consolve.solvers import attach_grid
from consolve.solvers.petsc import live_contexts, options

SELF = PETSc.COMM_SELF
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytest keeps each that it sees
OPERATORS = [
    GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)
    for shape, outside in (((7, 8), AIR), ((7, 8), SOLID), ((4, 5, 6), AIR), ((64, 66), AIR))
]


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def one_round(number: int) -> None:
    """A solver of another kind each time, with options, changed values and a reset."""
    operator = OPERATORS[number % len(OPERATORS)]
    csr = operator.to_csr()
    mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data), comm=SELF)
    attach_grid(mat, operator)
    database = PETSc.Options("round_")
    database["pc_cnn_model"] = "mg" if number % 3 else "multilevel"
    database["ksp_dcd_directions"] = 1 + number % 3
    ksp = PETSc.KSP().create(SELF)
    ksp.setOptionsPrefix("round_")
    ksp.setOperators(mat)
    ksp.setType("dcd" if number % 2 else "cg")
    ksp.getPC().setType("cnn")
    ksp.setFromOptions()
    b, x = mat.createVecs()
    b.array_w[:] = np.arange(operator.unknowns) - 0.5 * (operator.unknowns - 1)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    mat.scale(2.0)
    ksp.setOperators(mat)
    ksp.solve(b, x)
    if number % 5 == 0:
        ksp.reset()
        ksp.getPC().setType("none")
    for name in ("pc_cnn_model", "ksp_dcd_directions"):
        database.delValue(name)
    for thing in (ksp, mat, b, x):
        thing.destroy()


def own_objects() -> int:
    """Objects of our classes that are alive."""
    gc.collect()
    return sum(str(type(thing).__module__).startswith("consolve.") for thing in gc.get_objects())


def traced(rounds: int) -> float:
    """Bytes of Python objects that stay, per round, while they are traced."""
    before = tracemalloc.get_traced_memory()[0]
    for number in range(rounds):
        one_round(number)
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / rounds


def growth(rounds: int, warm_up: int) -> tuple[float, float]:
    """Bytes per round that stay: of the process, and of Python objects."""
    for number in range(warm_up):
        one_round(number)
    gc.collect()
    before = resident_bytes()
    for number in range(rounds):
        one_round(number)
    gc.collect()
    resident = (resident_bytes() - before) / rounds
    tracemalloc.start()
    try:
        for number in range(15):
            one_round(number)
        gc.collect()
        # The smaller of two: a table of the interpreter, as that of all interned strings (megabytes in a
        # process of many tests), counts whole where it grows, once; a leak counts in both.
        return resident, min(traced(30), traced(30))
    finally:
        tracemalloc.stop()


def test_nothing_stays_after_three_hundred_rounds():
    live, helped = set(live_contexts._pointers), set(options._helped)
    one_round(0)
    ours = own_objects()
    resident, python = growth(300, 60)
    assert resident < 6000, "a vector of the largest system takes 8 kB of a round's mean"
    assert python < 1000  # strings in the interpreter's caches come and go
    assert own_objects() == ours
    assert live_contexts._pointers <= live and options._helped == helped


@pytest.mark.slow
def test_nothing_stays_after_ten_thousand_rounds():
    live = set(live_contexts._pointers)
    resident, python = growth(10_000, 300)
    assert resident < 200 and python < 1000
    assert live_contexts._pointers <= live


def test_contexts_are_freed_with_their_solvers():
    """No reference cycle keeps a context, nor the arrays of its network, until a collection."""
    import weakref

    gc.disable()
    try:
        operator = OPERATORS[3]
        csr = operator.to_csr()
        mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data), comm=SELF)
        attach_grid(mat, operator)
        ksp = PETSc.KSP().create(SELF)
        ksp.setOperators(mat)
        ksp.setType("dcd")
        ksp.getPC().setType("cnn")
        b, x = mat.createVecs()
        b.set(1.0)
        ksp.solve(b, x)
        pc_context, ksp_context = ksp.getPC().getPythonContext(), ksp.getPythonContext()
        alive = [weakref.ref(pc_context), weakref.ref(pc_context.network), weakref.ref(ksp_context)]
        del pc_context, ksp_context
        ksp.destroy()
        assert [reference() for reference in alive] == [None, None, None]
    finally:
        gc.enable()


def test_bookkeeping_knows_solvers_by_their_own_address():
    """Contexts of destroyed solvers are forgotten, whatever is made in their place."""
    before = set(live_contexts._pointers)
    solvers = []
    for number in range(50):
        pc = PETSc.PC().create(SELF)
        pc.setType("cnn")
        if number % 2:
            pc.destroy()
        else:
            solvers.append(pc)
    now = live_contexts._pointers - before
    assert now == {("PC", pc.handle) for pc in solvers}
    solvers[0].setType("jacobi")
    assert ("PC", solvers[0].handle) not in live_contexts._pointers
    for pc in solvers:
        pc.destroy()
    assert live_contexts._pointers == before


def test_a_context_shared_by_two_solvers_is_released_twice():
    before = set(live_contexts._pointers)
    first, second = (PETSc.PC().create(SELF) for _ in range(2))
    first.setType("cnn")
    second.setType("python")
    second.setPythonContext(first.getPythonContext())
    assert len(live_contexts._pointers - before) == 2
    first.destroy()
    assert live_contexts._pointers - before == {("PC", second.handle)}
    second.destroy()
    assert live_contexts._pointers == before
