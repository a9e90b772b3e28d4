// Solves in the order of things that the first argument names: "once", "leak" (solvers are not destroyed),
// "exit" (without PetscFinalize), "again" (PETSc is initialised twice), "coordinates" or "bad-coordinates",
// "divide" (by zero, after the solve).
#include <petscdmda.h>
#include <petscksp.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

static PetscErrorCode Solve(const std::string &how)
{
  const PetscInt nx = 33, ny = 20;
  DM             da;
  Mat            A;
  Vec            x, b;
  KSP            ksp;
  PC             pc;
  PetscInt       iterations;
  PetscReal      error;

  PetscFunctionBeginUser;
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, nx, ny, PETSC_DECIDE,
                         PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetUp(da));
  PetscCall(DMCreateMatrix(da, &A));
  for (PetscInt row = 0; row < nx * ny; row++) {
    const PetscInt i = row % nx, j = row / nx;
    PetscCall(MatSetValue(A, row, row, 4, INSERT_VALUES));
    if (i > 0) PetscCall(MatSetValue(A, row, row - 1, -1, INSERT_VALUES));
    if (i + 1 < nx) PetscCall(MatSetValue(A, row, row + 1, -1, INSERT_VALUES));
    if (j > 0) PetscCall(MatSetValue(A, row, row - nx, -1, INSERT_VALUES));
    if (j + 1 < ny) PetscCall(MatSetValue(A, row, row + nx, -1, INSERT_VALUES));
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatCreateVecs(A, &x, &b));
  PetscCall(VecSet(x, 1));
  PetscCall(MatMult(A, x, b));
  PetscCall(VecSet(x, 0));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetOperators(ksp, A, A));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPGetPC(ksp, &pc));
  if (how == "coordinates" || how == "bad-coordinates") {
    PetscReal *points;
    PetscCall(PetscMalloc1(2 * nx * ny, &points));
    for (PetscInt row = 0; row < nx * ny; row++) {
      points[2 * row]     = 0.5 * (row % nx);
      points[2 * row + 1] = how == "coordinates" ? 0.25 * (row / nx) : std::nan("");
    }
    PetscCall(PCSetCoordinates(pc, 2, nx * ny, points));
    PetscCall(PetscFree(points));
  }
  PetscCall(KSPSolve(ksp, b, x));
  PetscCall(KSPGetIterationNumber(ksp, &iterations));
  PetscCall(VecShift(x, -1));
  PetscCall(VecNorm(x, NORM_INFINITY, &error));
  PetscCall(PetscPrintf(PETSC_COMM_WORLD, "iterations %d error %g\n", (int)iterations, (double)error));
  if (how == "divide") {
    volatile double zero = 0;
    std::fflush(stdout);
    PetscCall(PetscPrintf(PETSC_COMM_WORLD, "quotient %g\n", 1 / zero));
  }
  if (how == "leak") PetscFunctionReturn(PetscErrorCode(0));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(MatDestroy(&A));
  PetscCall(VecDestroy(&x));
  PetscCall(VecDestroy(&b));
  PetscCall(DMDestroy(&da));
  PetscFunctionReturn(PetscErrorCode(0));
}

int main(int argc, char **argv)
{
  const std::string how = argc > 1 ? argv[1] : "once";

  PetscFunctionBeginUser;
  MPI_Init(&argc, &argv);
  for (int pass = 0; pass < (how == "again" ? 2 : 1); pass++) {
    PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
    PetscCall(Solve(how));
    if (how == "exit") std::exit(0);
    PetscCall(PetscFinalize());
  }
  MPI_Finalize();
  return 0;
}
