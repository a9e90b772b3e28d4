/* Python in this process: found, or started, and asked to import consolve. */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consolve_environment.h" /* written by build.py */

extern char **environ;

typedef struct PyObject PyObject;
static struct {
  int (*Py_IsInitialized)(void);
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

typedef struct PyInitConfig PyInitConfig;

/* Py_SetProgramName() and Py_InitializeEx() by their replacement, where Python (3.15) has them no more. */
static int initialize_by_configuration(void *library, const Interpreter *interpreter)
{
  PyInitConfig *(*create)(void);
  int (*set_string)(PyInitConfig *, const char *, const char *);
  int (*set_number)(PyInitConfig *, const char *, int64_t);
  int (*initialize)(PyInitConfig *);
  int (*get_error)(PyInitConfig *, const char **);
  const Symbol symbols[] = {{"PyInitConfig_Create", &create},
                            {"PyInitConfig_SetStr", &set_string},
                            {"PyInitConfig_SetInt", &set_number},
                            {"Py_InitializeFromInitConfig", &initialize},
                            {"PyInitConfig_GetError", &get_error}};
  const char   *usual[]   = {"configure_locale", "use_environment", "user_site_directory"};
  const char   *error     = "no memory";
  PyInitConfig *config;
  int           bad;

  if (take_symbols(library, symbols, sizeof symbols / sizeof symbols[0])) return fail("Python cannot be configured");
  config = create(); /* begins as an isolated one */
  bad    = !config || set_number(config, "isolated", 0) || set_number(config, "install_signal_handlers", 0);
  for (size_t i = 0; !bad && i < sizeof usual / sizeof usual[0]; i++) bad = set_number(config, usual[i], 1);
  bad = bad || set_string(config, "program_name", interpreter->program) || initialize(config);
  if (bad && config) get_error(config, &error);
  return bad ? fail("Python %s (%s) does not start: %s", interpreter->version, interpreter->program, error) : 0;
}

/* Start Python as that program would, so that a virtual environment is found.  No signal handlers. */
static int initialize_python(const Interpreter *interpreter)
{
  void (*set_program)(const wchar_t *);
  void (*initialize)(int);
  const Symbol symbols[] = {{"Py_SetProgramName", &set_program}, {"Py_InitializeEx", &initialize}};
  Dl_info      info;
  void        *library = NULL;

  if (dladdr((void *)(uintptr_t)py.Py_IsInitialized, &info)) library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) library = RTLD_DEFAULT;
  if (take_symbols(library, symbols, 2)) {
    int code = initialize_by_configuration(library, interpreter);
    if (code) return code;
  } else {
    wchar_t *name = py.Py_DecodeLocale(interpreter->program, NULL); /* Python keeps it */
    if (!name) return fail("the path %s of Python cannot be decoded in this locale", interpreter->program);
    set_program(name);
    initialize(0);
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

static int load_bootstrap(AnyFunction petsc_initialize, AnyFunction failed)
{
  PyObject *builtins = py.PyImport_ImportModule("builtins"), *functions = py.PyDict_New(), *answer = NULL;
  int       code;

  if (builtins && functions) answer = py.PyObject_CallMethod(builtins, "exec", "sO", CONSOLVE_BOOTSTRAP, functions);
  code = report(answer);
  if (!code)
    code = report(py.PyObject_CallFunction(py.PyDict_GetItemString(functions, "start"), "KKss",
                                           (unsigned long long)(uintptr_t)petsc_initialize,
                                           (unsigned long long)(uintptr_t)failed, CONSOLVE_VERSION,
                                           CONSOLVE_PATHS));
  if (builtins) py.Py_DecRef(builtins);
  if (!code) bootstrap = functions; /* kept for good */
  else if (functions) py.Py_DecRef(functions);
  return code;
}

/* Find Python's functions, and start it if the process has not; py is empty if that fails. */
static int provide_python(void)
{
  Interpreter interpreter;
  const char *version;
  size_t      length;
  int         code, present = !find_python(NULL);

  if (present && py.Py_IsInitialized()) return 0;
  code = choose_interpreter(&interpreter);
  if (!code && !present) code = find_python(&interpreter);
  if (!code) {
    version = py.Py_GetVersion();
    length  = strlen(interpreter.version);
    if (strncmp(version, interpreter.version, length) || version[length] != '.')
      code = fail("the program is linked with Python %.6s, and consolve is installed for Python %s (%s)", version,
                  interpreter.version, interpreter.program);
  }
  if (!code && !py.Py_IsInitialized()) code = initialize_python(&interpreter);
  if (code) memset(&py, 0, sizeof py);
  return code;
}

int python_start(AnyFunction petsc_initialize, AnyFunction failed)
{
  int code, state;

  if (bootstrap) return 0;
  if (!py.Py_IsInitialized && (code = provide_python())) return code;
  state = py.PyGILState_Ensure();
  code  = load_bootstrap(petsc_initialize, failed);
  py.PyGILState_Release(state);
  return code;
}

int python_set_coordinates(void *pc, unsigned long long dim, unsigned long long rows, void *coordinates)
{
  int code, state = py.PyGILState_Ensure();

  code = report(py.PyObject_CallFunction(py.PyDict_GetItemString(bootstrap, "set_coordinates"), "KKKK",
                                         (unsigned long long)(uintptr_t)pc, dim, rows,
                                         (unsigned long long)(uintptr_t)coordinates));
  py.PyGILState_Release(state);
  return code;
}

int python_flush(void)
{
  if (started_python && bootstrap && py.Py_IsInitialized()) {
    int state = py.PyGILState_Ensure();
    report(py.PyObject_CallFunction(py.PyDict_GetItemString(bootstrap, "flush"), NULL));
    py.PyGILState_Release(state);
  }
  return 0;
}
