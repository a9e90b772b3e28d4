static char help[] = "-div grad u = f on the unit square; boundary nodes stay in the matrix as rows with a diagonal only,\n\
and the other rows still couple to them, so that the matrix is not symmetric.  Solution u = exp(x) sin(2 y) + x y.\n\
Options: -boundary_guess (start with the boundary values: cg then is right), -da_grid_x N -da_grid_y N, KSP's, PC's.\n";

#include <petscdmda.h>
#include "report.h"

static PetscReal Exact(PetscReal x, PetscReal y)
{
  return PetscExpReal(x) * PetscSinReal(2 * y) + x * y;
}

static PetscReal Source(PetscReal x, PetscReal y)
{
  return 3 * PetscExpReal(x) * PetscSinReal(2 * y);
}

static PetscErrorCode ComputeMatrix(KSP ksp, Mat J, Mat A, void *context)
{
  DM       da;
  PetscInt nx, ny, xs, ys, xm, ym;

  PetscFunctionBeginUser;
  (void)J;
  (void)context;
  PetscCall(KSPGetDM(ksp, &da));
  PetscCall(DMDAGetInfo(da, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  const PetscScalar cx = (nx - 1.0) / (ny - 1.0), cy = 1 / cx;
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const PetscBool   boundary  = (PetscBool)(i == 0 || j == 0 || i == nx - 1 || j == ny - 1);
      const MatStencil  row       = {.j = j, .i = i};
      const MatStencil  column[5] = {row, {.j = j, .i = i - 1}, {.j = j, .i = i + 1}, {.j = j - 1, .i = i}, {.j = j + 1, .i = i}};
      const PetscScalar value[5]  = {2 * (cx + cy), -cx, -cx, -cy, -cy};
      PetscCall(MatSetValuesStencil(A, 1, &row, boundary ? 1 : 5, column, value, INSERT_VALUES));
    }
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscFunctionReturn(0);
}

typedef enum {
  RIGHT_HAND_SIDE,
  BOUNDARY_VALUES,
  SOLUTION
} Content;

static PetscErrorCode Fill(DM da, Vec v, Content content)
{
  PetscInt      nx, ny, xs, ys, xm, ym;
  PetscScalar **array;

  PetscFunctionBeginUser;
  PetscCall(DMDAGetInfo(da, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &xs, &ys, NULL, &xm, &ym, NULL));
  PetscCall(DMDAVecGetArray(da, v, &array));
  const PetscReal hx = 1.0 / (nx - 1), hy = 1.0 / (ny - 1), diagonal = 2 * (hy / hx + hx / hy);
  for (PetscInt j = ys; j < ys + ym; j++) {
    for (PetscInt i = xs; i < xs + xm; i++) {
      const PetscBool boundary = (PetscBool)(i == 0 || j == 0 || i == nx - 1 || j == ny - 1);
      const PetscReal exact    = Exact(i * hx, j * hy);
      if (content == RIGHT_HAND_SIDE) array[j][i] = boundary ? diagonal * exact : hx * hy * Source(i * hx, j * hy);
      else array[j][i] = boundary || content == SOLUTION ? exact : 0.0;
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
  PetscCall(Fill(da, b, RIGHT_HAND_SIDE));
  PetscFunctionReturn(0);
}

static PetscErrorCode ComputeGuess(KSP ksp, Vec x, void *context)
{
  DM da;

  PetscFunctionBeginUser;
  (void)context;
  PetscCall(KSPGetDM(ksp, &da));
  PetscCall(Fill(da, x, BOUNDARY_VALUES));
  PetscFunctionReturn(0);
}

int main(int argc, char **argv)
{
  DM        da;
  Vec       x, u;
  KSP       ksp;
  PetscBool guess = PETSC_FALSE;
  PetscInt  iterations;
  PetscReal error;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(PetscOptionsGetBool(NULL, NULL, "-boundary_guess", &guess, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 81, 97, PETSC_DECIDE,
                         PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetDM(ksp, da));
  PetscCall(KSPSetComputeOperators(ksp, ComputeMatrix, NULL));
  PetscCall(KSPSetComputeRHS(ksp, ComputeRHS, NULL));
  if (guess) PetscCall(KSPSetComputeInitialGuess(ksp, ComputeGuess, NULL));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPSolve(ksp, NULL, NULL));

  PetscCall(KSPGetSolution(ksp, &x));
  PetscCall(VecDuplicate(x, &u));
  PetscCall(Fill(da, u, SOLUTION));
  PetscCall(VecAXPY(u, -1.0, x));
  PetscCall(VecNorm(u, NORM_INFINITY, &error));
  PetscCall(KSPGetIterationNumber(ksp, &iterations));
  PetscCall(Report(ksp, "dirichlet_rows", iterations, error));
  PetscCall(VecDestroy(&u));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
