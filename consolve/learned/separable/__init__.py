"""Convolutions with kernels of one-way filters: compression, layers, Numba kernels."""
