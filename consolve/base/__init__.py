"""What every layer uses: files, HDF5, memory, threads, the options of Numba and of PETSc, errors."""
