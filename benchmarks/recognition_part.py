"""Is a part of FMANet worth having, where the rows of recognition.py leave it open? Twice as many networks with and without it.

    python benchmarks/recognition_part.py attention --work DIR --out benchmarks/results/recognition-attention.json

FMANet is tuned with the part and without it, as recognition.py tunes, by inner splits of the training people. Each of the two
settings found trains it with and without the part. All networks with the part stand against all without it, in one paired bootstrap
over the held-out subjects of the set `synthetic`; DIR is the one of recognition.py.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path
from typing import Any

import machine
import recognition
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.prediction_table import Prediction, read_table

SET = "synthetic"
STATES = ("true", "false")
"""Of the part, as `--set` takes them."""


def measured(part: str, work: Path, seeds: int) -> dict[str, Any]:
    """Return UF1 with and without the part, and the difference, for each pair of settings and for all together."""
    whole = recognition.SETS[SET](work, recognition.WHOLE)
    variants = {
        state: dataclasses.replace(whole, settings=(*whole.settings, f"network.{part}={state}"), tuned=("fmanet",))
        for state in STATES
    }
    tried = {state: recognition.tune(f"{SET}-{part}-{state}", own, work) for state, own in variants.items()}
    chosen = list(dict.fromkeys(recognition.best(rows, "fmanet") for rows in tried.values()))
    runs: dict[str, list[list[Prediction]]] = {state: [] for state in STATES}
    for number, settings in enumerate(chosen):
        for state, own in variants.items():
            out = work / f"rows-{SET}-{part}" / f"{number}-{state}"
            recognition.training_run(own, (*own.settings, *settings), out, seeds)
            table = read_table(out / "predictions.csv")
            runs[state].append([dataclasses.replace(one, seed=one.seed + number * seeds) for one in table.rows])
    together = {state: [[one for rows in found for one in rows]] for state, found in runs.items()}
    return {
        "set": SET,
        "part": part,
        "seeds": seeds,
        "tuning": tried,
        "tests": {
            dataset: [
                {"settings": name, **compared(*pair, dataset, table.classes)}
                for found, names in ((runs, [" ".join(settings) for settings in chosen]), (together, ["all"]))
                for name, *pair in zip(names, *found.values(), strict=True)
            ]
            for dataset in whole.tests
        },
    }


def compared(
    with_it: list[Prediction], without: list[Prediction], dataset: str, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return UF1 of both on the clips of a data set, mean of networks, and the difference."""
    own, other = ([one for one in rows if one.dataset == dataset] for rows in (with_it, without))
    return {
        "with": recognition.bounds(subject_interval(own, classes).uf1),
        "without": recognition.bounds(subject_interval(other, classes).uf1),
        "difference": recognition.bounds(paired_difference(own, other, classes)),
        "networks": len({one.seed for one in own}),
    }


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown, as they stand in README.md."""
    lines = [
        f"| {found['part']} | networks | UF1 with it | without it | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rows in found["tests"].items():
        for row in rows:
            cells = (f"{row['with']['value']:.3f}", f"{row['without']['value']:.3f}")
            difference = recognition.signed(row["difference"])
            lines.append(f"| {name}, {row['settings']} | {row['networks']} | {' | '.join(cells)} | {difference} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Tune, train, compare, print, store."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("attention", "fusion", "modulation", "action_units"))
    parser.add_argument("--work", type=Path, required=True, help="folder of shards and runs; a stopped call goes on")
    parser.add_argument("--seeds", type=int, default=5, help="networks of each setting, with and without the part")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    found = measured(options.part, options.work, options.seeds)
    print(table(found))
    if options.out:
        machine.write(options.out, f"recognition-{options.part}", found)


if __name__ == "__main__":
    main()
