"""Matrices whose rows are points of a mesh: finite elements on triangles, tetrahedra and the like."""
