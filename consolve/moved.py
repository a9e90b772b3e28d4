"""Old addresses of modules: those that documentation named before the modules moved.

They go on working, with a FutureWarning that names the new one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

MODULES = {
    "errors": "base.errors",
    "solvers.errors": "base.errors",
    "pde.grid": "pde.poisson.grid",
    "pde.domains": "pde.poisson.domains",
    "pde.right_hand_sides": "pde.poisson.right_hand_sides",
    "pde.bodies": "pde.flow.bodies",
    "pde.scenes": "pde.flow.scenes",
    "pde.flow_output": "pde.flow.output",
    "pde.flow_picture": "pde.flow.picture",
    "pde.voxelise": "pde.flow.voxelise",
    "pde.ritz_data": "pde.ritz.data",
    **{
        f"pde.wave_{name}": f"pde.waves.{name}"
        for name in ("batch", "data", "grid", "leapfrog", "mesh", "picture", "problem", "sampling")
    },
    "pde.wave_dolfinx": "pde.waves.finite_elements",
    "pde.wave_zone": "pde.waves.zone.zone",
    "pde.wave_zone_run": "pde.waves.zone.leapfrog",
    "pde.wave_submodel": "pde.waves.zone.finite_elements",
    "learned.dcdm_weights": "learned.dcdm.format",
    "learned.wave_weights": "learned.waves.format",
    "learned.wave_inference": "learned.waves.propagator_inference",
    "learned.wave_generator_inference": "learned.waves.generator_inference",
    "learned.wave_forecast": "learned.waves.forecast",
    "learned.compression": "learned.separable.compression",
    "learned.muon": "learned.training.muon",
}
"""A module now, and a module before."""

PACKAGES = {
    "pde.flow": ("pde.flow.flow",),
    "learned.weights": ("learned.multilevel.format", "learned.weights.file"),
    "learned.multilevel": ("learned.multilevel.engine.preconditioner",),
    "learned.separable": ("learned.separable.layers",),
}
"""A package now, a module before: where its names are."""

_ROOT = "consolve."


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_ROOT):
            return None
        name = fullname.removeprefix(_ROOT)
        if name in MODULES:
            return spec_from_loader(fullname, _Moved(_ROOT + MODULES[name]))
        if name in PACKAGES:
            spec = PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Grown(spec.loader, [_ROOT + place for place in PACKAGES[name]])
            return spec
        return None


class _Moved(Loader):
    """Hands out the module at its new address."""

    def __init__(self, place: str) -> None:
        self._place = place

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(spec.name, self._place)
        module = import_module(self._place)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Grown(Loader):
    """Loads a package that also knows the names of the module that it was."""

    def __init__(self, loader: Any, places: Sequence[str]) -> None:
        self._loader, self._places = loader, places

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)

        def __getattr__(name: str) -> Any:
            own = name.startswith("_") or find_spec(f"{module.__name__}.{name}") is not None
            for place in () if own else self._places:
                found = getattr(import_module(place), name, None)
                if found is not None:
                    _warn(f"{module.__name__}.{name}", f"{place}.{name}")
                    return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = __getattr__  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:  # resources, source text
        return getattr(self._loader, name)


def _warn(before: str, now: str) -> None:
    warnings.warn(f"{before} has moved to {now}", FutureWarning, stacklevel=3)


if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
