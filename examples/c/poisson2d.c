static char help[] = "-div grad u = f on the unit square, cell-centred: u = 0 at x = 0 and 1, no flux at y = 0 and 1.\n\
Solution u = x (1 - x) exp(x) y^2 (3 - 2 y).  Options: -da_grid_x N -da_grid_y N, and those of KSP and PC.\n";

#include <petscdmda.h>
#include "report.h"

static PetscErrorCode Assemble(DM da, Mat A, Vec b, Vec u)
{
  PetscInt      nx, ny, xs, ys, xm, ym;
  PetscScalar **rhs, **exact;

  PetscFunctionBeginUser;
  PetscCall(DMDAGetInfo(da, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  PetscCall(DMDAVecGetArray(da, b, &rhs));
  PetscCall(DMDAVecGetArray(da, u, &exact));
  const PetscReal hx = 1.0 / nx, hy = 1.0 / ny, cx = hy / hx, cy = hx / hy;
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const PetscReal x = (i + 0.5) * hx, y = (j + 0.5) * hy;
      MatStencil      row = {.j = j, .i = i}, column[5];
      PetscScalar     value[5], diagonal = 0;
      PetscInt        n = 0;

      exact[j][i] = x * (1 - x) * PetscExpReal(x) * y * y * (3 - 2 * y);
      rhs[j][i]   = hx * hy * x * PetscExpReal(x) * ((3 + x) * y * y * (3 - 2 * y) - (1 - x) * (6 - 12 * y));
      if (i > 0) {
        column[n]  = (MatStencil){.j = j, .i = i - 1};
        value[n++] = -cx;
      }
      if (i + 1 < nx) {
        column[n]  = (MatStencil){.j = j, .i = i + 1};
        value[n++] = -cx;
      }
      if (j > 0) {
        column[n]  = (MatStencil){.j = j - 1, .i = i};
        value[n++] = -cy;
      }
      if (j + 1 < ny) {
        column[n]  = (MatStencil){.j = j + 1, .i = i};
        value[n++] = -cy;
      }
      for (PetscInt k = 0; k < n; k++) diagonal -= value[k];
      if (i == 0) diagonal += 2 * cx; /* the wall is half a cell away */
      if (i + 1 == nx) diagonal += 2 * cx;
      column[n]  = row;
      value[n++] = diagonal;
      PetscCall(MatSetValuesStencil(A, 1, &row, n, column, value, INSERT_VALUES));
    }
  }
  PetscCall(DMDAVecRestoreArray(da, b, &rhs));
  PetscCall(DMDAVecRestoreArray(da, u, &exact));
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscFunctionReturn(0);
}

int main(int argc, char **argv)
{
  DM        da;
  Mat       A;
  Vec       x, b, u;
  KSP       ksp;
  PetscInt  iterations;
  PetscReal error;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 96, 128,
                         PETSC_DECIDE, PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(DMCreateMatrix(da, &A));
  PetscCall(DMCreateGlobalVector(da, &x));
  PetscCall(VecDuplicate(x, &b));
  PetscCall(VecDuplicate(x, &u));
  PetscCall(Assemble(da, A, b, u));

  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetType(ksp, KSPCG));
  PetscCall(KSPSetOperators(ksp, A, A));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPSolve(ksp, b, x));

  PetscCall(VecAXPY(x, -1.0, u));
  PetscCall(VecNorm(x, NORM_INFINITY, &error));
  PetscCall(KSPGetIterationNumber(ksp, &iterations));
  PetscCall(Report(ksp, "poisson2d", iterations, error));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(MatDestroy(&A));
  PetscCall(VecDestroy(&x));
  PetscCall(VecDestroy(&b));
  PetscCall(VecDestroy(&u));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
