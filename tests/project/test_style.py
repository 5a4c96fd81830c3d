"""The house rules that a machine can hold: which packages are imported, how long a function is, what library code never does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "flowkit_kernels": ROOT / "kernels" / "flowkit_kernels",
    "flowkit": ROOT / "flowkit",
    "fmanet": ROOT / "models" / "fmanet",
}
MODULES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
NEVER = {
    "flowkit_kernels": {"flowkit", "fmanet", "h5py", "click", "cv2", "mediapipe", "torch"},
    "flowkit": {"fmanet", "torch"},
    "fmanet": {"flowkit_kernels", "cupy", "numba", "mediapipe"},
}
LAZY = {
    "flowkit_kernels": {"cupy", "numba_cuda"},
    "flowkit": {"mediapipe", "openpyxl", "dask", "distributed", "hdf5plugin", "av"},
    "fmanet": {"onnx", "onnxscript", "onnxruntime"},
}
IMPORTED_LATE = (
    PACKAGES["flowkit_kernels"] / "cuda",
    PACKAGES["flowkit_kernels"] / "numba_cuda",
    PACKAGES["flowkit"] / "execution" / "dask_worker.py",
)
"""Imported when a GPU backend is called, or a cluster, so these may import their packages as they please."""
LONGEST_FUNCTION = 45
LONG_FUNCTIONS: dict[str, str] = {}
"""Exceptions to the limit, each with its reason."""


def package_of(path: Path) -> str:
    return next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(nodes):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


def top_level_imports(tree: ast.Module) -> set[str]:
    return set().union(
        *(imports(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.Try)))
    )


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package, tree = package_of(path), tree_of(path)
    everything = imports(tree)
    assert not {name.split(".")[0] for name in everything} & NEVER[package]
    if not any(path.is_relative_to(late) for late in IMPORTED_LATE):
        assert not {name.split(".")[0] for name in top_level_imports(tree)} & LAZY[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_code_is_short_and_says_nothing_by_itself(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{path.relative_to(ROOT)}:{node.name}"
            assert code_lines(node) <= LONGEST_FUNCTION or name in LONG_FUNCTIONS, name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path}:{node.lineno}: print"
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert in library code"


def test_no_dependency_brings_in_the_other_opencv() -> None:
    """opencv-python overwrites opencv-contrib-python and removes cv2.optflow without a word."""
    import importlib.metadata

    installed = {(d.metadata["Name"] or "").lower() for d in importlib.metadata.distributions()}
    assert not installed & {"opencv-python", "opencv-python-headless"}
    import cv2

    assert hasattr(cv2.optflow, "DualTVL1OpticalFlow_create")
