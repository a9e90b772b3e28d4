"""The 2D wave equation: problems, finite elements, leap-frog on grids, data sets."""
