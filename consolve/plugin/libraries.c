/* Symbols of the libraries that are in the process, and what is done with some of the C library's. */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fail(const char *format, ...)
{
  char    line[4096] = "consolve: ";
  size_t  length     = strlen(line);
  va_list arguments;

  va_start(arguments, format);
  vsnprintf(line + length, sizeof line - length - 1, format, arguments);
  va_end(arguments);
  length       = strlen(line);
  line[length] = '\n';
  fwrite(line, 1, length + 1, stderr); /* at once: lines of several ranks do not run together */
  return PETSC_ERR_LIB;
}

const char *take_symbols(void *library, const Symbol *symbols, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    void *address = dlsym(library, symbols[i].name);
    if (!address) return symbols[i].name;
    memcpy(symbols[i].place, &address, sizeof address);
  }
  return NULL;
}

typedef struct {
  char **name;
  size_t count;
} Libraries;

static int add_library(struct dl_phdr_info *info, size_t size, void *context)
{
  Libraries *libraries = context;
  char     **longer, *name;

  (void)size;
  if (!info->dlpi_name || !info->dlpi_name[0]) return 0;
  longer = realloc(libraries->name, (libraries->count + 1) * sizeof(char *));
  if (!longer) return 1;
  libraries->name = longer;
  name            = strdup(info->dlpi_name);
  if (!name) return 1;
  libraries->name[libraries->count++] = name;
  return 0;
}

void *loaded_library_with(const char *symbol, int flags)
{
  Libraries libraries = {NULL, 0};
  void     *found     = NULL;

  dl_iterate_phdr(add_library, &libraries);
  for (size_t i = 0; i < libraries.count; i++) {
    void *handle = found ? NULL : dlopen(libraries.name[i], RTLD_LAZY | RTLD_NOLOAD);
    if (handle && dlsym(handle, symbol)) found = dlopen(libraries.name[i], RTLD_LAZY | RTLD_NOLOAD | flags);
    if (handle) dlclose(handle);
    free(libraries.name[i]);
  }
  free(libraries.name);
  return found;
}

/* libm is in every program of PETSc, though perhaps not in reach of all; what has no feholdexcept, no traps. */
static AnyFunction math_function(const char *name)
{
  AnyFunction function = NULL;
  Symbol      symbol   = {name, &function};
  void       *library;

  if (!take_symbols(RTLD_DEFAULT, &symbol, 1)) return function;
  library = loaded_library_with(name, 0);
  if (library) take_symbols(library, &symbol, 1);
  return function;
}

void hold_traps(Traps *traps)
{
  int (*hold)(fenv_t *) = (int (*)(fenv_t *))math_function("feholdexcept");

  traps->held = hold && !hold(&traps->environment);
}

void release_traps(const Traps *traps)
{
  int (*restore)(const fenv_t *) = (int (*)(const fenv_t *))math_function("fesetenv");

  if (traps->held && restore) restore(&traps->environment);
}
