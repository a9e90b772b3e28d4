"""Multigrid on a graph: coarse cells by width and with several unknowns, for walls, stretched cells, jumps."""
