"""The V-cycle: how levels lie in memory, and its passes."""
