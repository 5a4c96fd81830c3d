"""What recognition reaches on people never seen in training: FMANet, its parts taken out, plainer networks, and closed forms.

    python benchmarks/recognition.py synthetic --work DIR --out benchmarks/results/recognition-synthetic.json
    python benchmarks/recognition.py synthetic-3 --work DIR --out benchmarks/results/recognition-synthetic-3.json
    python benchmarks/recognition.py megc-flow28 --work DIR --out benchmarks/results/megc-flow28.json

`synthetic`: the people of scenes/recognition.toml, eight expressions, extracted as any clips are; 60 people train. Two sets of 40
people are held out: `faces` have the same head, `face3d` another one (`../shared/data/face3d`), whose shapes and movements were
sculpted: it shows whether a network has learned our head. `synthetic-3`: the same clips in the three classes of MEGC.

`megc-flow28`: 309 real clips of SMIC-HS and CASME II, public flow pictures of 28 x 28 whose scale and zero are lost
(`../shared/data`); each subject is held out once.

Every network gets the same budget of tuning: twelve configurations, by inner splits of the training people. The closed forms choose
their one number likewise. Then each row is trained, and the held-out people are read once. A call that was stopped is resumed: DIR
holds clips, shards, runs and what was tried. With --before CHECKOUT, the network of an older version is a row: its own code.
--people makes a quick look of fewer people: no figure of record.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import scene_sets
from flowkit.settings_io import load_values
from flowkit.synthetic.dataset import DATASET, synthesise
from flowkit_kernels.host import cores
from fmanet.ablation import about_action_units, rungs
from fmanet.baselines import inner_folds
from fmanet.batches import derived_seed
from fmanet.building import build_network, load_weights, parameter_count
from fmanet.dataset import Clips, ShardDataset
from fmanet.protocol import Fold, holdout, loso, split
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.metrics import by_seed, score, seed_average, spread
from fmanet.scoring.prediction_table import Prediction, read_table
from fmanet.settings import RunSettings
from fmanet.training import predict, train

SHARED = Path(__file__).parents[2] / "shared" / "data" / "megc-flow28"
SCENES = scene_sets.read("recognition")
WHOLE = SCENES["people"]["train"], SCENES["people"]["held_out"]
OTHERS = "face3d"
"""Data set of the people of the other head."""
MODULES = {"flowkit": "flowkit.cli", "fmanet": "fmanet.cli"}
WHOLE_METHOD, CNN, LDA, RISE = "FMANet", "CNN, both phases", "LDA, both phases", "FMANet, rise only"
BEFORE, AS_STORED = "FMANet of version 0.1", "FMANet, flow as stored"
"""Rows that the ladder of `fmanet ablate` does not have: another version, and no carrying onto the canonical face."""
Bar = tuple[str, Callable[[dict[str, float]], bool]]
NOT_BELOW: Bar = ("interval not below 0", lambda found: found["high"] >= 0)
BARS: dict[str, Bar] = {
    CNN: ("interval above 0", lambda found: found["low"] > 0),
    LDA: NOT_BELOW,
    RISE: ("+0.08", lambda found: found["value"] >= 0.08),
}
"""What FMANet's UF1 minus that of a row was to reach on synthetic people, fixed before anything was measured."""
REAL_BARS: dict[str, Bar] = {
    WHOLE_METHOD: ("UF1 0.80", lambda found: found["value"] >= 0.8),
    RISE: NOT_BELOW,
}
STILL = ("train.augment.rotation_deg=0", "train.augment.scale=0", "train.augment.translation_px=0")
"""No turning, scaling and shifting of training clips."""
LITTLE = ("train.batch=64", "train.augment.gain=0.05", "train.augment.drift=0")
"""Larger batches, and clips that are hardly changed."""
CONFIGURATIONS = [
    (f"train.epochs={epochs}", *still, *rest)
    for still in ((), STILL)
    for epochs in (20, 30, 60)
    for rest in ((), LITTLE)
]
"""What is tried of each network."""
TUNED = ("fmanet", "cnn", "shallow", "action-units")
INNER_TRAININGS = 10
"""At most, of each configuration."""


def run(command: str, *arguments: str | Path, accepted: tuple[int, ...] = (0,), checkout: Path | None = None) -> str:
    """Return the standard output of a command of ours, or of that of another checkout."""
    where = dict(os.environ)
    if checkout is not None:
        where["PYTHONPATH"] = os.pathsep.join(str(checkout.absolute() / part) for part in ("", "kernels", "models"))
    done = subprocess.run(
        [sys.executable, "-m", MODULES[command], *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=where,
    )
    if done.returncode not in accepted:
        sys.exit(done.returncode)
    return done.stdout


@dataclass(frozen=True)
class Clipset:
    """What a network is trained and tested on.

    Attributes
    ----------
    shards : list of Path
    grouping : str
    settings : tuple of str
        Of every row, as `--set` takes them.
    protocol : tuple of str
        Arguments of `fmanet train`.
    folds : callable
        The same protocol in Python.
    tests : tuple of str
        Data sets that are scored apart; empty: all held-out clips together.
    tuned : tuple of str
        Networks that have settings to tune.
    """

    shards: list[Path]
    grouping: str
    settings: tuple[str, ...]
    protocol: tuple[str, ...]
    folds: Callable[[Clips], list[Fold]]
    tests: tuple[str, ...] = ()
    tuned: tuple[str, ...] = TUNED

    def clips(self) -> Clips:
        """Return all clips, in the size that networks see."""
        return ShardDataset(self.shards, self.grouping, size=28).clips()


People = tuple[int, int]
"""How many train and how many are held out."""
IN_PIXELS = ("size=28", "network.floor_px=0.006", "train.augment.drift=0.002")
"""What is in pixels goes down with the size, from 224 to 28."""
WITHOUT_ACTION_UNITS = "network.action_units=false"
REAL_SETTINGS = ("train.augment.drift=0.1", WITHOUT_ACTION_UNITS)
"""Of the public pictures: no clip has action units."""


def real_clips(work: Path, people: People) -> Clipset:
    """Return the public pictures as shards. The zero of a min-max picture is an estimate."""
    if not SHARED.is_dir():
        sys.exit(f"recognition: data must be at {SHARED}; got none there. Without it, run the set synthetic.")
    shards = work / "shards"
    run("flowkit", "import", "stst", SHARED, "--out", shards)
    return Clipset([shards], "3-class", REAL_SETTINGS, (), loso, tuned=TUNED[:3])


def synthetic(work: Path, people: People, grouping: str = "raw") -> Clipset:
    """Return synthetic people, some of whom are held out, and, where the other head is there, people of it, all held out."""
    train, held_out = people
    shards = [our_shards(work, people, rest) for rest in (False, True)]
    names = [f"{DATASET}/s{number:02d}" for number in range(train + 1, train + held_out + 1)]
    tests = [DATASET]
    if scene_sets.FACE3D.is_file():
        clips = made(work / OTHERS, OTHERS, held_out)
        shards.append(extracted(clips / "manifest.csv", work / "shards-face3d", dataset=OTHERS))
        names += [f"{OTHERS}/s{number:02d}" for number in range(1, held_out + 1)]
        tests.append(OTHERS)
    protocol = ("--protocol", "holdout", "--hold-out", ",".join(names))
    return Clipset(shards, grouping, IN_PIXELS, protocol, lambda clips: holdout(clips, names), tuple(tests))


SET_OF_THE_OTHERS = """
[layout]
title = "people of the other head"
folders = ["{subject}/{clip}"]

[labels]
labels = ["happiness", "surprise", "disgust", "anger", "fear", "sadness", "contempt", "repression"]

[groupings.3-class]
negative = ["disgust", "anger", "fear", "sadness", "contempt", "repression"]
positive = ["happiness"]
"""
"""Their labels in three classes as those of our people; surprise is one of the three by its name."""


def synthetic_3(work: Path, people: People) -> Clipset:
    """Return the same clips in three classes, which are told of the other data set as of any data set of one's own."""
    sets = work / "sets"
    sets.mkdir(exist_ok=True)
    (sets / f"{OTHERS}.toml").write_text(SET_OF_THE_OTHERS, encoding="utf-8")
    (sets / f"{OTHERS}.py").write_text("# Its manifests come from flowkit synth: there is no annotation to read.\n")
    os.environ["FLOWKIT_DATASETS"] = str(sets)
    return synthetic(work, people, "3-class")


def made(folder: Path, group: str, subjects: int) -> Path:
    """The clips of a group of the frozen scenes, rendered unless they are there."""
    if not (folder / "manifest.csv").exists():
        synthesise(folder, scene_sets.settings({**SCENES["common"], **SCENES["groups"][group]}, subjects=subjects))
    return folder


def our_shards(work: Path, people: People, held_out: bool) -> Path:
    """The flow of our people who train, or of those who are held out."""
    clips = made(work / "faces", "faces", sum(people))
    chosen = {f"s{number:02d}" for number in range(1, sum(people) + 1) if (number > people[0]) == held_out}
    return extracted(clips / "manifest.csv", work / ("shards-held-out" if held_out else "shards-train"), chosen)


def extracted(manifest: Path, shards: Path, subjects: set[str] | None = None, dataset: str = DATASET) -> Path:
    """Shards of some subjects of a manifest, under the name of a data set."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [
            row | {"dataset": dataset} for row in csv.DictReader(file) if not subjects or row["subject"] in subjects
        ]
    if subjects and {row["subject"] for row in rows} != subjects:
        sys.exit(f"recognition: {manifest} must hold all people; got fewer, of a quick look. Choose another --work.")
    part = manifest.with_name(f"{shards.name}.csv")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    run("flowkit", "extract", part, "--out", shards, "--size", "112", accepted=(0, 1))
    return shards


SETS: dict[str, Callable[[Path, People], Clipset]] = {
    "megc-flow28": real_clips,
    "synthetic": synthetic,
    "synthetic-3": synthetic_3,
}


# --- tuning


def inner_splits(clips: Clips, folds: list[Fold]) -> list[tuple[list[int], list[int]]]:
    """Return rows to train on and rows to answer, within the training people: five splits of one fold, or one of each of ten."""
    step = max(1, len(folds) // INNER_TRAININGS)
    splits = []
    for n, fold in enumerate(folds[::step][:INNER_TRAININGS]):
        training, _ = split(clips, fold)
        parts = list(inner_folds(training.subject, derived_seed("tuning", fold.name)))
        for keep, aside in parts if len(folds) == 1 else [parts[n % len(parts)]]:
            splits.append(([fold.train[row] for row in keep.tolist()], [fold.train[row] for row in aside.tolist()]))
    return splits


_clips: dict[tuple[Path, ...], Clips] = {}
"""In a worker: those of the set."""


def asked(
    found: tuple[tuple[Path, ...], str], given: tuple[str, ...], keep: list[int], aside: list[int]
) -> tuple[list[int], list[int]]:
    """Return truth and prediction of the clips of some rows, of a network that was trained on others."""
    shards, grouping = found
    if shards not in _clips:
        _clips[shards] = ShardDataset(shards, grouping, size=28).clips()
    clips = _clips[shards]
    settings = RunSettings.from_dict(load_values(None, [*given, f"network.classes={len(clips.classes)}"]))
    kept, tested = clips.select(keep), clips.select(aside)
    model = build_network(settings.network, 0)
    load_weights(model, train(kept, settings.network, settings.train, derived_seed("tuning", *keep)).state)
    return tested.target.tolist(), predict(model, tested, settings.train).argmax(1).tolist()


def tune(name: str, found: Clipset, work: Path) -> list[dict[str, Any]]:
    """Return every configuration tried and its UF1 over inner folds; those known already are not tried again."""
    path = work / f"tuning-{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    known = {(row["network"], tuple(row["settings"])) for row in rows}
    clips = found.clips()
    splits = inner_splits(clips, found.folds(clips))
    where = (tuple(found.shards), found.grouping)
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for network in found.tuned:
            inputs = "rise" if network == "shallow" else "both"
            for tried in CONFIGURATIONS:
                if (network, tried) in known:
                    continue
                given = (*found.settings, *tried, f"network.network={network}", f"network.inputs={inputs}")
                jobs = [pool.submit(asked, where, given, *parts) for parts in splits]
                pairs = [pair for job in jobs for pair in zip(*job.result(), strict=True)]
                truth, answers = ([clips.classes[number] for number in numbers] for numbers in zip(*pairs, strict=True))
                uf1 = round(score(truth, answers, clips.classes).uf1, 4)
                rows.append({"network": network, "settings": list(tried), "uf1": uf1, "trainings": len(splits)})
                sys.stderr.write(f"{name} {network} {uf1:.4f} {' '.join(tried)}\n")
                path.write_text(json.dumps(rows, indent=1))
    return rows


def best(rows: list[dict[str, Any]], network: str) -> tuple[str, ...]:
    """Return the settings that did best of a network."""
    own = [row for row in rows if row["network"] == network]
    return tuple(max(own, key=lambda row: row["uf1"])["settings"]) if own else ()


# --- rows


@dataclass(frozen=True)
class Row:
    """One row of the table: predictions of every seed, and what made them."""

    title: str
    settings: tuple[str, ...]
    predictions: list[Prediction]
    classes: tuple[str, ...]
    parameters: int | None


def planned(found: Clipset) -> list[tuple[str, dict[str, Any]]]:
    """Return title and settings of each row: the ladder, and FMANet on flow as stored; pictures have no action units."""
    ladder = [
        (title, {f"network.{key}": value for key, value in changes.items()})
        for title, changes in rungs()
        if found.tests or not about_action_units(changes)
    ]
    if not found.tests:
        return ladder
    whole = next(settings for title, settings in ladder if title == WHOLE_METHOD)
    return [*ladder, (AS_STORED, {**whole, "face": "own"})]


def trained(title: str, changes: dict[str, Any], found: Clipset, tuned: tuple[str, ...], out: Path, seeds: int) -> Row:
    """Train one row, or go on with it."""
    network = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
    given = (*found.settings, *tuned, *network)
    closed = changes["network.network"] in ("lda", "svm")
    training_run(found, given, out, 1 if closed else seeds)
    table = read_table(out / "predictions.csv")
    settings = RunSettings.from_dict(load_values(None, [*given, f"network.classes={len(table.classes)}"]))
    parameters = None if closed else parameter_count(build_network(settings.network, 0))
    return Row(title, (*tuned, *network), list(table.rows), table.classes, parameters)


def training_run(found: Clipset, given: tuple[str, ...], out: Path, seeds: int, checkout: Path | None = None) -> None:
    """Run `fmanet train`, or go on with it; its predictions lie in `out`."""
    flags = [flag for one in given for flag in ("--set", one)]
    where = ("--out", out, "--classes", found.grouping, "--seeds", str(seeds))
    run("fmanet", "train", *found.shards, *where, *found.protocol, *flags, checkout=checkout)


def before(found: Clipset, out: Path, seeds: int, checkout: Path) -> Row:
    """Train the network of an older checkout, with its own settings."""
    settings = tuple(one for one in found.settings if one != WITHOUT_ACTION_UNITS)  # version 0.1 has no such setting
    training_run(found, settings, out, seeds, checkout)
    table = read_table(out / "predictions.csv")
    return Row(BEFORE, (), list(table.rows), table.classes, None)


def scored(row: Row, dataset: str, others: dict[str, Row]) -> dict[str, Any]:
    """Return the scores of a row on the clips of a data set (all, if empty), and its differences to other rows."""
    own = chosen(row, dataset)
    interval = subject_interval(own, row.classes)
    averaged = subject_interval(seed_average(own, row.classes), row.classes)
    seeds = spread(by_seed(own, row.classes))
    return {
        "row": row.title,
        "settings": list(row.settings),
        "parameters": row.parameters,
        "uf1_seeds": {"mean": round(seeds.mean, 4), "std": round(seeds.std, 4) if math.isfinite(seeds.std) else None},
        **{name: bounds(getattr(interval, name)) for name in ("uf1", "uar", "acc")},
        "uf1_of_seeds_averaged": bounds(averaged.uf1),
        "against": {title: against(own, chosen(other, dataset), row.classes) for title, other in others.items()},
    }


def chosen(row: Row, dataset: str) -> list[Prediction]:
    """Return the predictions of clips of a data set; all, if it is empty."""
    return [one for one in row.predictions if not dataset or one.dataset == dataset]


def bounds(found: Any) -> dict[str, float]:
    """Return value and interval, rounded."""
    return {name: round(getattr(found, name), 4) for name in ("value", "low", "high")}


def against(rows: list[Prediction], others: list[Prediction], classes: tuple[str, ...]) -> dict[str, float]:
    """Return the difference in UF1, mean of seeds, by a paired bootstrap over subjects."""
    return bounds(paired_difference(rows, others, classes))


def results(name: str, work: Path, seeds: int, people: People, checkout: Path | None) -> dict[str, Any]:
    """Return everything of one set."""
    found = SETS[name](work, people)
    tried = tune(name, found, work)
    rows: dict[str, Row] = {}
    begin = time.perf_counter()
    for number, (title, changes) in enumerate(planned(found)):
        folder = work / f"rows-{name}" / f"{number:02d}-{title.lower().replace(',', '').replace(' ', '-')}"
        sys.stderr.write(f"{name}: {title}\n")
        rows[title] = trained(title, changes, found, best(tried, str(changes["network.network"])), folder, seeds)
    if checkout is not None:
        rows[BEFORE] = before(found, work / f"rows-{name}" / "before", seeds, checkout)
    compared = {title: rows[title] for title in (WHOLE_METHOD, CNN, LDA, RISE) if title in rows}
    measured = {
        "set": name,
        "classes": rows[WHOLE_METHOD].classes,
        "seeds": seeds,
        "tuning": tried,
        "chosen": {network: list(best(tried, network)) for network in found.tuned},
        "seconds_of_this_call": round(time.perf_counter() - begin, 1),
        "tests": {
            dataset or name: {
                "clips": len({(one.dataset, one.clip_id) for one in chosen(rows[WHOLE_METHOD], dataset)}),
                "subjects": len({one.subject for one in chosen(rows[WHOLE_METHOD], dataset)}),
                "rows": [scored(row, dataset, compared) for row in rows.values()],
            }
            for dataset in found.tests or ("",)
        },
    }
    return {**measured, "bars": bars(measured, BARS if found.tests else REAL_BARS)}


def bars(measured: dict[str, Any], wanted: dict[str, Bar]) -> list[dict[str, Any]]:
    """Return each bar beside what was found: of FMANet its UF1, of other rows FMANet's minus theirs."""
    found = []
    for name, test in measured["tests"].items():
        by_title = {row["row"]: row for row in test["rows"]}
        for title, (text, reached) in wanted.items():
            own = title == WHOLE_METHOD
            value = by_title[title]["uf1"] if own else negative(by_title[title]["against"][WHOLE_METHOD])
            what = "UF1" if own else f"UF1 minus that of {title}"
            found.append({"test": name, "what": what, "bar": text, **value, "met": reached(value)})
    return found


def negative(difference: dict[str, float]) -> dict[str, float]:
    """Return the difference the other way round."""
    return {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown, as they stand in README.md; in brackets 95 % intervals over subjects."""
    lines = []
    for name, test in found["tests"].items():
        lines += [
            f"{found['set']}, {name}: {test['clips']} clips, {test['subjects']} subjects, {found['seeds']} seeds",
            "",
            "| | parameters | UF1, mean of seeds | seeds averaged | UAR | ACC | FMANet minus this (UF1) |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        whole = next(row for row in test["rows"] if row["row"] == WHOLE_METHOD)
        for row in test["rows"]:
            last = "" if row is whole else signed(negative(row["against"][WHOLE_METHOD]))
            std = row["uf1_seeds"]["std"]
            uf1 = row["uf1"]
            spread_of_seeds = "" if std is None else f" +- {std:.3f}"
            mean = f"{uf1['value']:.3f}{spread_of_seeds} [{uf1['low']:.3f}, {uf1['high']:.3f}]"
            cells = (row["row"], row["parameters"] or "", mean, f"{row['uf1_of_seeds_averaged']['value']:.3f}")
            lines.append(
                f"| {' | '.join(map(str, cells))} | {row['uar']['value']:.3f} | {row['acc']['value']:.3f} | {last} |"
            )
        lines.append("")
    lines += ["| FMANet | bar | found | |", "| --- | --- | --- | --- |"]
    for one in found["bars"]:
        shown, verdict = signed(one), "met" if one["met"] else "missed"
        lines.append(f"| {one['test']}: {one['what']} | {one['bar']} | {shown} | {verdict} |")
    return "\n".join([*lines, ""])


def signed(difference: dict[str, float]) -> str:
    """Return a difference with its interval."""
    return f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def main() -> None:
    """Tune, train, score, print, store."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of shards and runs; a call that was stopped goes on"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="networks of each row: training takes so many times as long"
    )
    parser.add_argument(
        "--people", type=int, nargs=2, metavar=("TRAIN", "HELD_OUT"), help="fewer synthetic people, for a quick look"
    )
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="also train the network of an older version")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    people = tuple(options.people or WHOLE)
    found = results(options.set, options.work, options.seeds, people, options.before)
    sys.stdout.write(table(found) + "\n")
    if options.out:
        machine.write(options.out, f"recognition-{options.set}", found)


if __name__ == "__main__":
    main()
