"""From an operator to the levels of a cycle."""
