/* The line that each program prints at its end. */
#ifndef REPORT_H
#define REPORT_H

#include <petscksp.h>

static inline PetscErrorCode Report(KSP ksp, const char *name, PetscInt iterations, PetscReal error)
{
  KSPConvergedReason reason;
  PC                 pc;
  KSPType            ksp_type;
  PCType             pc_type;

  PetscFunctionBeginUser;
  PetscCall(KSPGetConvergedReason(ksp, &reason));
  PetscCall(KSPGetPC(ksp, &pc));
  PetscCall(KSPGetType(ksp, &ksp_type));
  PetscCall(PCGetType(pc, &pc_type));
  PetscCall(PetscPrintf(PETSC_COMM_WORLD, "%s: %s + %s, iterations %" PetscInt_FMT ", reason %d, error %.6e\n", name,
                        ksp_type, pc_type, iterations, (int)reason, (double)error));
  PetscFunctionReturn(0);
}

#endif
