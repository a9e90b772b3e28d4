"""Benchmarks: one problem through several solvers, each in a process of its own.

``roster`` names the solvers, ``poisson`` and ``flow`` run the two kinds of benchmark, ``worker`` is what runs
in each process (under ``mpiexec`` when it has several ranks), ``captured`` keeps the pressure systems of a
flow for several solvers, ``plots`` draws.
"""
