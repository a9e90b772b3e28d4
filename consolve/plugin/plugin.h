/* What the parts of the plugin share. */
#ifndef CONSOLVE_PLUGIN_H
#define CONSOLVE_PLUGIN_H

#include <fenv.h>
#include <stddef.h>

enum { PETSC_ERR_LIB = 76 }; /* "Error in external library" */

typedef void (*AnyFunction)(void);

typedef struct {
  const char *name;
  void       *place; /* of the pointer that becomes its address */
} Symbol;

#define SYMBOL(table, name) {#name, &table.name}

/* Tell the user; returns PETSC_ERR_LIB. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fill a table from a library; returns the first name that the library lacks, or NULL. */
const char *take_symbols(void *library, const Symbol *symbols, size_t count);

/* A loaded library that has the symbol, opened once more with the flags; NULL if there is none. */
void *loaded_library_with(const char *symbol, int flags);

/* Floating-point exceptions that trap (PETSc's -fp_trap): Python raises some when it starts and imports. */
typedef struct {
  int    held;
  fenv_t environment;
} Traps;

/* Let none trap on this thread, and let them trap as before. */
void hold_traps(Traps *traps);
void release_traps(const Traps *traps);

/* Start Python if need be, and import consolve for the PETSc with that PetscInitialize; harmless when done
   again.  The other function is called when a method in Python has failed.  Returns an error code of PETSc, as
   do the others, which come after it. */
int python_start(AnyFunction petsc_initialize, AnyFunction failed);

/* What PCSetCoordinates(pc, dim, nloc, coords) calls.  PetscInt may have 32 bits: the rest of the register is
   then undefined, and Python, which knows the size, drops it. */
int python_set_coordinates(void *pc, unsigned long long dim, unsigned long long rows, void *coordinates);

/* For the end of PETSc.  Python is left running, since objects that are let go later may still need it; but
   what it has printed must not be lost. */
int python_flush(void);

#endif
