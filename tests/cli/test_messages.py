"""An option that a message names exists in every command that can show the message.

What a command can show is found in the source: from its function on, every function, class and constant that is referred to, over
all modules, also from within another. So it is rather too much than too little; a message that holds for any command, and for
callers from Python, names the setting (`frames.nearest`) in place of an option, or the command that has it (`flowkit extract`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

import flowkit.cli
import fmanet.cli

ROOT = Path(__file__).parents[2]
SOURCES = {
    "flowkit": ROOT / "flowkit",
    "flowkit_kernels": ROOT / "kernels/flowkit_kernels",
    "fmanet": ROOT / "models/fmanet",
}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
COMMAND = re.compile(r"\b(flowkit|fmanet)((?: [a-z]+)+)")
OTHER_PROGRAMS = {
    "sbatch": {"--array"},
    "dask scheduler": {"--scheduler-file"},
    "docker run": {"--gpus"},
    "pip install": {"--force-reinstall"},
    "pip uninstall": {"--force-reinstall", "--no-deps"},
}
"""Options of others, which a text may name together with the program."""
COMMAND_LINES = {
    ("flowkit.datasets.next_steps", "next_commands"): "tests/datasets/test_manifest_command.py runs what it prints",
    ("flowkit.demo", "make_demo"): "tests/cli/test_demo.py runs what it prints",
    ("flowkit.demo", "next_steps"): "tests/cli/test_demo.py runs what it prints",
    ("flowkit.doctor.gpu", "_nvidia_driver"): "nvidia-smi's",
    ("flowkit.reports.shard_report", "_failures"): "of the command that made the shards, as the sentence says",
    ("flowkit_kernels.cuda.device", "OPTIONS"): "NVRTC's",
}
"""Functions whose options belong to a command line, not to a sentence, and who sees that it is right."""
CARRY_OUT = {
    "flowkit demo": ("flowkit synth", "flowkit extract", "flowkit inspect"),
    "flowkit bench": ("flowkit synth", "flowkit extract"),
}
"""Commands that carry out others, and say so first."""
BACKENDS = (
    "flowkit_kernels.cuda.operations",
    "flowkit_kernels.numba_cuda.operations",
    "flowkit_kernels.cpu.operations",
    "flowkit_kernels.reference",
)
"""Modules that are imported by a name that only the running program knows."""
STYLE_SHEET = "var(--"

Node = tuple[str, str]
"""A module, and a name at its top level."""


@dataclass
class Module:
    """The top level of a module: what its names stand for, and what it imports."""

    name: str
    names: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, path: Path) -> Module:
        module = cls(name)
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            module.imports |= imported(statement, deep=isinstance(statement, (ast.If, ast.Try)))
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                module.names.setdefault(statement.name, []).append(statement)
            elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for target in (node for one in targets for node in ast.walk(one)):
                    if isinstance(target, ast.Name):
                        module.names.setdefault(target.id, []).append(statement)
        return module


def imported(statement: ast.AST, *, deep: bool) -> dict[str, tuple[str, str]]:
    """What import statements bind: a name to (module, name in it), or to (module, "") for a module as a whole."""
    found = {}
    for node in ast.walk(statement) if deep else (statement,):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found


def modules() -> dict[str, Module]:
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            name = ".".join(part for part in parts if part != "__init__")
            found[name] = Module.parse(name, path)
    return found


MODULES = modules()


DYNAMIC = {
    ("flowkit.doctor.examination", "_face_landmarker"): [("flowkit.face.landmarks", "FaceLandmarker")],
    ("flowkit_kernels.backend", "load_operations"): [(name, "*") for name in BACKENDS],
}
"""What is reached by such a name; a star stands for all that a module has."""


def resolve(target: tuple[str, str]) -> Node | str | None:
    """What an import leads to: a name at a module's top level, a module, or nothing of ours."""
    module, name = target
    if not name:
        return module if module in MODULES else None
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    if module not in MODULES:
        return None
    if name in MODULES[module].names:
        return module, name
    return resolve(MODULES[module].imports[name]) if name in MODULES[module].imports else None


def used_names(node: ast.AST, bound: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Names that are read and not bound by a function around them, each with the attribute that is taken of it, if any.

    Type annotations call nothing and are passed over.
    """
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        arguments = (node.args.posonlyargs, node.args.args, node.args.kwonlyargs, [node.args.vararg, node.args.kwarg])
        bound |= {argument.arg for group in arguments for argument in group if argument is not None}
        bound |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name, attribute = node.value.id, node.attr
    else:
        name, attribute = (node.id, "") if isinstance(node, ast.Name) else ("", "")
    if name and name not in bound:
        yield name, attribute
    for field_name, value in ast.iter_fields(node):
        if field_name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from used_names(child, bound)


def references(node: Node) -> set[Node]:
    """Names at the top level of our modules that one of them refers to."""
    module = MODULES[node[0]]
    if node[1] == "*":
        targets = (resolve((module.name, name)) for name in {**module.names, **module.imports})
        return {target for target in targets if isinstance(target, tuple)}
    found: set[Node] = set(DYNAMIC.get(node, ()))
    for statement in module.names[node[1]]:
        local = imported(statement, deep=True)

        def meaning(name: str, local: dict[str, tuple[str, str]] = local) -> Node | str | None:
            if name in local:
                return resolve(local[name])
            if name in module.names:
                return module.name, name
            return resolve(module.imports[name]) if name in module.imports else None

        for name, attribute in used_names(statement):
            target = meaning(name)
            if isinstance(target, str):
                target = resolve((target, attribute)) if attribute else None
            if isinstance(target, tuple):
                found.add(target)
    return found


def reached(start: Node) -> set[Node]:
    """All that is referred to from there on."""
    found, waiting = {start}, [start]
    while waiting:
        new = references(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def texts(node: Node, *, with_docstring: bool) -> Iterator[str]:
    """The string literals of a definition, those with values in them as a whole."""
    for statement in MODULES[node[0]].names.get(node[1], ()):
        docstrings = set() if with_docstring else {id(doc) for doc in docstrings_of(statement)}
        inside = {id(part) for one in ast.walk(statement) if isinstance(one, ast.JoinedStr) for part in one.values}
        for part in ast.walk(statement):
            if isinstance(part, ast.JoinedStr):
                yield "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in part.values)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in docstrings | inside:
                yield part.value


def docstrings_of(statement: ast.AST) -> Iterator[ast.Constant]:
    """Texts that stand as statements: documentation."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command of a program, by the words that call it."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(commands(flowkit.cli.main, "flowkit")) | dict(commands(fmanet.cli.main, "fmanet"))
OPTIONS = {
    name: {"--help", "--version", *(option for one in command.params for option in (*one.opts, *one.secondary_opts))}
    for name, command in COMMANDS.items()
}


def named_commands(text: str) -> set[str]:
    """Commands that a text calls by their words, such as `flowkit import stst`."""
    found = set()
    for program, words in COMMAND.findall(text):
        parts = words.split()
        found |= {name for n in (1, 2) if (name := " ".join([program, *parts[:n]])) in COMMANDS}
    return found


def misleading(name: str) -> list[str]:
    """Texts that a command can show and that name an option which it has not."""
    callback = COMMANDS[name].callback
    assert callback is not None
    start = (callback.__module__, callback.__name__)
    own = OPTIONS[name].union(*(OPTIONS[other] for other in CARRY_OUT.get(name, ())))
    found = []
    for node in sorted(reached(start) | reached(("flowkit.cli.common", "Commands"))):
        for text in texts(node, with_docstring=node == start):
            if node in COMMAND_LINES or STYLE_SHEET in text:
                continue
            others = (options for program, options in OTHER_PROGRAMS.items() if program in text)
            known = own.union(*(OPTIONS[other] for other in named_commands(text)), *others)
            if absent := sorted(set(OPTION.findall(text)) - known):
                found.append(f"{'.'.join(node)}: {' '.join(absent)}: {text:.200}")
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_no_option_that_it_does_not_have(name: str) -> None:
    assert misleading(name) == []


def test_every_exception_is_still_needed() -> None:
    """An entry whose function has gone, or names no option any more, would hide the next one of that name."""
    for module, name in (*COMMAND_LINES, *DYNAMIC):
        assert name in MODULES[module].names, (module, name)
    for node in COMMAND_LINES:
        assert any(OPTION.search(text) for text in texts(node, with_docstring=False)), node


def test_what_a_command_reaches_is_found_through_calls_imports_and_other_processes() -> None:
    """Were the search blind, the test above could not fail."""
    found = reached(("flowkit.cli.extraction", "extract_command"))
    assert {
        ("flowkit.extraction.pipeline", "_Run"),  # imported in the function, under another name
        ("flowkit.storage.commit", "discard"),  # an attribute of a module
        ("flowkit.inputs.frame_numbers", "choose_number"),  # in a worker process, through a handler
        ("flowkit.face.registration", "_check_usable"),
        ("flowkit_kernels.cpu.operations", "tvl1_flow")
        if "tvl1_flow" in MODULES["flowkit_kernels.cpu.operations"].names
        else ("flowkit.motion.flow", "solve"),
    } <= found
    assert ("flowkit.extraction.spot_manifest", "complete") not in found
    assert ("flowkit.inputs.frame_numbers", "choose_number") not in reached(("flowkit.cli.shards", "inspect_command"))
    assert named_commands("Run flowkit import stst again, or fmanet train.") == {"flowkit import stst", "fmanet train"}
