/* The PETSc types "-pc_type cnn" and "-ksp_type dcd" for programs of any language, as a library for PETSc's
   option -dll_prepend.

   It is linked with the C library alone: PETSc's functions are those of the program that loads it, Python's
   those that are in the process already or else those of a shared libpython.  So one binary serves any
   version of PETSc and MPI.

   PETSc calls PetscDLLibraryRegister_NAME() before it counts as initialised, so that function only makes the
   types known.  Python starts when a solver of one of these types is made. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consolve_environment.h" /* written by consolve/plugin/build.py */

enum { PETSC_ERR_LIB = 76 }; /* "Error in external library" */

extern char **environ;

static int fail(const char *format, ...)
{
  va_list arguments;

  va_start(arguments, format);
  fputs("consolve: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  return PETSC_ERR_LIB;
}

/* ------------------------------------------------------------------ libraries that are loaded already */

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

/* A loaded library that has the symbol, opened once more with the flags; NULL if there is none. */
static void *loaded_library_with(const char *symbol, int flags)
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

/* ------------------------------------------------------------------------------------------------ PETSc */

typedef void *Object; /* PC or KSP */
typedef int (*Creator)(Object);
typedef void (*AnyFunction)(void);

static struct {
  int (*PCRegister)(const char *, Creator);
  int (*KSPRegister)(const char *, Creator);
  int (*PCSetType)(Object, const char *);
  int (*KSPSetType)(Object, const char *);
  int (*PCPythonSetType)(Object, const char *);
  int (*KSPPythonSetType)(Object, const char *);
  int (*PetscObjectChangeTypeName)(Object, const char *);
  int (*PetscObjectComposeFunction_Private)(Object, const char *, AnyFunction);
  int (*PetscRegisterFinalize)(int (*)(void));
  AnyFunction PetscInitialize;
} petsc;

typedef struct {
  const char *name;
  void       *place;
} Symbol;

#define SYMBOL(table, name) {#name, &table.name}

static const Symbol petsc_symbols[] = {
  SYMBOL(petsc, PCRegister),
  SYMBOL(petsc, KSPRegister),
  SYMBOL(petsc, PCSetType),
  SYMBOL(petsc, KSPSetType),
  SYMBOL(petsc, PCPythonSetType),
  SYMBOL(petsc, KSPPythonSetType),
  SYMBOL(petsc, PetscObjectChangeTypeName),
  SYMBOL(petsc, PetscObjectComposeFunction_Private),
  SYMBOL(petsc, PetscRegisterFinalize),
  SYMBOL(petsc, PetscInitialize),
};

/* Fill a table of functions; returns the first name that the library lacks, or NULL. */
static const char *take_symbols(void *library, const Symbol *symbols, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    void *address = dlsym(library, symbols[i].name);
    if (!address) return symbols[i].name;
    memcpy(symbols[i].place, &address, sizeof address);
  }
  return NULL;
}

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

/* ----------------------------------------------------------------------------------------------- Python */

typedef struct PyObject PyObject;
typedef struct PyInitConfig PyInitConfig;

static struct {
  int (*Py_IsInitialized)(void);
  void (*Py_InitializeEx)(int);
  const char *(*Py_GetVersion)(void);
  wchar_t *(*Py_DecodeLocale)(const char *, size_t *);
  void *(*PyEval_SaveThread)(void);
  int (*PyGILState_Ensure)(void);
  void (*PyGILState_Release)(int);
  PyObject *(*PyImport_ImportModule)(const char *);
  PyObject *(*PyDict_New)(void);
  PyObject *(*PyDict_GetItemString)(PyObject *, const char *);
  PyObject *(*PyObject_CallMethod)(PyObject *, const char *, const char *, ...);
  PyObject *(*PyObject_CallFunction)(PyObject *, const char *, ...);
  int (*PyObject_IsTrue)(PyObject *);
  const char *(*PyUnicode_AsUTF8AndSize)(PyObject *, ptrdiff_t *);
  void (*PyErr_Print)(void);
  void (*Py_DecRef)(PyObject *);
} py;

static const Symbol python_symbols[] = {
  SYMBOL(py, Py_IsInitialized),
  SYMBOL(py, Py_InitializeEx),
  SYMBOL(py, Py_GetVersion),
  SYMBOL(py, Py_DecodeLocale),
  SYMBOL(py, PyEval_SaveThread),
  SYMBOL(py, PyGILState_Ensure),
  SYMBOL(py, PyGILState_Release),
  SYMBOL(py, PyImport_ImportModule),
  SYMBOL(py, PyDict_New),
  SYMBOL(py, PyDict_GetItemString),
  SYMBOL(py, PyObject_CallMethod),
  SYMBOL(py, PyObject_CallFunction),
  SYMBOL(py, PyObject_IsTrue),
  SYMBOL(py, PyUnicode_AsUTF8AndSize),
  SYMBOL(py, PyErr_Print),
  SYMBOL(py, Py_DecRef),
};

static PyObject *bootstrap; /* the functions of consolve/plugin/bootstrap.py, once consolve is imported */
static int       started_python;

typedef struct {
  char program[4096], version[16], library[4096]; /* library is "" if there is no shared one */
} Interpreter;

/* Run "program -c code" and take what it prints; returns -1 if it cannot be run or fails. */
static int ask_program(const char *program, const char *code, char *answer, size_t size)
{
  posix_spawn_file_actions_t actions;
  char                      *words[] = {(char *)program, "-c", (char *)code, NULL};
  int                        ends[2], status = 0, error;
  pid_t                      child;
  size_t                     length = 0;
  ssize_t                    got;

  if (pipe(ends)) return -1;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  error = posix_spawnp(&child, program, &actions, NULL, words, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  while (!error && length + 1 < size) {
    got = read(ends[0], answer + length, size - 1 - length);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    length += (size_t)got;
  }
  close(ends[0]);
  answer[length] = 0;
  if (error) return -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
  return status ? -1 : 0;
}

static char *take_line(char **text, char *line, size_t size)
{
  char *end = strchr(*text, '\n');

  if (!end || (size_t)(end - *text) >= size) return NULL;
  memcpy(line, *text, (size_t)(end - *text));
  line[end - *text] = 0;
  *text             = end + 1;
  return line;
}

/* The interpreter that CONSOLVE_PYTHON names, else the one that built this library. */
static int choose_interpreter(Interpreter *chosen)
{
  const char *wanted = getenv("CONSOLVE_PYTHON");
  char        answer[9000], *rest = answer;

  if (!wanted || !wanted[0]) {
    snprintf(chosen->program, sizeof chosen->program, "%s", CONSOLVE_PROGRAM);
    snprintf(chosen->version, sizeof chosen->version, "%s", CONSOLVE_VERSION);
    snprintf(chosen->library, sizeof chosen->library, "%s", CONSOLVE_LIBRARY);
    if (!access(chosen->program, X_OK)) return 0;
    return fail("the Python that this plugin was built with, %s, is not there any more; build it again with "
                "\"consolve plugin build\", or name a Python that has consolve by CONSOLVE_PYTHON",
                chosen->program);
  }
  if (ask_program(wanted, CONSOLVE_LOCATE, answer, sizeof answer) ||
      !take_line(&rest, chosen->program, sizeof chosen->program) ||
      !take_line(&rest, chosen->version, sizeof chosen->version) ||
      !take_line(&rest, chosen->library, sizeof chosen->library))
    return fail("CONSOLVE_PYTHON=%s cannot be run as Python 3; it has to name a Python that has consolve, such as "
                "/path/to/venv/bin/python (unset, it is %s)",
                wanted, CONSOLVE_PROGRAM);
  return 0;
}

static int find_python(const Interpreter *interpreter)
{
  const size_t count   = sizeof python_symbols / sizeof python_symbols[0];
  void        *library = NULL;
  const char  *missing;

  if (!interpreter) { /* only what is in the process already */
    if (!take_symbols(RTLD_DEFAULT, python_symbols, count)) return 0;
    library = loaded_library_with("Py_IsInitialized", RTLD_GLOBAL); /* extension modules need it global */
    return !library || take_symbols(library, python_symbols, count);
  }
  if (!interpreter->library[0])
    return fail("Python %s (%s) has no shared library libpython%s.so, which a program that is not Python needs; "
                "install it (Debian: apt-get install libpython%s), then run \"consolve plugin build\" again",
                interpreter->version, interpreter->program, interpreter->version, interpreter->version);
  library = dlopen(interpreter->library, RTLD_NOW | RTLD_GLOBAL);
  if (!library) return fail("cannot load Python's library: %s", dlerror());
  missing = take_symbols(library, python_symbols, count);
  return missing ? fail("%s has no %s; Python 3.10 or later is needed", interpreter->library, missing) : 0;
}

/* Start Python as that program would, so that a virtual environment is found.  No signal handlers. */
static int initialize_python(const Interpreter *interpreter)
{
  void (*set_program)(const wchar_t *)                                  = NULL;
  PyInitConfig *(*create)(void)                                         = NULL;
  int (*set_string)(PyInitConfig *, const char *, const char *)         = NULL;
  int (*set_number)(PyInitConfig *, const char *, int64_t)              = NULL;
  int (*initialize)(PyInitConfig *)                                     = NULL;
  int (*error_of)(PyInitConfig *, const char **)                        = NULL;
  const Symbol newer[] = {{"PyInitConfig_Create", &create},
                          {"PyInitConfig_SetStr", &set_string},
                          {"PyInitConfig_SetInt", &set_number},
                          {"Py_InitializeFromInitConfig", &initialize},
                          {"PyInitConfig_GetError", &error_of}};
  const Symbol older[] = {{"Py_SetProgramName", &set_program}};
  Dl_info      info;
  void        *library = NULL;

  if (dladdr((void *)(uintptr_t)py.Py_IsInitialized, &info)) library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) library = RTLD_DEFAULT;
  if (!take_symbols(library, newer, sizeof newer / sizeof newer[0])) {
    const char   *error  = "no memory";
    PyInitConfig *config = create(); /* begins as an isolated one */
    if (!config || set_number(config, "isolated", 0) || set_number(config, "use_environment", 1) ||
        set_number(config, "user_site_directory", 1) || set_number(config, "install_signal_handlers", 0) ||
        set_string(config, "program_name", interpreter->program) || initialize(config)) {
      if (config) error_of(config, &error);
      return fail("Python %s (%s) does not start: %s", interpreter->version, interpreter->program, error);
    }
  } else {
    wchar_t *name = py.Py_DecodeLocale(interpreter->program, NULL); /* Python keeps it */
    if (take_symbols(library, older, 1) || !name)
      return fail("%s has neither Py_SetProgramName nor PyInitConfig_Create", interpreter->library);
    set_program(name);
    py.Py_InitializeEx(0);
  }
  py.PyEval_SaveThread();
  started_python = 1;
  return 0;
}

/* Take what a function of bootstrap.py returned: None, or a message.  Ends the reference. */
static int report(PyObject *answer)
{
  int code = 0;

  if (!answer) {
    py.PyErr_Print();
    return PETSC_ERR_LIB;
  }
  if (py.PyObject_IsTrue(answer)) {
    const char *message = py.PyUnicode_AsUTF8AndSize(answer, NULL);
    code                = fail("%s", message ? message : "unreadable message");
  }
  py.Py_DecRef(answer);
  return code;
}

static int load_bootstrap(void)
{
  PyObject *builtins = py.PyImport_ImportModule("builtins"), *functions = py.PyDict_New(), *answer = NULL;
  int       code;

  if (builtins && functions) answer = py.PyObject_CallMethod(builtins, "exec", "sO", CONSOLVE_BOOTSTRAP, functions);
  code = report(answer);
  if (!code)
    code = report(py.PyObject_CallFunction(py.PyDict_GetItemString(functions, "start"), "Kss",
                                           (unsigned long long)(uintptr_t)petsc.PetscInitialize, CONSOLVE_VERSION,
                                           CONSOLVE_PATHS));
  if (builtins) py.Py_DecRef(builtins);
  if (!code) bootstrap = functions; /* kept for good */
  else if (functions) py.Py_DecRef(functions);
  return code;
}

static int start_python(void)
{
  Interpreter interpreter;
  int         code, state;

  if (bootstrap) return 0;
  if (!py.Py_IsInitialized && find_python(NULL)) {
    memset(&py, 0, sizeof py);
    if ((code = choose_interpreter(&interpreter)) || (code = find_python(&interpreter))) return code;
  }
  if (!py.Py_IsInitialized()) {
    size_t length;
    if ((code = choose_interpreter(&interpreter))) return code;
    length = strlen(interpreter.version);
    if (strncmp(py.Py_GetVersion(), interpreter.version, length) || py.Py_GetVersion()[length] != '.')
      return fail("the program is linked with Python %.10s, and consolve is installed for Python %s (%s)",
                  py.Py_GetVersion(), interpreter.version, interpreter.program);
    if ((code = initialize_python(&interpreter))) return code;
  }
  state = py.PyGILState_Ensure();
  code  = load_bootstrap();
  py.PyGILState_Release(state);
  return code;
}

/* ------------------------------------------------------------------------------------------------ types */

/* PCSetCoordinates(pc, dim, nloc, coords).  PetscInt may have 32 bits: the rest of the register is then
   undefined, and Python, which knows the size, drops it. */
static int set_coordinates(Object pc, unsigned long long dim, unsigned long long rows, void *coordinates)
{
  int code, state = py.PyGILState_Ensure();

  code = report(py.PyObject_CallFunction(py.PyDict_GetItemString(bootstrap, "set_coordinates"), "KKKK",
                                         (unsigned long long)(uintptr_t)pc, dim, rows,
                                         (unsigned long long)(uintptr_t)coordinates));
  py.PyGILState_Release(state);
  return code;
}

typedef int (*Setter)(Object, const char *);

/* Make the object one of type "python" with the class set, under a name of its own. */
static int create(Object object, const char *name, const char *python_class, Setter set_type, Setter set_class)
{
  int code = start_python();

  /* an object that was of type "python" before would else be taken for one already created */
  if (!code) code = petsc.PetscObjectChangeTypeName(object, name);
  if (!code) code = set_type(object, "python");
  if (!code) code = set_class(object, python_class);
  if (!code) code = petsc.PetscObjectChangeTypeName(object, name);
  return code;
}

static int create_pc_cnn(Object pc)
{
  int code = create(pc, "cnn", "consolve.solvers.PCCNN", petsc.PCSetType, petsc.PCPythonSetType);

  if (code) return code;
  return petsc.PetscObjectComposeFunction_Private(pc, "PCSetCoordinates_C", (AnyFunction)set_coordinates);
}

static int create_ksp_dcd(Object ksp)
{
  return create(ksp, "dcd", "consolve.solvers.KSPDCD", petsc.KSPSetType, petsc.KSPPythonSetType);
}

/* Python is left running: objects that PETSc, or a destructor of the program, lets go later may still need
   it.  What it has printed must not be lost. */
static int flush_python(void)
{
  if (started_python && bootstrap && py.Py_IsInitialized()) {
    int state = py.PyGILState_Ensure();
    report(py.PyObject_CallFunction(py.PyDict_GetItemString(bootstrap, "flush"), NULL));
    py.PyGILState_Release(state);
  }
  return 0;
}

__attribute__((visibility("default"))) int CONSOLVE_REGISTER(void)
{
  int code = find_petsc(__builtin_return_address(0));

  if (!code) code = petsc.PCRegister("cnn", create_pc_cnn);
  if (!code) code = petsc.KSPRegister("dcd", create_ksp_dcd);
  if (!code) code = petsc.PetscRegisterFinalize(flush_python);
  return code;
}
