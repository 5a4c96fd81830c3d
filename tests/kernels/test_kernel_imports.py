"""What an import of the kernels costs, and that no two of their modules need each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import flowkit_kernels

FOLDER = Path(flowkit_kernels.__file__).parent


def modules_after(code: str) -> set[str]:
    """Names of the modules that a new process has loaded once it has run this code."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_errors_cost_neither_numpy_nor_any_other_module_of_the_package() -> None:
    """The package fmanet takes its errors from here and must not load the kernels for it."""
    loaded = modules_after("import flowkit_kernels.errors; from flowkit_kernels import ShapeError")
    ours = {name for name in loaded if name.partition(".")[0] == "flowkit_kernels"}
    assert ours == {"flowkit_kernels", "flowkit_kernels.errors"}
    assert not {name.partition(".")[0] for name in loaded} & {"numpy", "numba", "cupy"}


def test_numba_is_loaded_by_the_first_call_and_by_no_import() -> None:
    code = "from flowkit_kernels import *; resolve_backend('reference'); import flowkit_kernels.timing"
    heavy = {"numba", "llvmlite", "cupy"}
    assert not {name.partition(".")[0] for name in modules_after(code)} & heavy


def arrows() -> dict[str, set[str]]:
    """Which modules of the package each one imports, late and for its types only as well."""
    paths = {
        ".".join(("flowkit_kernels", *path.relative_to(FOLDER).with_suffix("").parts)): path
        for path in FOLDER.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(paths)
                found[name] |= inner or {node.module} & set(paths)
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & set(paths)
    return found


def test_no_module_imports_one_that_imports_it_in_turn() -> None:
    left = arrows()
    assert "flowkit_kernels.params" in left["flowkit_kernels.operations"]
    while done := [name for name, needed in left.items() if not needed & set(left)]:
        for name in done:
            del left[name]
    assert not left, "these need each other, or something in such a circle"
