"""The rooms of the package: layers point one way, nothing goes in circles, no folder is crowded."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("moved", "base", "pde", "learned", "solvers", "api", "bench", "plugin", "commands", "cli")
"""Each may import those before it, and itself."""
MOST_MODULES, MOST_FOLDERS = 20, 3


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in sorted((root / "consolve").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        names[name.removesuffix(".__init__")] = path
    return names


def imported(name: str, path: Path, names: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that one imports: anywhere in it, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (x for x in (full if full in names else str(node.module),) if x in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "find_spec"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and a.value in names)


def graph(root: Path) -> set[tuple[str, str]]:
    """Pairs (importer, imported).  The package's own ``__init__`` stands above all: it hands out the front
    doors when they are asked for."""
    names = modules(root)
    pairs = {(name, other) for name, path in names.items() for other in imported(name, path, names)}
    return {(a, b) for a, b in pairs if a != b and a != "consolve"}


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Nodes that depend on each other in a circle; none if there is no circle."""
    after = defaultdict(set)
    for a, b in pairs:
        after[a].add(b)
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        for other in sorted(after[node]):
            found = search(other, [*way, node])
            if found:
                return found
        done.add(node)
        return []

    for start in sorted(after):
        found = search(start, [])
        if found:
            return found
    return []


def folder(name: str, names: dict[str, Path]) -> str:
    return name if names[name].name == "__init__.py" else name.rpartition(".")[0]


def faults(root: Path) -> list[str]:
    """What is wrong with the house, in words."""
    names, pairs = modules(root), graph(root)
    found = []
    files = circle(pairs)
    if files:
        found.append(f"files import each other: {' -> '.join(files)}")
    folders = circle(
        (a, b) for a, b in ((folder(a, names), folder(b, names)) for a, b in pairs) if a != b
    )  # fmt: skip
    if folders:
        found.append(f"folders import each other: {' -> '.join(folders)}")
    for a, b in sorted(pairs):
        layers = [x.split(".")[1] for x in (a, b) if "." in x]
        if b == "consolve":
            found.append(f"{a} imports the package itself")
        elif "__main__" not in layers and LAYERS.index(layers[0]) < LAYERS.index(layers[1]):
            found.append(f"{a} imports {b}, of a layer above it")
    crowds = defaultdict(int)
    for name in names:
        crowds[folder(name, names)] += 1
    for name, count in crowds.items():
        if count > MOST_MODULES:
            found.append(f"{name} has {count} modules")
        if name.count(".") > MOST_FOLDERS:
            found.append(f"{name} is deeper than {MOST_FOLDERS} folders")
    return found


def test_the_house_is_in_order():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    "file, line, fault",
    [
        ("base/files.py", "import consolve.cli", "base.files imports consolve.cli, of a layer above"),
        ("base/files.py", "import consolve", "base.files imports the package itself"),
        ("pde/a.py", "def f():\n    from consolve.pde.b import x", "files import each other"),
        (
            "pde/a.py",
            "import importlib\nimportlib.import_module('consolve.pde.b')",
            "files import each other",
        ),
        ("pde/x/one.py", "from consolve.pde.y import two", "folders import each other"),
        ("pde/u/v/w/q.py", "", "deeper"),
    ],
)
def test_a_fault_is_found(tmp_path, file, line, fault):
    """Broken on purpose."""
    for name, text in {
        "__init__.py": "",
        "cli.py": "",
        "base/__init__.py": "",
        "pde/__init__.py": "",
        "pde/b.py": "from consolve.pde import a",
        "pde/a.py": "",
        "pde/x/one.py": "",
        "pde/x/three.py": "",
        "pde/y/two.py": "",
        "pde/y/four.py": "from consolve.pde.x import three",
        file: line,
    }.items():
        path = tmp_path / "consolve" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in list((tmp_path / "consolve").rglob("*.py")):
        (path.parent / "__init__.py").touch()
    assert any(fault in found for found in faults(tmp_path)), faults(tmp_path)


def test_a_crowded_folder_is_found(tmp_path):
    crowd = tmp_path / "consolve" / "pde"
    crowd.mkdir(parents=True)
    for name in ("__init__", *(f"module_{n}" for n in range(MOST_MODULES))):
        (crowd / f"{name}.py").touch()
    assert [f for f in faults(tmp_path) if "modules" in f]
    (crowd / "module_0.py").unlink()
    assert faults(tmp_path) == []
