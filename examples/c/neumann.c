static char help[] = "-div grad u = f on a rectangle of 2 x 1, no flux anywhere: singular, the null space is attached.\n\
Solution u = x^2 (2 - x)^2 cos(2 pi y), up to a constant.  Options: -da_grid_x N -da_grid_y N, and those of KSP and PC.\n";

#include <petscdmda.h>
#include "report.h"

static PetscErrorCode ComputeMatrix(KSP ksp, Mat J, Mat A, void *context)
{
  DM           da;
  PetscInt     nx, ny, xs, ys, xm, ym;
  MatNullSpace constants;

  PetscFunctionBeginUser;
  (void)context;
  PetscCall(KSPGetDM(ksp, &da));
  PetscCall(DMDAGetInfo(da, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  const PetscReal hx = 2.0 / nx, hy = 1.0 / ny, cx = hy / hx, cy = hx / hy;
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const MatStencil side[4] = {{.j = j, .i = i - 1}, {.j = j, .i = i + 1}, {.j = j - 1, .i = i}, {.j = j + 1, .i = i}};
      const PetscBool  open[4] = {(PetscBool)(i > 0), (PetscBool)(i + 1 < nx), (PetscBool)(j > 0), (PetscBool)(j + 1 < ny)};
      MatStencil       row     = {.j = j, .i = i}, column[5];
      PetscScalar      value[5], diagonal = 0;
      PetscInt         n = 0;

      for (int s = 0; s < 4; s++) {
        if (!open[s]) continue;
        column[n]  = side[s];
        value[n++] = s < 2 ? -cx : -cy;
        diagonal += s < 2 ? cx : cy;
      }
      column[n]  = row;
      value[n++] = diagonal;
      PetscCall(MatSetValuesStencil(A, 1, &row, n, column, value, INSERT_VALUES));
    }
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatNullSpaceCreate(PETSC_COMM_WORLD, PETSC_TRUE, 0, NULL, &constants));
  PetscCall(MatSetNullSpace(J, constants));
  PetscCall(MatNullSpaceDestroy(&constants));
  PetscFunctionReturn(0);
}

/* At the cells' centres the solution, or else the right-hand side. */
static PetscErrorCode Fill(DM da, Vec v, PetscBool solution)
{
  PetscInt      nx, ny, xs, ys, xm, ym;
  PetscScalar **array;

  PetscFunctionBeginUser;
  PetscCall(DMDAGetInfo(da, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  PetscCall(DMDAVecGetArray(da, v, &array));
  const PetscReal cell = (2.0 / nx) * (1.0 / ny);
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const PetscReal x = 2 * (i + 0.5) / nx, wave = PetscCosReal(2 * PETSC_PI * (j + 0.5) / ny);
      const PetscReal u = PetscSqr(x * (2 - x)), second = 4 * (3 * x * x - 6 * x + 2);
      array[j][i]       = solution ? u * wave : cell * (4 * PETSC_PI * PETSC_PI * u - second) * wave;
    }
  }
  PetscCall(DMDAVecRestoreArray(da, v, &array));
  PetscFunctionReturn(0);
}

static PetscErrorCode ComputeRHS(KSP ksp, Vec b, void *context)
{
  DM da;

  PetscFunctionBeginUser;
  (void)context;
  PetscCall(KSPGetDM(ksp, &da));
  PetscCall(Fill(da, b, PETSC_FALSE));
  PetscFunctionReturn(0);
}

int main(int argc, char **argv)
{
  DM          da;
  Vec         x, u;
  KSP         ksp;
  PetscInt    iterations, size;
  PetscScalar sum;
  PetscReal   error;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 150, 90,
                         PETSC_DECIDE, PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetType(ksp, KSPCG));
  PetscCall(KSPSetDM(ksp, da));
  PetscCall(KSPSetComputeOperators(ksp, ComputeMatrix, NULL));
  PetscCall(KSPSetComputeRHS(ksp, ComputeRHS, NULL));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPSolve(ksp, NULL, NULL));

  PetscCall(KSPGetSolution(ksp, &x));
  PetscCall(VecDuplicate(x, &u));
  PetscCall(Fill(da, u, PETSC_TRUE));
  PetscCall(VecAXPY(u, -1.0, x));
  PetscCall(VecSum(u, &sum));
  PetscCall(VecGetSize(u, &size));
  PetscCall(VecShift(u, -sum / (PetscReal)size));
  PetscCall(VecNorm(u, NORM_INFINITY, &error));
  PetscCall(KSPGetIterationNumber(ksp, &iterations));
  PetscCall(Report(ksp, "neumann", iterations, error));
  PetscCall(VecDestroy(&u));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
