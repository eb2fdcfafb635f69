"""The road through the package: imports lead back toward its start, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import darknet_compat

FOLDER = Path(darknet_compat.__file__).parent
# The stations in order; modules of one line may import each other, but not in a circle.
ROAD = [
    {"errors", "files", "output", "memory", "stock"},
    {"cfg", "device", "download", "processes"},
    {"labels", "images", "image_files", "tar_files", "progress", "flow", "sources", "coco", "voc_label"},
    {"tree", "boxes", "anchors"},
    {"layers"},
    {"program", "defaults"},
    {"network"},
    {"weights"},
    {"engines", "export", "evaluate", "fetch"},
    {"detect", "classify", "text", "compat"},
    {"video"},
    {"train"},
    {"new"},
    {"check"},
    {"report"},
    {"cli"},
]
STATION = {name: number for number, names in enumerate(ROAD) for name in names}


def module_of(path: Path) -> tuple[str, ...]:
    """("cfg", "reader") for cfg/reader.py, ("cfg",) for cfg/__init__.py, () for the package's own."""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of the package that a file imports, here and there; not those for the type checker alone."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module[:-1]
    known = {module_of(file) for file in FOLDER.rglob("*.py")}
    found = []

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.ImportFrom) and child.level:
                start = package[: len(package) - child.level + 1] + tuple((child.module or "").split("."))
                start = tuple(part for part in start if part)
                found.extend((*start, name.name) if (*start, name.name) in known else start for name in child.names)
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


FILES = [path for path in sorted(FOLDER.rglob("*.py")) if module_of(path) not in ((), ("__main__",))]


def test_every_file_is_at_a_station():
    assert {module_of(path)[0] for path in FILES} == STATION.keys()


def test_imports_lead_back_toward_the_start():
    wrong = [
        f"{'.'.join(module_of(path))} imports {'.'.join(target)}"
        for path in FILES
        for target in imports(path)
        if target and STATION[target[0]] > STATION[module_of(path)[0]]
    ]
    assert wrong == []


def test_no_circle():
    after = {module_of(path): set(imports(path)) - {module_of(path)} for path in FILES}
    done: set[tuple[str, ...]] = set()

    def visit(module, path):
        assert module not in path, " -> ".join(".".join(one) for one in (*path, module))
        if module in done or module not in after:
            return
        for target in after[module]:
            visit(target, (*path, module))
        done.add(module)

    for module in after:
        visit(module, ())
    assert done == after.keys()


def test_no_file_asks_the_whole_package_for_more_than_its_version():
    """It hands on what has its home further down the road."""
    for path in FILES:
        package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == len(package) + 1 and not node.module:
                assert {name.name for name in node.names} <= {"__version__", *STATION}, path
