"""The model card of a run that trained on everybody: on whom, for which shards, how to use it, and that it has no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit._version import __version__
from flowkit.labels.action_units import are_action_units
from flowkit.storage import durable_files
from fmanet import run_folder
from fmanet.checkpoint import read_side
from fmanet.results import require_records

UNITS = {
    "px": "in pixels of the crop",
    "minmax": "in units of min-max scaled pictures",
}


def write_card(run: Path) -> Path:
    """Write README.md into the folder of a run that held out nobody, and return where it is.

    Parameters
    ----------
    run : Path

    Raises
    ------
    ConfigError, FoldsMissing, ShardCorrupt, DiskFull
    """
    facts, settings, plan = run_folder.open_run(run)
    records = require_records(run, facts, plan)
    sides = [read_side(run_folder.record_path(run, plan, member)) for member in records]
    path = run / run_folder.CARD_FILE
    durable_files.replace_file(path, _card(facts, settings.network.network, sides).encode())
    return path


def _card(facts: Mapping[str, Any], network: str, records: Sequence[Mapping[str, Any]]) -> str:
    clips = facts["clips"]
    people = Counter(subject.partition("/")[0] for subject in clips["subjects"])
    start = facts["settings"]["train"]["start"]
    weights = [
        f"- `{one['weights']['name']}`, seed {one['seed']}, SHA-256 `{one['weights']['sha256']}`" for one in records
    ]
    lines = [
        f"# {network}, trained on everybody",
        "",
        f"{_answers(clips['classes'])} (grouping `{facts['settings']['classes']}`).",
        "",
        "## On whom",
        "",
        f"{clips['count']} clips of {len(clips['subjects'])} subjects: "
        f"{', '.join(f'{count} of {name}' for name, count in sorted(people.items()))}.",
        "",
        *(f"- {name}: {', '.join(own)}" for name, own in _by_dataset(clips["subjects"]).items()),
        "",
        "Nobody was held out, so this network has no score of its own, and what it says of these subjects means nothing. For an "
        "estimate, hold each subject out once, with the same settings: `fmanet train` as below, but not final.",
        "",
        "## What it fits",
        "",
        f"Shards whose flow is {UNITS.get(clips['units'], clips['units'])}, aligned as those that it was trained on; others are "
        "refused.",
        "",
        "## How to use it",
        "",
        "    fmanet predict MODEL shards --out answers.csv",
        "    fmanet export MODEL --out onnx",
        "",
        "MODEL is this folder. Do not use it for decisions about people.",
        "",
        "## How it was made",
        "",
        f"`fmanet train ... --final`, flowkit {__version__}, {records[0]['epochs']} epochs, "
        f"{'from random weights' if not start else f'from the pretrained weights {start}'}. All settings: "
        "`fmanet settings --of MODEL`.",
        "",
        *weights,
    ]
    return "\n".join(lines) + "\n"


def _answers(classes: Sequence[str]) -> str:
    names = ", ".join(classes)
    return f"Says of each of {names} whether a clip shows it" if are_action_units(classes) else f"Tells {names} apart"


def _by_dataset(subjects: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for subject in subjects:
        dataset, _, name = subject.partition("/")
        found.setdefault(dataset, []).append(name)
    return found
