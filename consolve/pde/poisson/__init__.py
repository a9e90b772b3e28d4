"""Discrete Poisson operators on structured grids: cells, coefficients, domains, right-hand sides."""
