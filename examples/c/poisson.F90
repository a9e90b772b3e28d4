! -div grad u = f on the unit square, u = 0 on its boundary; unknowns are the inner nodes, numbered x fastest,
! in a plain matrix without a DMDA.  Solution u = x (1 - x) exp(y) sin(pi y).
! Options: -nx N -ny N, and those of KSP and PC; -pc_type cnn is told the grid by -pc_cnn_grid 90,70.
program poisson
#include <petsc/finclude/petscksp.h>
  use petscksp
  implicit none

  PetscReal, parameter :: pi = acos(-1.0d0)
  Mat :: A
  Vec :: x, b, u
  KSP :: ksp
  PC  :: pc
  KSPType :: ksp_type
  PCType  :: pc_type
  KSPConvergedReason :: reason
  PetscErrorCode :: ierr
  PetscInt    :: nx, ny, first, last, row, i, j, n, iterations, one, most
  PetscInt    :: rows(1), columns(5)
  PetscScalar :: values(5), rhs(1), exact(1), minus
  PetscReal   :: cx, cy, px, py, error
  PetscBool   :: found
  PetscMPIInt :: rank

  PetscCallA(PetscInitialize(ierr))
  nx = 90
  ny = 70
  one = 1
  most = 5
  minus = -1
  PetscCallA(PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-nx', nx, found, ierr))
  PetscCallA(PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-ny', ny, found, ierr))
  cx = real(nx + 1, kind(cx))**2
  cy = real(ny + 1, kind(cy))**2

  PetscCallA(MatCreate(PETSC_COMM_WORLD, A, ierr))
  PetscCallA(MatSetSizes(A, PETSC_DECIDE, PETSC_DECIDE, nx*ny, nx*ny, ierr))
  PetscCallA(MatSetFromOptions(A, ierr))
  PetscCallA(MatSetUp(A, ierr))
  PetscCallA(MatGetOwnershipRange(A, first, last, ierr))
  PetscCallA(MatCreateVecs(A, x, b, ierr))
  PetscCallA(VecDuplicate(x, u, ierr))
  do row = first, last - 1
    i = mod(row, nx)
    j = row/nx
    n = 1
    rows(1) = row
    columns(1) = row
    values(1) = 2*(cx + cy)
    if (i > 0) call add(row - 1, -cx)
    if (i < nx - 1) call add(row + 1, -cx)
    if (j > 0) call add(row - nx, -cy)
    if (j < ny - 1) call add(row + nx, -cy)
    PetscCallA(MatSetValues(A, one, rows, n, columns, values, INSERT_VALUES, ierr))
    px = real(i + 1, kind(px))/(nx + 1)
    py = real(j + 1, kind(py))/(ny + 1)
    exact(1) = px*(1 - px)*exp(py)*sin(pi*py)
    rhs(1) = exp(py)*(2*sin(pi*py) - px*(1 - px)*((1 - pi**2)*sin(pi*py) + 2*pi*cos(pi*py)))
    PetscCallA(VecSetValues(u, one, rows, exact, INSERT_VALUES, ierr))
    PetscCallA(VecSetValues(b, one, rows, rhs, INSERT_VALUES, ierr))
  end do
  PetscCallA(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY, ierr))
  PetscCallA(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY, ierr))
  PetscCallA(VecAssemblyBegin(u, ierr))
  PetscCallA(VecAssemblyEnd(u, ierr))
  PetscCallA(VecAssemblyBegin(b, ierr))
  PetscCallA(VecAssemblyEnd(b, ierr))

  PetscCallA(KSPCreate(PETSC_COMM_WORLD, ksp, ierr))
  PetscCallA(KSPSetType(ksp, KSPCG, ierr))
  PetscCallA(KSPSetOperators(ksp, A, A, ierr))
  PetscCallA(KSPSetFromOptions(ksp, ierr))
  PetscCallA(KSPSolve(ksp, b, x, ierr))

  PetscCallA(VecAXPY(x, minus, u, ierr))
  PetscCallA(VecNorm(x, NORM_INFINITY, error, ierr))
  PetscCallA(KSPGetIterationNumber(ksp, iterations, ierr))
  PetscCallA(KSPGetConvergedReason(ksp, reason, ierr))
  PetscCallA(KSPGetPC(ksp, pc, ierr))
  PetscCallA(KSPGetType(ksp, ksp_type, ierr))
  PetscCallA(PCGetType(pc, pc_type, ierr))
  call MPI_Comm_rank(PETSC_COMM_WORLD, rank, ierr)
  if (rank == 0) print '(5a,i0,a,i0,a,es12.6)', 'poisson: ', trim(ksp_type), ' + ', trim(pc_type), &
    ', iterations ', iterations, ', reason ', reason, ', error ', error
  PetscCallA(KSPDestroy(ksp, ierr))
  PetscCallA(MatDestroy(A, ierr))
  PetscCallA(VecDestroy(x, ierr))
  PetscCallA(VecDestroy(b, ierr))
  PetscCallA(VecDestroy(u, ierr))
  PetscCallA(PetscFinalize(ierr))

contains

  subroutine add(column, coefficient)
    PetscInt, intent(in)  :: column
    PetscReal, intent(in) :: coefficient
    n = n + 1
    columns(n) = column
    values(n) = coefficient
  end subroutine add

end program poisson
