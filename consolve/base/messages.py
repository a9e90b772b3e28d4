"""Lines for whoever runs the program that solves, which may be a compiled one."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_PACKAGE = __name__.partition(".")[0]
_OURS = (_PACKAGE, "importlib", "")
"""Modules that are no program's: the plugin's first code has no name."""
_warned: set[str] = set()


def say(text: str) -> None:
    """Print whole lines to stderr at once, so that those of several ranks do not run together."""
    sys.stderr.write(f"{_PACKAGE}: {text}\n")
    sys.stderr.flush()


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn the program that solves: at its own line if it is in Python, else by one line on stderr."""
    frame: FrameType | None = sys._getframe().f_back
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame = frame.f_back
    if frame is not None:
        where = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(text, category, *where, registry)
    elif text not in _warned:
        _warned.add(text)
        say(f"warning: {text}")
