"""What it takes to start this Python inside another program; run as a script, it prints that.

The plugin runs this text in the Python that CONSOLVE_PYTHON names, so it imports the standard library only.
"""

import sys

if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path]  # the working directory may hold a sysconfig.py

import os
import sysconfig


def version():
    """Such as 3.11."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def shared_library():
    """Path of the shared libpython of this interpreter; "" if there is none."""
    get = sysconfig.get_config_var
    names = [
        get("INSTSONAME"),
        get("LDLIBRARY"),
        f"libpython{version()}{getattr(sys, 'abiflags', '')}.so.1.0",
    ]
    folders = [get("LIBDIR"), os.path.join(get("LIBDIR") or "", get("MULTIARCH") or "")]
    folders += [os.path.join(sys.base_prefix, "lib"), os.path.join(sys.base_exec_prefix, "lib"), get("LIBPL")]
    for folder in folders:
        for name in names:
            if folder and name and ".so" in name and os.path.isfile(os.path.join(folder, name)):
                return os.path.join(folder, name)
    return ""


if __name__ == "__main__":
    print(sys.executable, version(), shared_library(), sep="\n")
