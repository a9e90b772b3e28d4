"""The multilevel network: one V-cycle whose numbers are seen from the geometry."""
