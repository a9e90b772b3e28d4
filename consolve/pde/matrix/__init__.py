"""From the entries of a matrix to a grid operator: where its rows lie and what they couple."""
