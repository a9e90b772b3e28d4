"""The network where its grid's operator is not the matrix: between sweeps with the matrix itself."""
