"""The plugin: a shared library that gives ``-pc_type cnn`` and ``-ksp_type dcd`` to any program of PETSc.

``build`` compiles ``consolve_petsc.c`` with the system's compiler, without headers of PETSc or Python; PETSc
loads the result by its option ``-dll_prepend``.  ``bootstrap`` and ``locate`` are compiled in as text,
``start`` is the first module of consolve that then runs, and ``check`` tries it all.
"""

from consolve.plugin.build import BuildError, build_plugin, plugin_path

__all__ = ["BuildError", "build_plugin", "plugin_path"]
