/* A program of PETSc that knows nothing of consolve: Poisson on a DMDA, solution 1 everywhere.  PETSc's
   headers need not be installed: what it needs of them is declared here.  PetscInt is given on the command
   line of the compiler. */
#include <math.h>
#include <stdio.h>

typedef struct Comm *Comm; /* wide enough for any MPI_Comm */
typedef void *Object;

extern Comm PETSC_COMM_WORLD;

int PetscInitialize(int *, char ***, const char *, const char *);
int PetscFinalize(void);
int DMDACreate2d(Comm, int, int, int, PetscInt, PetscInt, PetscInt, PetscInt, PetscInt, PetscInt, const PetscInt *,
                 const PetscInt *, Object *);
int DMSetUp(Object);
int DMCreateMatrix(Object, Object *);
int DMDestroy(Object *);
int MatSetValues(Object, PetscInt, const PetscInt *, PetscInt, const PetscInt *, const double *, int);
int MatAssemblyBegin(Object, int);
int MatAssemblyEnd(Object, int);
int MatCreateVecs(Object, Object *, Object *);
int MatMult(Object, Object, Object);
int MatDestroy(Object *);
int VecSet(Object, double);
int VecShift(Object, double);
int VecNorm(Object, int, double *);
int VecDestroy(Object *);
int KSPCreate(Comm, Object *);
int KSPSetOperators(Object, Object, Object);
int KSPGetPC(Object, Object *);
int PCSetDM(Object, Object);
int PCGetType(Object, const char **);
int KSPSetFromOptions(Object);
int KSPSolve(Object, Object, Object);
int KSPGetIterationNumber(Object, PetscInt *);
int KSPGetConvergedReason(Object, int *);
int KSPDestroy(Object *);

enum { DECIDE = -1, NO_BOUNDARY = 0, STAR = 0, INSERT = 1, FINAL = 0, INFINITY_NORM = 3 };

#define CHECK(call) \
  do { \
    int code_ = (call); \
    if (code_) return code_; \
  } while (0)

int main(int argc, char **argv)
{
  const PetscInt nx = 40, ny = 30;
  Object         da, A, x, b, ksp, pc;
  const char    *type;
  PetscInt       iterations;
  int            reason;
  double         error;

  CHECK(PetscInitialize(&argc, &argv, NULL, NULL));
  CHECK(DMDACreate2d(PETSC_COMM_WORLD, NO_BOUNDARY, NO_BOUNDARY, STAR, nx, ny, DECIDE, DECIDE, 1, 1, NULL, NULL, &da));
  CHECK(DMSetUp(da));
  CHECK(DMCreateMatrix(da, &A));
  for (PetscInt row = 0; row < nx * ny; row++) {
    const PetscInt i = row % nx, j = row / nx;
    PetscInt       column[5] = {row}, n = 1;
    const double   value[5] = {4.0, -1.0, -1.0, -1.0, -1.0};
    if (i > 0) column[n++] = row - 1;
    if (i + 1 < nx) column[n++] = row + 1;
    if (j > 0) column[n++] = row - nx;
    if (j + 1 < ny) column[n++] = row + nx;
    CHECK(MatSetValues(A, 1, &row, n, column, value, INSERT));
  }
  CHECK(MatAssemblyBegin(A, FINAL));
  CHECK(MatAssemblyEnd(A, FINAL));
  CHECK(MatCreateVecs(A, &x, &b));
  CHECK(VecSet(x, 1.0));
  CHECK(MatMult(A, x, b));
  CHECK(VecSet(x, 0.0));
  CHECK(KSPCreate(PETSC_COMM_WORLD, &ksp));
  CHECK(KSPSetOperators(ksp, A, A));
  CHECK(KSPGetPC(ksp, &pc));
  CHECK(PCSetDM(pc, da));
  CHECK(KSPSetFromOptions(ksp));
  CHECK(KSPSolve(ksp, b, x));
  CHECK(PCGetType(pc, &type));
  CHECK(KSPGetIterationNumber(ksp, &iterations));
  CHECK(KSPGetConvergedReason(ksp, &reason));
  CHECK(VecShift(x, -1.0));
  CHECK(VecNorm(x, INFINITY_NORM, &error));
  printf("pc %s iterations %d reason %d error %.3e\n", type, (int)iterations, reason, error);
  CHECK(KSPDestroy(&ksp));
  CHECK(VecDestroy(&b));
  CHECK(VecDestroy(&x));
  CHECK(MatDestroy(&A));
  CHECK(DMDestroy(&da));
  return PetscFinalize();
}
