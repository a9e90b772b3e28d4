/* Poisson on a DMDA of 20 x 30 nodes, all outer neighbours Dirichlet, solved twice with changed values.
   With -attach the grid is told by index sets instead of the DMDA. */
#include <petscdmda.h>
#include <petscksp.h>

static PetscErrorCode Assemble(Mat A, PetscInt nx, PetscInt ny, PetscReal scale)
{
  for (PetscInt j = 0; j < ny; j++) {
    for (PetscInt i = 0; i < nx; i++) {
      PetscInt row = j * nx + i;
      PetscCall(MatSetValue(A, row, row, 4.0 * scale, INSERT_VALUES));
      if (i > 0) PetscCall(MatSetValue(A, row, row - 1, -scale, INSERT_VALUES));
      if (i + 1 < nx) PetscCall(MatSetValue(A, row, row + 1, -scale, INSERT_VALUES));
      if (j > 0) PetscCall(MatSetValue(A, row, row - nx, -scale, INSERT_VALUES));
      if (j + 1 < ny) PetscCall(MatSetValue(A, row, row + nx, -scale, INSERT_VALUES));
    }
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  return 0;
}

int main(int argc, char **argv)
{
  const PetscInt nx = 20, ny = 30;
  DM             da;
  Mat            A;
  Vec            b, x, r;
  KSP            ksp;
  PetscBool      attach = PETSC_FALSE;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCall(PetscOptionsGetBool(NULL, NULL, "-attach", &attach, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, nx, ny, PETSC_DECIDE,
                         PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetUp(da));
  PetscCall(DMCreateMatrix(da, &A));
  PetscCall(Assemble(A, nx, ny, 1.0));
  PetscCall(MatCreateVecs(A, &x, &b));
  PetscCall(VecDuplicate(b, &r));
  PetscCall(VecSetRandom(b, NULL));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetOperators(ksp, A, A));
  if (attach) {
    IS       cells, shape;
    PetscInt sizes[2] = {nx, ny};
    PetscCall(ISCreateStride(PETSC_COMM_SELF, nx * ny, 0, 1, &cells));
    PetscCall(ISCreateGeneral(PETSC_COMM_SELF, 2, sizes, PETSC_COPY_VALUES, &shape));
    PetscCall(PetscObjectCompose((PetscObject)A, "consolve_cells", (PetscObject)cells));
    PetscCall(PetscObjectCompose((PetscObject)A, "consolve_shape", (PetscObject)shape));
    PetscCall(ISDestroy(&cells));
    PetscCall(ISDestroy(&shape));
  } else {
    PC pc;
    PetscCall(KSPGetPC(ksp, &pc));
    PetscCall(PCSetDM(pc, da));
  }
  PetscCall(KSPSetFromOptions(ksp));
  for (PetscInt solve = 1; solve <= 2; solve++) {
    PetscInt           its;
    PetscReal          residual, norm;
    KSPConvergedReason reason;
    PetscCall(Assemble(A, nx, ny, (PetscReal)solve));
    PetscCall(KSPSolve(ksp, b, x));
    PetscCall(KSPGetIterationNumber(ksp, &its));
    PetscCall(KSPGetConvergedReason(ksp, &reason));
    PetscCall(MatMult(A, x, r));
    PetscCall(VecAYPX(r, -1.0, b));
    PetscCall(VecNorm(r, NORM_2, &residual));
    PetscCall(VecNorm(b, NORM_2, &norm));
    PetscCall(PetscPrintf(PETSC_COMM_WORLD, "solve %d iterations %d reason %d residual %g\n", (int)solve, (int)its,
                          (int)reason, (double)(residual / norm)));
  }
  PetscCall(KSPDestroy(&ksp));
  PetscCall(VecDestroy(&r));
  PetscCall(VecDestroy(&b));
  PetscCall(VecDestroy(&x));
  PetscCall(MatDestroy(&A));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
