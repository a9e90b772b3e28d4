"""Multigrid on a graph, for walls, stretched cells, jumps: coarse cells by width, with several unknowns."""
