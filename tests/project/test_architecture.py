"""Who may import whom: layers of packages, no circles, and what an import costs. ARCHITECTURE.md has the picture."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from import_graph import ROOT, SOURCES, circles, import_graph, modules, package_arrows, package_of, reached

LAYERS = (
    "flowkit._version",
    "flowkit.system_libraries",
    "flowkit.assets",
    "flowkit.errors",
    "flowkit.listing",
    "flowkit.provenance",
    "flowkit.storage",
    "flowkit.execution",
    "flowkit.settings_classes",
    "flowkit.settings_io",
    "flowkit.named_code",
    "flowkit.config",
    "flowkit.labels",
    "flowkit.inputs",
    "flowkit.checking",
    "flowkit.datasets",
    "flowkit.face",
    "flowkit.motion",
    "flowkit.synthetic",
    "flowkit.reports",
    "flowkit.extraction",
    "flowkit.spotting",
    "flowkit.interop",
    "flowkit.bench",
    "flowkit.demo",
    "flowkit.doctor",
    "flowkit.cli",
    "flowkit",
    "flowkit.shards",
    "flowkit.index",
    "fmanet",
)
"""Lowest first: a package imports only what stands before it. Below all of them lies `flowkit_kernels`, which imports no other."""
FOR_FMANET = (
    *(
        "flowkit",
        "flowkit._version",
        "flowkit.errors",
        "flowkit.listing",
        "flowkit.provenance",
        "flowkit.named_code",
        "flowkit.settings_classes",
        "flowkit.settings_io",
    ),
    *("flowkit.system_libraries", "flowkit.storage", "flowkit.execution", "flowkit.labels", "flowkit.reports"),
    *("flowkit.cli", "flowkit.doctor", "flowkit.face"),
)
"""Packages of flowkit that the network may reach, through any number of imports."""
KERNELS_FOR_FMANET = {"flowkit_kernels", "flowkit_kernels.errors", "flowkit_kernels.host"}
"""The root of the error tree, and how many cores there are; both import the standard library alone."""
LARGEST_FOLDER = {"fmanet": 28}
USUAL_FOLDER = 20
LONGEST_MODULE = 450
LONG_MODULES: dict[str, str] = {}
"""Exceptions, each with its reason."""

GRAPH = import_graph()


def packages() -> dict[str, set[str]]:
    arrows: dict[str, set[str]] = {}
    for a, b in package_arrows(GRAPH):
        arrows.setdefault(a, set()).add(b)
    return arrows


def test_every_package_has_its_layer() -> None:
    assert {package_of(module) for module in GRAPH} == {*LAYERS, "flowkit_kernels"}


def test_no_import_leads_up() -> None:
    layer = {"flowkit_kernels": -1} | {name: number for number, name in enumerate(LAYERS)}
    assert [(a, b) for a, b in package_arrows(GRAPH) if layer[b] >= layer[a]] == []


def test_there_is_no_circle_of_modules_or_packages() -> None:
    """Imports within functions and for type checking count."""
    assert circles(GRAPH) == []
    assert circles(packages()) == []


def test_the_network_reaches_neither_kernels_nor_extraction() -> None:
    found = reached(GRAPH, [module for module in GRAPH if package_of(module) == "fmanet"])
    assert {module for module in found if package_of(module) == "flowkit_kernels"} <= KERNELS_FOR_FMANET
    assert {package_of(module) for module in found} <= {"fmanet", "flowkit_kernels", *FOR_FMANET}


def test_no_module_takes_a_private_name_of_another() -> None:
    private = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "flowkit",
                "flowkit_kernels",
                "fmanet",
            ):
                names = [alias.name for alias in node.names]
                private += [f"{name}: {one}" for one in names if one.startswith("_") and one != "__version__"]
    assert private == []


def test_no_folder_and_no_module_is_too_large() -> None:
    folders: dict[Path, int] = {}
    for name, path in modules().items():
        if path.name != "__init__.py":
            folders[path.parent] = folders.get(path.parent, 0) + 1
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LONGEST_MODULE or name in LONG_MODULES, f"{name}: {lines} lines"
    for folder, count in folders.items():
        assert count <= LARGEST_FOLDER.get(folder.name, USUAL_FOLDER), f"{folder.relative_to(ROOT)}: {count} modules"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import flowkit", "cv2 h5py rich numpy numba click flowkit_kernels"),
        ("from flowkit import RunOptions, Summary, Stop", "cv2 h5py rich numba PIL"),
        ("from flowkit import Shard, ShardFolder, Index", "cv2 numba mediapipe av click rich torch PIL"),
        (
            "import flowkit.errors, flowkit.settings_io, flowkit.execution.supervised_pool",
            "cv2 numba mediapipe av click h5py",
        ),
        ("import flowkit.reports.pictures, flowkit.reports.html", "cv2 numba mediapipe av"),
        ("import fmanet", "torch numpy flowkit_kernels cv2 h5py"),
        ("import flowkit.labels.groupings", "torch h5py cv2 numba numpy"),
    ],
)
def test_an_import_costs_what_it_must_and_no_more(code: str, heavy: str) -> None:
    assert imported(code) & set(heavy.split()) == set()


def test_all_of_the_network_loads_no_kernels() -> None:
    names = [module for module in GRAPH if package_of(module) == "fmanet" and not module.endswith(".__main__")]
    found = imported(f"import {', '.join(names)}")
    assert found & {"numba", "cupy", "mediapipe", "cv2", "av"} == set()


def test_flowkit_is_imported_within_a_moment() -> None:
    code = "import time; start = time.perf_counter(); import flowkit; print(time.perf_counter() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.15


def imported(code: str) -> set[str]:
    """Top-level packages that are loaded by some code in a process of its own."""
    return set(run(f"{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})").split())


def run(code: str) -> str:
    lines = textwrap.dedent(f"import sys; sys.path[:0] = {sys.path!r}\n{code}")
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout


PAGES = (ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs" / "design").glob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_on_the_design_names_is_there(page: Path) -> None:
    """Files are named from the root, or from `flowkit/`, `kernels/flowkit_kernels/` or `models/fmanet/`."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    if page.name == "history.md":  # it names what has gone
        return
    roots = (ROOT, *(ROOT / folder for folder in SOURCES.values()), ROOT / "flowkit" / "bench")
    for name in re.findall(r"`((?:[\w-]+/)*[\w*-]+(?:\.(?:py|toml|cu)|/))(?::[^`]*)?`", text):
        if name.startswith(("plan/", "shards/")):  # of an output folder
            continue
        assert any(next(root.glob(name), None) for root in roots) or any(ROOT.glob(f"flowkit/*/{name}")), (
            f"{page.name}: {name}"
        )
