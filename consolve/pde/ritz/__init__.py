"""Right-hand sides made of Ritz vectors, the training data of the deep conjugate direction method."""
