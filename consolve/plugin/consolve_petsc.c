/* The PETSc types "-pc_type cnn" and "-ksp_type dcd" for programs of any language, as a library for PETSc's
   option -dll_prepend.

   It is linked with the C library alone: PETSc's functions are those of the program that loads it, Python's
   those that are in the process already or else those of a shared libpython.  So one binary serves any
   version of PETSc and MPI.

   PETSc calls PetscDLLibraryRegister_NAME() before it counts as initialised, so that function only makes the
   types known.  Python starts when a solver of one of these types is made. */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>

typedef void *Object; /* PC or KSP */
typedef int (*Creator)(Object);
typedef int (*ErrorHandler)(void *, int, const char *, const char *, int, int, const char *, void *);

static struct {
  int (*PCRegister)(const char *, Creator);
  int (*KSPRegister)(const char *, Creator);
  int (*PCSetType)(Object, const char *);
  int (*KSPSetType)(Object, const char *);
  int (*PCPythonSetType)(Object, const char *);
  int (*KSPPythonSetType)(Object, const char *);
  int (*PetscObjectChangeTypeName)(Object, const char *);
  int (*PetscObjectComposeFunction_Private)(Object, const char *, AnyFunction);
  int (*PetscFunctionListFind_Private)(void *, const char *, Creator *);
  int (*PetscRegisterFinalize)(int (*)(void));
  int (*PetscPushErrorHandler)(ErrorHandler, void *);
  int (*PetscPopErrorHandler)(void);
  int (*PetscError)(void *, int, const char *, const char *, int, int, const char *, ...);
  AnyFunction PetscInitialize;
  void      **PCList, **KSPList;
} petsc;

static const Symbol petsc_symbols[] = {
  SYMBOL(petsc, PCRegister),
  SYMBOL(petsc, KSPRegister),
  SYMBOL(petsc, PCSetType),
  SYMBOL(petsc, KSPSetType),
  SYMBOL(petsc, PCPythonSetType),
  SYMBOL(petsc, KSPPythonSetType),
  SYMBOL(petsc, PetscObjectChangeTypeName),
  SYMBOL(petsc, PetscObjectComposeFunction_Private),
  SYMBOL(petsc, PetscFunctionListFind_Private),
  SYMBOL(petsc, PetscRegisterFinalize),
  SYMBOL(petsc, PetscPushErrorHandler),
  SYMBOL(petsc, PetscPopErrorHandler),
  SYMBOL(petsc, PetscError),
  SYMBOL(petsc, PetscInitialize),
  SYMBOL(petsc, PCList),
  SYMBOL(petsc, KSPList),
};

/* PETSc is the library that called us; the others are for a PETSc in several libraries, and for callers
   that are not PETSc. */
static int find_petsc(void *caller)
{
  const size_t count = sizeof petsc_symbols / sizeof petsc_symbols[0];
  Dl_info      info;
  const char  *missing = NULL;
  void        *library = NULL;

  if (dladdr(caller, &info) && info.dli_fname) library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (library && !take_symbols(library, petsc_symbols, count)) return 0;
  if (!take_symbols(RTLD_DEFAULT, petsc_symbols, count)) return 0;
  library = loaded_library_with("KSPRegister", 0);
  if (library) missing = take_symbols(library, petsc_symbols, count);
  if (library && !missing) return 0;
  return fail("this program has no function %s of PETSc that a plugin can reach; consolve needs PETSc 3.18 or "
              "later as a shared library (a program that holds PETSc itself must be linked with -rdynamic)",
              missing ? missing : "KSPRegister");
}

/* petsc4py of PETSc 3.18 returns -1 when Python raises, which PETSc takes for a fault of its own.  This handler
   is there for the next error only, which is that one; another is handed on as it is. */
static int translate_next(void *comm, int line, const char *function, const char *file, int code, int kind,
                          const char *message, void *context)
{
  (void)context;
  petsc.PetscPopErrorHandler();
  return petsc.PetscError(comm, line, function, file, code == -1 ? PETSC_ERR_LIB : code, kind, "%s",
                          message ? message : "");
}

static void translate_next_error(void) { petsc.PetscPushErrorHandler(translate_next, NULL); }

static Creator create_pc_python, create_ksp_python; /* petsc4py's */

typedef int (*Setter)(Object, const char *);

/* Make the object one of type "python" with the class set, under a name of its own. */
static int create(Object object, const char *name, const char *python_class, Setter set_type, Setter set_class)
{
  Traps traps;
  int   code;

  hold_traps(&traps);
  code = python_start(petsc.PetscInitialize, translate_next_error);
  if (!code) code = petsc.PetscFunctionListFind_Private(*petsc.PCList, "python", &create_pc_python);
  if (!code) code = petsc.PetscFunctionListFind_Private(*petsc.KSPList, "python", &create_ksp_python);
  /* an object that was of type "python" before would else be taken for one already created */
  if (!code) code = petsc.PetscObjectChangeTypeName(object, name);
  if (!code) code = set_type(object, "python");
  if (!code) code = set_class(object, python_class);
  if (!code) code = petsc.PetscObjectChangeTypeName(object, name);
  release_traps(&traps);
  return code;
}

static int create_pc_cnn(Object pc)
{
  int code = create(pc, "cnn", "consolve.solvers.PCCNN", petsc.PCSetType, petsc.PCPythonSetType);

  if (code) return code;
  return petsc.PetscObjectComposeFunction_Private(pc, "PCSetCoordinates_C", (AnyFunction)python_set_coordinates);
}

static int create_ksp_dcd(Object ksp)
{
  return create(ksp, "dcd", "consolve.solvers.KSPDCD", petsc.KSPSetType, petsc.KSPPythonSetType);
}

__attribute__((visibility("default"))) int CONSOLVE_REGISTER(void)
{
  int code = find_petsc(__builtin_return_address(0));

  if (!code) code = petsc.PCRegister("cnn", create_pc_cnn);
  if (!code) code = petsc.KSPRegister("dcd", create_ksp_dcd);
  if (!code) code = petsc.PetscRegisterFinalize(python_flush);
  /* a program that initialises PETSc again: petsc4py makes its types known once only */
  if (!code && create_pc_python) code = petsc.PCRegister("python", create_pc_python);
  if (!code && create_ksp_python) code = petsc.KSPRegister("python", create_ksp_python);
  return code;
}
