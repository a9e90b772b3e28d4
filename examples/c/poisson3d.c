static char help[] = "-div grad u = f on a box of 1 x 1.5 x 0.8, u given on its surface; unknowns are the inner nodes.\n\
Solution u = sin(pi x) sin(pi y / 1.5) sin(pi z / 0.8) + x + 2 y z.\n\
Options: -da_grid_x N -da_grid_y N -da_grid_z N, and those of KSP and PC.\n";

#include <petscdmda.h>
#include "report.h"

static const PetscReal side[3] = {1.0, 1.5, 0.8};

static PetscReal Wave(const PetscReal x[3])
{
  PetscReal product = 1;
  for (int axis = 0; axis < 3; axis++) product *= PetscSinReal(PETSC_PI * x[axis] / side[axis]);
  return product;
}

static PetscReal Exact(const PetscReal x[3])
{
  return Wave(x) + x[0] + 2 * x[1] * x[2];
}

static PetscErrorCode ComputeMatrix(KSP ksp, Mat J, Mat A, void *context)
{
  DM          da;
  PetscInt    n[3], s[3], m[3];
  PetscScalar weight[3], diagonal = 0;

  PetscFunctionBeginUser;
  (void)J;
  (void)context;
  PetscCall(KSPGetDM(ksp, &da));
  PetscCall(DMDAGetInfo(da, NULL, &n[0], &n[1], &n[2], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &s[0], &s[1], &s[2], &m[0], &m[1], &m[2]));
  for (int axis = 0; axis < 3; axis++) {
    weight[axis] = PetscSqr((n[axis] + 1) / side[axis]);
    diagonal += 2 * weight[axis];
  }
  for (PetscInt k = s[2]; k < s[2] + m[2]; k++) {
    for (PetscInt j = s[1]; j < s[1] + m[1]; j++) {
      for (PetscInt i = s[0]; i < s[0] + m[0]; i++) {
        MatStencil  row = {.k = k, .j = j, .i = i}, column[7] = {row};
        PetscScalar value[7] = {diagonal};
        PetscInt    count = 1;

        for (int axis = 0; axis < 3; axis++) {
          for (PetscInt step = -1; step <= 1; step += 2) {
            MatStencil     beside = row;
            PetscInt      *index  = axis == 0 ? &beside.i : axis == 1 ? &beside.j : &beside.k;
            *index += step;
            if (*index < 0 || *index >= n[axis]) continue;
            column[count]  = beside;
            value[count++] = -weight[axis];
          }
        }
        PetscCall(MatSetValuesStencil(A, 1, &row, count, column, value, INSERT_VALUES));
      }
    }
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscFunctionReturn(0);
}

/* Fills the right-hand side, or the solution where exact is set. */
static PetscErrorCode Fill(DM da, Vec v, PetscBool exact)
{
  PetscInt       n[3], s[3], m[3];
  PetscReal      h[3], waves = 0;
  PetscScalar ***array;

  PetscFunctionBeginUser;
  PetscCall(DMDAGetInfo(da, NULL, &n[0], &n[1], &n[2], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL));
  PetscCall(DMDAGetCorners(da, &s[0], &s[1], &s[2], &m[0], &m[1], &m[2]));
  PetscCall(DMDAVecGetArray(da, v, &array));
  for (int axis = 0; axis < 3; axis++) {
    h[axis] = side[axis] / (n[axis] + 1);
    waves += PetscSqr(PETSC_PI / side[axis]);
  }
  for (PetscInt k = s[2]; k < s[2] + m[2]; k++) {
    for (PetscInt j = s[1]; j < s[1] + m[1]; j++) {
      for (PetscInt i = s[0]; i < s[0] + m[0]; i++) {
        const PetscInt  index[3] = {i, j, k};
        const PetscReal x[3]     = {(i + 1) * h[0], (j + 1) * h[1], (k + 1) * h[2]};
        PetscScalar     value    = exact ? Exact(x) : waves * Wave(x);
        for (int axis = 0; !exact && axis < 3; axis++) {
          PetscReal wall[3] = {x[0], x[1], x[2]};
          if (index[axis] == 0) {
            wall[axis] = 0;
            value += Exact(wall) / PetscSqr(h[axis]);
          }
          if (index[axis] == n[axis] - 1) {
            wall[axis] = side[axis];
            value += Exact(wall) / PetscSqr(h[axis]);
          }
        }
        array[k][j][i] = value;
      }
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
  DM        da;
  Vec       x, u;
  KSP       ksp;
  PetscInt  iterations;
  PetscReal error;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(DMDACreate3d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 32,
                         48, 25, PETSC_DECIDE, PETSC_DECIDE, PETSC_DECIDE, 1, 1, NULL, NULL, NULL, &da));
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
  PetscCall(VecNorm(u, NORM_INFINITY, &error));
  PetscCall(KSPGetIterationNumber(ksp, &iterations));
  PetscCall(Report(ksp, "poisson3d", iterations, error));
  PetscCall(VecDestroy(&u));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
