"""Which module of the library imports which: read from the source, imports within functions and for type checking included.

    python tests/import_graph.py [ROOT]

prints how many packages, modules and arrows there are, and which circles. A package's `__init__` that hands names on lazily
imports nothing by itself: what it imports in functions or for type checking is no arrow.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {"flowkit_kernels": "kernels/flowkit_kernels", "flowkit": "flowkit", "fmanet": "models/fmanet"}
"""Each top-level package and its folder, lowest first."""

Graph = Mapping[str, frozenset[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the library by its dotted name; a package stands for its `__init__`."""
    found = {}
    for package, folder in SOURCES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = (package, *path.relative_to(root / folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def import_graph(root: Path = ROOT) -> dict[str, frozenset[str]]:
    """Each module with the modules of the library that it names in an import."""
    known = modules(root)
    return {name: frozenset(_imported(name, path, known.keys())) for name, path in known.items()}


def package_of(module: str) -> str:
    """The package that a module lies in; a module at the top of `flowkit` stands for itself, and so does each top-level package."""
    top, *rest = module.split(".")
    if top != "flowkit" or not rest:
        return top
    return f"{top}.{rest[0]}"


def package_arrows(graph: Graph) -> set[tuple[str, str]]:
    """Pairs of different packages of which the first imports from the second."""
    arrows = {(package_of(a), package_of(b)) for a, imported in graph.items() for b in imported}
    return {(a, b) for a, b in arrows if a != b}


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes each of which leads to each other (Tarjan, 1972), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or node in arrows.get(node, ()):
                found.append(sorted(group))

    for node in arrows:
        if node not in index:
            visit(node)
    return sorted(found)


def reached(graph: Graph, start: Iterable[str]) -> set[str]:
    """All modules that these lead to, themselves included; a module also runs the `__init__` of the packages it lies in."""
    todo, found = list(start), set()
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += [*graph.get(module, ()), *([module.rpartition(".")[0]] if "." in module else [])]
    return found


def _imported(name: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    package = path.name == "__init__.py"
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), late=not package):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: len(name.split(".")) - node.level + package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                if full in known or base in known:
                    yield full if full in known else base


def _nodes(node: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    """All nodes; without `late` only those that are carried out at the import."""
    for child in ast.iter_child_nodes(node):
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if late or not (checking or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))):
            yield child
            yield from _nodes(child, late=late)


def figures(root: Path) -> Iterator[str]:
    """Yield lines for people on the graph of a tree."""
    graph = import_graph(root)
    arrows = package_arrows(graph)
    by_package: dict[str, set[str]] = {}
    for a, b in arrows:
        by_package.setdefault(a, set()).add(b)
    yield f"{len({package_of(name) for name in graph})} packages, with the modules at the top of flowkit"
    yield f"{len(graph)} modules, {sum(map(len, graph.values()))} arrows between them; {len(arrows)} arrows between packages"
    for title, found in (("modules", circles(graph)), ("packages", circles(by_package))):
        yield f"circles of {title}: {len(found)}"
        yield from (f"  {', '.join(group)}" for group in found)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
