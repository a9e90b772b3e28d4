"""The network on one rank: as a preconditioner, and the iteration in grid space."""
