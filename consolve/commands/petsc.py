"""PETSc's options on our command line."""

from __future__ import annotations

import signal

GLOBAL = ("log_", "info", "options_", "malloc", "memory_", "on_error_", "mat_", "vec_", "python")
"""Beginnings of options that PETSc reads for the whole process, not for one solver."""


def start_petsc(words: list[str]) -> list[str]:
    """Start PETSc with the options of the whole process; returns those meant for a solver."""
    for_process, for_solver = _split(words)
    import petsc4py

    petsc4py.init(["consolve", *for_process])
    # PETSc would take a reader that has gone, as of a pipe into head, for a crash.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return for_solver


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    parts: tuple[list[str], list[str]] = ([], [])
    chosen = parts[1]
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit() and word[1:2] != ".":
            chosen = parts[0] if word[1:].startswith(GLOBAL) else parts[1]
        chosen.append(word)
    return parts
