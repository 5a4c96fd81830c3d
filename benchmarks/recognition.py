"""What recognition reaches on people never seen in training: the ladder of the method, beside a support vector machine.

    python benchmarks/recognition.py megc-flow28 --work DIR --seeds 5 --out benchmarks/results/megc-flow28.json
    python benchmarks/recognition.py faces --work DIR --seeds 5 --out benchmarks/results/recognition-faces.json
    python benchmarks/recognition.py face3d --work DIR --seeds 5 --out benchmarks/results/recognition-face3d.json

`megc-flow28`: 309 real clips of SMIC-HS and CASME II, public flow pictures of 28 x 28 whose scale and zero are lost
(`../shared/data`), so nothing that depends on magnitude is shown by it; each subject is held out once.

`faces`: the synthetic people of scenes/recognition.toml, eight expressions, extracted as any clips are; 60 people train, 40 are
held out. `face3d`: the same 60 train, and 40 people of another head (`../shared/data/face3d`) are tested. The expressions of its
people are drawn by the same rules, their shapes and movements are not: it shows whether a network has learned our head.

Training goes on where it was stopped: DIR holds clips, shards and runs, and may be the same for `faces` and `face3d`. Every
configuration that was tried is a row. --people makes a quick look of fewer people: no figure of record.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import machine
import scene_sets
from flowkit.synthetic.dataset import DATASET, synthesise
from fmanet.dataset import Clips, ShardDataset
from fmanet.intervals import paired_difference, subject_interval
from fmanet.metrics import seed_average
from fmanet.prediction_table import Prediction, read_table
from fmanet.protocol import Fold, cross, holdout, loso, split

SHARED = Path(__file__).parents[2] / "shared" / "data" / "megc-flow28"
SCENES = scene_sets.read("recognition")
WHOLE = SCENES["people"]["train"], SCENES["people"]["held_out"]
OTHERS = "face3d"
"""Data set of the people of the other head."""
MODULES = {"flowkit": "flowkit.cli", "fmanet": "fmanet.cli"}
SVM_C = 10.0
SVM_PHASES = {"SVM, rise only": (0,), "SVM, fall only": (1,), "SVM, both phases": (0, 1)}


def run(command: str, *arguments: str | Path, accepted: tuple[int, ...] = (0,)) -> str:
    """Standard output of a command of ours."""
    done = subprocess.run(
        [sys.executable, "-m", MODULES[command], *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
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
    training : tuple of str
        Arguments of `fmanet ablate`.
    folds : callable
        The same protocol for other classifiers.
    ladder : str
        Folder of the runs, below the working folder.
    """

    shards: list[Path]
    grouping: str
    training: tuple[str, ...]
    folds: Callable[[Clips], list[Fold]]
    ladder: str = "ladder"


People = tuple[int, int]
"""How many train and how many are held out."""
IN_PIXELS = ("--size", "28", "--set", "network.floor_px=0.006", "--set", "train.augment.drift=0.002")
"""What is in pixels goes down with the size, from 224 to 28."""


def real_clips(work: Path, people: People) -> Clipset:
    """The public pictures as shards. The zero of a min-max picture is an estimate."""
    if not SHARED.is_dir():
        sys.exit(f"recognition: data must be at {SHARED}; got none there. Without it, run the set faces.")
    shards = work / "shards"
    run("flowkit", "import", "stst", SHARED, "--out", shards)
    return Clipset([shards], "3-class", ("--set", "train.augment.drift=0.1"), loso)


def our_clips(work: Path, people: People) -> Clipset:
    """Synthetic people, some of them held out."""
    train, held_out = people
    shards = [our_shards(work, people, rest) for rest in (False, True)]
    names = [f"{DATASET}/s{number:02d}" for number in range(train + 1, train + held_out + 1)]
    protocol = ("--protocol", "holdout", "--hold-out", ",".join(names))
    return Clipset(shards, "raw", (*IN_PIXELS, *protocol), lambda clips: holdout(clips, names))


def their_clips(work: Path, people: People) -> Clipset:
    """The same synthetic people to train on; others, with another head, are tested."""
    if not scene_sets.FACE3D.is_file():
        sys.exit(f"recognition: the second face must be at {scene_sets.FACE3D}; got none there. Run the set faces.")
    clips = made(work / OTHERS, OTHERS, people[1])
    shards = [
        our_shards(work, people, False),
        extracted(clips / "manifest.csv", work / "shards-face3d", dataset=OTHERS),
    ]
    protocol = ("--protocol", "cross", "--train-on", DATASET, "--test-on", OTHERS)
    training = (*IN_PIXELS, *protocol)
    return Clipset(shards, "raw", training, lambda clips: cross(clips, [DATASET], [OTHERS]), "ladder-face3d")


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
    "faces": our_clips,
    "face3d": their_clips,
}


def pixels(clips: Clips, phases: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The vectors of some phases, a row a clip."""
    flow: npt.NDArray[np.float64] = clips.flow[:, list(phases)].flatten(1).double().numpy()
    return flow


def svm_rows(clips: Clips, folds: list[Fold], phases: tuple[int, ...]) -> Iterator[Prediction]:
    """Predictions of a support vector machine (RBF, scaled), fitted anew in each fold."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    for fold in folds:
        training, held_out = split(clips, fold)
        model = make_pipeline(StandardScaler(), SVC(C=SVM_C))
        model.fit(pixels(training, phases), training.target.numpy())
        found = model.predict(pixels(held_out, phases))
        for i, answer in enumerate(found):
            certain = tuple(float(number == answer) for number in range(len(clips.classes)))
            truth = clips.classes[int(held_out.target[i])]
            where = (held_out.clip_id[i], held_out.subject[i], held_out.dataset[i], fold.name)
            yield Prediction(*where, 0, truth, clips.classes[answer], certain)


def yardsticks(name: str, found: Clipset) -> dict[str, list[Prediction]]:
    """The same protocol with a plain classifier; on the public pictures also as they are, without the scale of the import."""
    clips = ShardDataset(found.shards, found.grouping, size=28).clips()
    rows = {title: list(svm_rows(clips, found.folds(clips), phases)) for title, phases in SVM_PHASES.items()}
    if name == "megc-flow28":
        plain = found.shards[0].with_name("shards-range")
        run("flowkit", "import", "stst", SHARED, "--out", plain, "--scale", "range")
        clips = ShardDataset([plain], found.grouping).clips()
        rows |= {
            f"{title}, as scaled": list(svm_rows(clips, loso(clips), phases)) for title, phases in SVM_PHASES.items()
        }
    return rows


def scored(rows: list[Prediction], classes: tuple[str, ...]) -> dict[str, Any]:
    """UF1, UAR and accuracy with intervals over subjects."""
    found = subject_interval(rows, classes)
    return {
        name: {"value": round(one.value, 4), "low": round(one.low, 4), "high": round(one.high, 4)}
        for name, one in (("uf1", found.uf1), ("uar", found.uar), ("acc", found.acc))
    }


def against(rows: list[Prediction], others: list[Prediction], classes: tuple[str, ...]) -> dict[str, float]:
    """Difference in UF1 by a paired bootstrap over subjects."""
    found = paired_difference(rows, others, classes)
    return {name: round(getattr(found, name), 4) for name in ("value", "low", "high", "share_not_above")}


def ladder(found: Clipset, out: Path, seeds: int) -> tuple[Any, float]:
    """Train every row of the ladder, or go on with it; what `fmanet ablate` says, and the seconds of this call."""
    start = time.perf_counter()
    where = ("--out", out, "--classes", found.grouping, "--seeds", str(seeds), "--json")
    return json.loads(run("fmanet", "ablate", *found.shards, *where, *found.training)), time.perf_counter() - start


def settings_of(run_folder: Path) -> Any:
    """Settings of a run, as its run.json has them."""
    settings: Any = json.loads((run_folder / "run.json").read_text())["content"]["settings"]
    return settings


def results(name: str, work: Path, seeds: int, people: People) -> dict[str, Any]:
    """Everything of one set."""
    found = SETS[name](work, people)
    folder = work / found.ladder
    compared, seconds = ladder(found, folder, seeds)
    tables = {row["row"]: read_table(folder / row["folder"] / "predictions.csv") for row in compared["rows"]}
    classes = next(iter(tables.values())).classes
    plain = yardsticks(name, found)
    averaged = {title: seed_average(list(table.rows), classes) for title, table in tables.items()}
    whole = averaged["FMANet"]
    return {
        "set": name,
        "clips": len(whole),
        "subjects": len({row.subject for row in whole}),
        "classes": classes,
        "seeds": seeds,
        "settings": settings_of(folder / compared["rows"][-1]["folder"]),
        "rows_trained": len(tables),
        "seconds_of_this_call": round(seconds, 1),
        "yardsticks": {
            title: {**scored(rows, classes), "fmanet_against_it": against(whole, rows, classes)}
            for title, rows in plain.items()
        },
        "ladder": [{key: row[key] for key in row if key not in ("folder",)} for row in compared["rows"]],
        "against_rise_only": {
            title: against(rows, averaged["FMANet, rise only"], classes) for title, rows in averaged.items()
        },
    }


def table(found: dict[str, Any]) -> str:
    """The results as Markdown, as they stand in README.md; in brackets 95 % intervals over subjects."""
    lines = [
        "| | UF1, mean of seeds | UF1, average over seeds | UAR | ACC | against FMANet (UF1) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, row in found["yardsticks"].items():
        other = row["fmanet_against_it"]
        difference = {"value": -other["value"], "low": -other["high"], "high": -other["low"]}
        lines.append(f"| {title} | | {_scores(row)} | {_signed(difference)} |")
    for row in found["ladder"]:
        seeds = row["spread"]["uf1"]
        mean = f"{seeds['mean']:.3f} +- {seeds['std'] or 0.0:.3f}"
        compared = row["against_fmanet"]
        difference = _signed({**compared, "value": compared["mean"]}) if compared else ""
        lines.append(f"| {row['row']} | {mean} | {_scores(row['interval'])} | {difference} |")
    title = f"{found['set']}: {found['clips']} clips, {found['subjects']} subjects, {found['seeds']} seeds"
    return "\n".join([title, "", *lines])


def _scores(row: dict[str, Any]) -> str:
    uf1 = row["uf1"]
    return f"{uf1['value']:.3f} [{uf1['low']:.3f}, {uf1['high']:.3f}] | {row['uar']['value']:.3f} | {row['acc']['value']:.3f}"


def _signed(difference: dict[str, float]) -> str:
    return f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def main() -> None:
    """Train, score, print, store."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of shards and runs; a call that was stopped goes on"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="networks of each row of the ladder: training takes so many times as long"
    )
    parser.add_argument(
        "--people", type=int, nargs=2, metavar=("TRAIN", "HELD_OUT"), help="fewer synthetic people, for a quick look"
    )
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = results(options.set, options.work, options.seeds, tuple(options.people or WHOLE))
    sys.stdout.write(table(found) + "\n")
    if options.out:
        machine.write(options.out, f"recognition-{options.set}", found)


if __name__ == "__main__":
    main()
