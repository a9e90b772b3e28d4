"""consolve: learned convolutional networks beside real solvers.

``import consolve`` is light: torch, petsc4py and dolfinx are imported only by the parts that use them.

Sub-packages
------------
consolve.pde
    Grids, operators, domains, right-hand sides and flows (NumPy and Numba).
consolve.learned
    The multilevel network: setup and inference in Numba, definition and training in torch.
consolve.solvers
    The PETSc side: ``-pc_type cnn`` and ``-ksp_type dcd``; importing it registers both.
"""

__version__ = "0.1.0"
