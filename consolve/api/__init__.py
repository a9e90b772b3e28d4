"""The front doors that need no options: solve, GridSolver, aspreconditioner."""
