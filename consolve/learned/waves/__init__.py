"""Surrogates of wave simulations: networks, training, inference in Numba, forecasts."""
