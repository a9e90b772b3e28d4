"""PETSc itself: versions, registration, options, events, ranks."""
