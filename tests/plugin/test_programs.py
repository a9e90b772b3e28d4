"""Compiled programs that know nothing of consolve, with and without it: same answer, fewer iterations."""

import functools
import shutil

import pytest

NAMES = ("poisson2d", "poisson3d", "neumann", "dirichlet_rows", "moving", "poisson")
TIGHT = ("-ksp_rtol", "1e-9", "-ksp_norm_type", "unpreconditioned")
PLAIN = {"dirichlet_rows": ("-boundary_guess",)}
LEARNED = {"poisson": ("-pc_cnn_grid", "90,70")}
TWO_RANKS = ("mpirun", "-n", 2, "--oversubscribe")
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}
needs_mpirun = pytest.mark.skipif(not shutil.which("mpirun"), reason="needs mpirun")


@pytest.fixture(scope="session")
def solve(programs, run_program):
    @functools.lru_cache
    def solved(name, *options):
        if not (programs / name).exists():
            pytest.skip("needs gfortran")
        return run_program(programs / name, *TIGHT, *options)

    return solved


@pytest.mark.parametrize("ksp", ["cg", "dcd"])
@pytest.mark.parametrize("name", NAMES)
def test_same_answer_in_fewer_iterations(name, ksp, solve, library):
    plain = solve(name, "-ksp_type", "cg", "-pc_type", "jacobi", *PLAIN.get(name, ()))
    learned = solve(
        name, "-dll_prepend", library, "-ksp_type", ksp, "-pc_type", "cnn", *LEARNED.get(name, ())
    )
    assert (plain.code, plain.err) == (0, "") and (learned.code, learned.err) == (0, "")
    _, plain_iterations, plain_reason, plain_error = plain.report
    solver, iterations, reason, error = learned.report
    assert solver == f"{ksp} + cnn" and plain_reason > 0 and reason > 0
    assert error == pytest.approx(plain_error, rel=0.01, abs=1e-6)
    assert 4 * iterations < plain_iterations


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"moving"}))
def test_programs_are_second_order(name, solve):
    """Halving the spacing divides the error by four: the programs solve what they say."""
    grids = {
        "poisson2d": (["-da_grid_x", 24, "-da_grid_y", 32], ["-da_grid_x", 48, "-da_grid_y", 64]),
        "neumann": (["-da_grid_x", 20, "-da_grid_y", 24], ["-da_grid_x", 40, "-da_grid_y", 48]),
        "dirichlet_rows": (["-da_grid_x", 17, "-da_grid_y", 21], ["-da_grid_x", 33, "-da_grid_y", 41]),
        "poisson": (["-nx", 19, "-ny", 23], ["-nx", 39, "-ny", 47]),
        "poisson3d": (
            ["-da_grid_x", 7, "-da_grid_y", 11, "-da_grid_z", 9],
            ["-da_grid_x", 15, "-da_grid_y", 23, "-da_grid_z", 19],
        ),
    }
    coarse, fine = (
        solve(name, "-ksp_type", "cg", "-pc_type", "jacobi", *PLAIN.get(name, ()), *grid).report
        for grid in grids[name]
    )
    assert 3.5 < coarse[3] / fine[3] < 4.5


@needs_mpirun
@pytest.mark.parametrize("pc", ["cnn", pytest.param("jacobi", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param("poisson2d", marks=pytest.mark.slow), *(n for n in NAMES if n != "poisson2d")]
)
def test_programs_run_on_two_ranks(name, pc, programs, solve, library, run_program):
    more = ("-dll_prepend", library, *LEARNED.get(name, ())) if pc == "cnn" else PLAIN.get(name, ())
    options = ("-ksp_type", "cg", "-pc_type", pc, *more)
    one = solve(name, *options)
    two = run_program(*TWO_RANKS, programs / name, *TIGHT, *options, **MPI)
    assert two.code == 0, two.err
    assert two.report[1:3] == one.report[1:3]  # iterations and reason
    assert two.report[3] == pytest.approx(one.report[3], rel=1e-3, abs=1e-7)


@needs_mpirun
@pytest.mark.parametrize(
    "options, words",
    [
        (("-pc_cnn_model", "none.h5"), "no model and no file"),
        (("-pc_cnn_grid", "96,127"), "the grid 96 x 127 has 12192 cells"),
        (("-pc_cnn_gathered_cells", "few"), "expected a whole number"),
    ],
)
def test_an_error_ends_all_ranks_with_its_message(options, words, programs, library, run_program):
    done = run_program(
        *TWO_RANKS, programs / "poisson2d", "-dll_prepend", library, "-pc_type", "cnn", *options, **MPI
    )
    assert done.code != 0 and words in done.err and "poisson2d:" not in done.out


def test_view_names_the_types_and_no_option_is_left(programs, library, run_program):
    options = ["-dll_prepend", library, "-ksp_type", "dcd", "-pc_type", "cnn", "-pc_cnn_model", "mg"]
    done = run_program(programs / "poisson2d", *options, "-ksp_view", "-options_left")
    assert (done.code, done.err) == (0, "")
    for words in ("type: dcd", "type: cnn", "grid 96 x 128", "from the DMDA"):
        assert words in done.out
    assert "no unused options" in done.out


def test_options_from_the_environment_and_from_a_file(programs, library, run_program, tmp_path):
    options = f"-dll_prepend {library} -ksp_type cg -pc_type cnn"
    assert run_program(programs / "poisson2d", options=options).report[0] == "cg + cnn"
    (tmp_path / "options").write_text(options.replace(" -", "\n-"))
    done = run_program(programs / "poisson2d", "-options_file", tmp_path / "options")
    assert (done.code, done.err) == (0, "") and done.report[0] == "cg + cnn"


def test_loaded_but_not_chosen_it_starts_no_python(programs, library, run_program):
    done = run_program(programs / "poisson2d", "-dll_prepend", library, CONSOLVE_PYTHON="/nonsense")
    assert (done.code, done.err) == (0, "") and done.report[0] == "cg + ilu"  # PETSc's default


@pytest.mark.parametrize("how", ["once", "leak", "exit", "again", "coordinates"])
def test_lifetimes_in_cpp(how, cxx_program, library, run_program):
    done = run_program(cxx_program, how, "-dll_prepend", library, "-ksp_type", "dcd", "-pc_type", "cnn")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == (2 if how == "again" else 1)
    for line in lines:
        _, iterations, _, error = line.split()
        assert int(iterations) <= 6 and float(error) < 1e-4


def test_bad_coordinates_end_a_program(cxx_program, library, run_program):
    done = run_program(cxx_program, "bad-coordinates", "-dll_prepend", library, "-pc_type", "cnn")
    assert done.code != 0 and done.out == ""
    assert "consolve: PCSetCoordinates: ValueError: the coordinates of local row 0 are [ 0. nan]" in done.err


@pytest.mark.parametrize(
    "options", ["-ksp_type cg -pc_type cnn", "-ksp_type dcd -pc_type cnn", "-ksp_type dcd"]
)
def test_trapped_floating_point_exceptions(options, programs, cxx_program, library, run_program):
    """Python raises some when it starts; those of the program are trapped before and after."""
    chosen = ("-dll_prepend", library, *options.split())
    done = run_program(programs / "poisson2d", "-fp_trap", *chosen)
    assert (done.code, done.err) == (0, "") and done.report[2] > 0
    free, trapped = (run_program(cxx_program, "divide", *chosen, *trap) for trap in ((), ("-fp_trap",)))
    assert free.code == 0 and free.out.splitlines()[-1] == "quotient inf."
    assert trapped.code != 0 and "loating point" in trapped.err
    assert trapped.out.startswith("iterations ") and "quotient" not in trapped.out
