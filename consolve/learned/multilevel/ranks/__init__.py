"""The network on several ranks and on periodic grids."""
