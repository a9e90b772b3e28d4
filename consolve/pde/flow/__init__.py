"""Incompressible flow with a pressure projection, its scenes and pictures."""
