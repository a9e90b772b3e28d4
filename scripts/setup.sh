#!/usr/bin/env bash
# Makes the virtual environment of this checkout: system packages, Python packages, consolve itself.
#
#   PYTHON   interpreter to build on (default /usr/bin/python3); give the one that has your own petsc4py
#   VENV     where the environment goes (default .venv)
#   TORCH    requirement for torch (default torch==2.13.0; empty: no torch, so no training)
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
TORCH=${TORCH-torch==2.13.0}
own_python=${PYTHON:-}
PYTHON=${PYTHON:-/usr/bin/python3}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

debian_packages=(
    python3-venv python3-pip python3-petsc4py-real python3-mpi4py openmpi-bin
    python3-dolfinx-real python3-h5py
    gcc g++ pkg-config libpython3-dev # the plugin and example programs; PETSc's headers come with dolfinx
)

install_debian_packages() {
    local missing=() package
    for package in "${debian_packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed \
            || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing and there is no sudo to install them:
    ${missing[*]}
Install them as root, or use a Python that has petsc4py: make setup PYTHON=/path/to/python"
        as_root=(sudo)
    fi
    say "installing Debian packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        "${missing[@]}"
}

if [ -z "$own_python" ] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_debian_packages
fi
command -v "$PYTHON" >/dev/null || die "no Python at '$PYTHON'; give one: make setup PYTHON=/path/to/python"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$PYTHON is older than Python 3.10"
"$PYTHON" -c 'import petsc4py' 2>/dev/null || die "$PYTHON has no petsc4py.
On Debian or Ubuntu:  apt-get install ${debian_packages[*]}
With conda:           conda env create -f environment.yml; conda activate consolve
With your own PETSc:  PETSC_DIR=... PETSC_ARCH=... $PYTHON -m pip install petsc4py==YOUR.PETSC.VERSION
Then:                 make setup PYTHON=/path/to/that/python"

say "virtual environment in $VENV, on $PYTHON"
"$PYTHON" -m venv --system-site-packages "$VENV"

# PETSc, MPI and HDF5 bindings of the system stay: their PyPI builds bring libraries of their own, which
# crash beside the system's in one process.  Debian's h5py is recorded under a name that pip does not
# know, so these requirements are taken off the list here when the modules are there.
requirements=$("$VENV/bin/python" - <<'PY'
import importlib.util
import re

try:
    import tomllib
except ModuleNotFoundError:
    from pip._vendor import tomli as tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["test"], *extras["dev"]]:
    name = re.match(r"[\w.-]+", requirement).group()
    if name == "consolve" or (name == "h5py" and importlib.util.find_spec("h5py")):
        continue
    print(requirement)
PY
)

# petsc4py built against NumPy 1, as Debian 12's is, cannot be imported beside NumPy 2.
if "$PYTHON" -c 'import sys, numpy; sys.exit(int(numpy.__version__.split(".")[0]) >= 2)' 2>/dev/null; then
    constraint='numpy<2'
else
    constraint=''
fi
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
printf '%s\n' "$constraint" > "$constraints"

say "Python packages"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
mapfile -t wanted <<< "$requirements"
"${pip[@]}" install -q -c "$constraints" "${wanted[@]}" ${TORCH:+"$TORCH"}
"${pip[@]}" install -q --no-deps --no-build-isolation -e .

"$VENV/bin/python" - <<'PY' || die "the environment is there, but PETSc does not start in it (see above)"
import h5py, numba, numpy, petsc4py.PETSc as P, scipy  # noqa: F401
version = ".".join(map(str, P.Sys.getVersion()))
print(f"setup: PETSc {version}, NumPy {numpy.__version__}, Numba {numba.__version__}, h5py {h5py.__version__}")
PY
say "compiling kernels"
"$VENV/bin/consolve" compile > /dev/null || die "kernels do not compile (see above)"
touch "$VENV/.ready"
