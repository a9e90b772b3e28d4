"""Files of trained weights, and the shipped ones."""
