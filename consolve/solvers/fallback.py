"""PETSc's own preconditioner in the place of PC ``cnn``, where no engine of it serves a matrix."""

from __future__ import annotations

from consolve.base.errors import OptionError
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.petsc.versions import PETSc

PREFIX = "cnn_fallback_"


class Fallback:
    """z = M r by a PC of PETSc, which takes options under the outer PC's prefix and ``cnn_fallback_``.

    Parameters
    ----------
    outer
        PC ``cnn``, with its operators.
    name
        Type of the inner PC, such as ``hypre``.
    components
        Closed components of the operator: r and z lose their means over each.

    Raises
    ------
    OptionError
        If this PETSc has no such PC.
    """

    def __init__(self, outer: PETSc.PC, name: str, components: ClosedComponents) -> None:
        self.pc = PETSc.PC().create(outer.comm)
        self._components = components
        self._source: PETSc.Vec | None = None
        try:
            self.pc.setOperators(*outer.getOperators())
            self.pc.setOptionsPrefix((outer.getOptionsPrefix() or "") + PREFIX)
            try:
                self.pc.setType(name)
            except PETSc.Error:
                text = f"-pc_cnn_fallback {name}: this PETSc was built without it; gamg is always there"
                raise OptionError(text) from None
            self.pc.setFromOptions()
            self.pc.setUp()
        except BaseException:
            self.destroy()
            raise

    def apply(self, r: PETSc.Vec, z: PETSc.Vec, transposed: bool = False) -> None:
        """z = M r, or M^T r; collective."""
        if self._components:
            if self._source is None:
                self._source = r.duplicate()
            self._components.remove(r.array_r, self._source.array_w)
            r = self._source
        if transposed:
            self.pc.applyTranspose(r, z)
        else:
            self.pc.apply(r, z)
        if self._components:
            target = z.array
            self._components.remove(target, target)

    def destroy(self) -> None:
        """Give up what PETSc holds for us."""
        for held in (self.pc, self._source):
            if held is not None:
                held.destroy()
        self._source = None
