"""The grid and the entries of a PETSc matrix."""
