static char help[] = "A solid disc moves through a closed box that is open at its top: the operator changes in every step.\n\
Cell-centred; solid cells stay in the matrix as rows with a diagonal only, and faces to them are closed.\n\
Solution u = cos(3 x + t) y (1 - y / 2) in the fluid, with the right-hand side A u.\n\
Options: -steps N -da_grid_x N -da_grid_y N, and those of KSP and PC.\n";

#include <petscdmda.h>
#include "report.h"

typedef struct {
  PetscInt  nx, ny;
  PetscReal x, y, radius; /* of the disc */
} Scene;

static PetscBool IsFluid(const Scene *scene, PetscInt i, PetscInt j)
{
  const PetscReal x = (i + 0.5) / scene->nx - scene->x, y = (j + 0.5) / scene->ny - scene->y;
  return (PetscBool)(x * x + y * y > scene->radius * scene->radius);
}

/* Coefficient of the face between a cell and its neighbour; closed faces are stored as zeros. */
static PetscScalar Face(const Scene *scene, PetscInt i, PetscInt j, PetscInt i2, PetscInt j2)
{
  const PetscScalar ratio = (PetscReal)scene->nx / scene->ny;
  if (!IsFluid(scene, i, j) || !IsFluid(scene, i2, j2)) return 0;
  return j == j2 ? ratio : 1 / ratio;
}

static PetscErrorCode Assemble(DM da, const Scene *scene, PetscReal time, Mat A, Vec u)
{
  PetscInt      xs, ys, xm, ym;
  PetscScalar **exact;

  PetscFunctionBeginUser;
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  PetscCall(DMDAVecGetArray(da, u, &exact));
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const PetscInt  side[4][2] = {{i - 1, j}, {i + 1, j}, {i, j - 1}, {i, j + 1}};
      const PetscReal x = (i + 0.5) / scene->nx, y = (j + 0.5) / scene->ny;
      const PetscBool fluid = IsFluid(scene, i, j);
      MatStencil      row   = {.j = j, .i = i}, column[5];
      PetscScalar     value[5], diagonal = 0;
      PetscInt        n = 0;

      for (int s = 0; s < 4; s++) {
        const PetscInt i2 = side[s][0], j2 = side[s][1];
        if (i2 < 0 || i2 >= scene->nx || j2 < 0 || j2 >= scene->ny) continue;
        column[n] = (MatStencil){.j = j2, .i = i2};
        value[n]  = -Face(scene, i, j, i2, j2);
        diagonal -= value[n++];
      }
      if (fluid && j + 1 == scene->ny) diagonal += 2 * (PetscReal)scene->ny / scene->nx; /* the open top */
      column[n]  = row;
      value[n++] = fluid && diagonal > 0 ? diagonal : 1;
      PetscCall(MatSetValuesStencil(A, 1, &row, n, column, value, INSERT_VALUES));
      exact[j][i] = fluid ? PetscCosReal(3 * x + time) * y * (1 - y / 2) : 0;
    }
  }
  PetscCall(DMDAVecRestoreArray(da, u, &exact));
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscFunctionReturn(0);
}

int main(int argc, char **argv)
{
  DM        da;
  Mat       A;
  Vec       x, b, u, difference;
  KSP       ksp;
  PetscInt  steps = 5, total = 0;
  PetscReal largest = 0;
  Scene     scene   = {.y = 0.4, .radius = 0.18};

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-steps", &steps, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 100, 84, PETSC_DECIDE,
                         PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(DMDAGetInfo(da, NULL, &scene.nx, &scene.ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMCreateMatrix(da, &A));
  PetscCall(DMCreateGlobalVector(da, &x));
  PetscCall(VecDuplicate(x, &b));
  PetscCall(VecDuplicate(x, &u));
  PetscCall(VecDuplicate(x, &difference));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetType(ksp, KSPCG));
  PetscCall(KSPSetInitialGuessNonzero(ksp, PETSC_TRUE));
  PetscCall(KSPSetErrorIfNotConverged(ksp, PETSC_TRUE));
  PetscCall(KSPSetFromOptions(ksp));
  for (PetscInt step = 0; step < steps; step++) {
    PetscInt  iterations;
    PetscReal error;

    scene.x = 0.3 + 0.4 * step / steps;
    PetscCall(Assemble(da, &scene, 0.1 * step, A, u));
    PetscCall(MatMult(A, u, b));
    PetscCall(KSPSetOperators(ksp, A, A));
    PetscCall(KSPSolve(ksp, b, x)); /* from the solution of the step before */
    PetscCall(KSPGetIterationNumber(ksp, &iterations));
    PetscCall(VecWAXPY(difference, -1.0, u, x));
    PetscCall(VecNorm(difference, NORM_INFINITY, &error));
    PetscCall(PetscPrintf(PETSC_COMM_WORLD, "step %" PetscInt_FMT ": disc at %.2f, iterations %" PetscInt_FMT "\n", step,
                          (double)scene.x, iterations));
    total += iterations;
    largest = PetscMax(largest, error);
  }
  PetscCall(Report(ksp, "moving", total, largest));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(MatDestroy(&A));
  PetscCall(VecDestroy(&x));
  PetscCall(VecDestroy(&b));
  PetscCall(VecDestroy(&u));
  PetscCall(VecDestroy(&difference));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
