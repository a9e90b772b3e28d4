"""What a benchmark process measures of itself: wall-clock time and memory."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


def resident_mb() -> float:
    """Memory of this process that is in RAM now, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB


def give_back_freed() -> None:
    """Return what was freed to the kernel, so that what assembling took does not count as the solver's.

    Does nothing where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def reset_peak() -> bool:
    """Start a new high-water mark of resident memory; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mb() -> float:
    """High-water mark of resident memory since :func:`reset_peak` (else since the start), MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def session_resident_mb(session: int) -> float:
    """Resident memory of all processes of a session, MiB."""
    pages = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session:
            pages += int(fields[21])
    return pages * PAGE / MIB
