"""How much memory there is, and the refusal of work that needs more, before anything is allocated."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
SMALLER = "take a smaller grid, or a machine with more memory"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class NotEnoughMemory(RuntimeError):
    """Work that does not fit into the memory there is; nothing of it was allocated."""


def require(needed: float, what: str, advice: str = SMALLER) -> None:
    """Refuse what cannot fit.

    Parameters
    ----------
    needed
        Bytes that the work takes at least.  It should count only what certainly is allocated at one time:
        work that would have fitted must never be refused.
    what
        The work, as the subject of "needs ... bytes".
    advice
        What to do about it.

    Raises
    ------
    NotEnoughMemory
        If ``needed`` is over what is available, swap included; the text names both.
    """
    if needed < 64 * MIB:
        return  # not worth asking the kernel
    there_is = available(swap=True)
    if needed > there_is:
        raise NotEnoughMemory(
            f"{what} needs at least {needed:,.0f} bytes ({needed / GIB:.2f} GiB) of memory, {there_is:,} "
            f"({there_is / GIB:.2f} GiB) are available: {advice}"
        )


def available(swap: bool = False) -> int:
    """Bytes of memory that this process can still take, all limits considered.

    The least of what the machine has left (without swapping, or with all of the free ``swap``), what each
    control group of the process has left (versions 1 and 2, its parents included), and what the limit of
    the address space (``ulimit -v``) leaves.
    """
    return max(0, min(_of_machine(swap), *_of_control_groups(), _of_address_space()))


def _of_machine(swap: bool) -> int:
    try:
        fields = _fields(Path("/proc/meminfo").read_text().replace("kB", "").replace(":", ""))
        return 1024 * (fields["MemAvailable"] + (fields["SwapFree"] if swap else 0))
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_control_groups(root: Path = _CONTROL_GROUPS, process: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group with a limit has left; files of the page cache that it can drop are free."""
    left = []
    for folder, limit, usage, cache in _control_groups(root, process):
        try:
            most = int((folder / limit).read_text())  # version 2 says "max" where there is no limit
            used = int((folder / usage).read_text())
            droppable = _fields((folder / "memory.stat").read_text()).get(cache, 0)
        except (OSError, ValueError):
            continue
        left.append(most - used + droppable)
    return left


def _control_groups(root: Path, process: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the memory controller from the process's group up to the root, and names of their files."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be one of the host's: then only the root of the mount is there.
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder, *names
            if folder == base:
                break


def _of_address_space() -> int:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return 1 << 62
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        taken = 0
    return limit - taken


def _fields(text: str) -> dict[str, int]:
    """Lines of a name and a whole number; others are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
