"""What recognition reaches on people never seen in training: the ladder of the method, beside a support vector machine.

    python benchmarks/recognition.py megc-flow28 --work DIR --seeds 5 --out benchmarks/results/megc-flow28.json
    python benchmarks/recognition.py synth --work DIR --seeds 5 --out benchmarks/results/recognition-synth.json

`megc-flow28`: 309 real clips of SMIC-HS and CASME II, public flow pictures of 28 x 28 whose scale and zero are lost
(`../shared/data`), so nothing that depends on magnitude is shown by it; each subject is held out once. `synth`: eight classes
of faint motion (0.1 to 0.5 px at its peak, frames of 320 x 320) under noise, drift and changing light, extracted as any clips are;
some classes differ in the rise, some in the fall, some in both (flowkit/scenes.py has the table). 20 subjects train, 20 are
held out.

Training goes on where it was stopped: DIR holds the shards and the runs. Every configuration that was tried is a row.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import machine
from fmanet.dataset import Clips, ShardDataset
from fmanet.metrics import paired_difference, seed_average, subject_interval
from fmanet.predictions import Prediction, read_table
from fmanet.protocol import Fold, holdout, loso, split

SHARED = Path(__file__).parents[2] / "shared" / "data" / "megc-flow28"
MODULES = {"flowkit": "flowkit.cli", "fmanet": "fmanet.cli"}
SVM_C = 10.0
SUBJECTS = 40
FAINT = ("--peak-px", "0.1", "0.5", "--noise", "5", "--drift-px", "4", "--drift-deg", "1.5", "--light", "0.02")
"""Made-up motion so faint that no network gets all of it right: where all are right, nothing is compared."""
HELD_OUT = tuple(f"synth/s{number:02d}" for number in range(2, SUBJECTS + 1, 2))
SVM_PHASES = {"SVM, rise only": (0,), "SVM, fall only": (1,), "SVM, both phases": (0, 1)}


def run(command: str, *arguments: str | Path, accepted: tuple[int, ...] = (0,)) -> str:
    """Standard output of a command of ours."""
    done = subprocess.run(
        [sys.executable, "-m", MODULES[command], *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in accepted:
        sys.exit(done.returncode)
    return done.stdout


def real_shards(work: Path, seeds: int) -> tuple[Path, str]:
    """The public pictures as shards, and the grouping of their labels."""
    if not SHARED.is_dir():
        sys.exit(f"recognition: data must be at {SHARED}; got none there. Without it, run the set synth.")
    shards = work / "shards"
    run("flowkit", "import", "stst", SHARED, "--out", shards)
    return shards, "3-class"


def made_up_shards(work: Path, seeds: int) -> tuple[Path, str]:
    """One clip of each class by each of 40 made-up subjects, through the whole extraction."""
    clips, shards = work / "clips", work / "shards"
    if not (clips / "manifest.csv").exists():
        run("flowkit", "synth", "--out", clips, "--subjects", str(SUBJECTS), "--key-frames-only", *FAINT)
    run("flowkit", "extract", clips / "manifest.csv", "--out", shards, "--size", "112", accepted=(0, 1))
    return shards, "raw"


SETS = {"megc-flow28": real_shards, "synth": made_up_shards}
TRAINING = {
    "megc-flow28": ("--set", "train.augment.drift=0.1"),
    "synth": (
        *("--size", "28", "--set", "network.floor_px=0.006", "--set", "train.augment.drift=0.002"),
        *("--protocol", "holdout", "--hold-out", ",".join(HELD_OUT)),
    ),
}
"""The zero of a min-max picture is an estimate. What is in pixels goes down with the size, from 224 to 28."""
FOLDS: dict[str, Callable[[Clips], list[Fold]]] = {
    "megc-flow28": loso,
    "synth": lambda clips: holdout(clips, HELD_OUT),
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


def yardsticks(name: str, shards: Path, grouping: str) -> dict[str, list[Prediction]]:
    """The same protocol with a plain classifier; on the public pictures also as they are, without the scale of the import."""
    clips = ShardDataset([shards], grouping, size=28).clips()
    found = {title: list(svm_rows(clips, FOLDS[name](clips), phases)) for title, phases in SVM_PHASES.items()}
    if name == "megc-flow28":
        plain = shards.with_name("shards-range")
        run("flowkit", "import", "stst", SHARED, "--out", plain, "--scale", "range")
        clips = ShardDataset([plain], grouping).clips()
        found |= {
            f"{title}, as scaled": list(svm_rows(clips, loso(clips), phases)) for title, phases in SVM_PHASES.items()
        }
    return found


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


def ladder(shards: Path, grouping: str, work: Path, seeds: int, given: tuple[str, ...]) -> tuple[Any, float]:
    """Train every row of the ladder, or go on with it; what `fmanet ablate` says, and the seconds of this call."""
    start = time.perf_counter()
    where = ("--out", work / "ladder", "--classes", grouping, "--seeds", str(seeds), "--json")
    return json.loads(run("fmanet", "ablate", shards, *where, *given)), time.perf_counter() - start


def settings_of(run_folder: Path) -> Any:
    """Settings of a run, as its run.json has them."""
    settings: Any = json.loads((run_folder / "run.json").read_text())["content"]["settings"]
    return settings


def results(name: str, work: Path, seeds: int) -> dict[str, Any]:
    """Everything of one set."""
    shards, grouping = SETS[name](work, seeds)
    compared, seconds = ladder(shards, grouping, work, seeds, TRAINING[name])
    tables = {row["row"]: read_table(work / "ladder" / row["folder"] / "predictions.csv") for row in compared["rows"]}
    classes = next(iter(tables.values())).classes
    plain = yardsticks(name, shards, grouping)
    averaged = {title: seed_average(list(table.rows), classes) for title, table in tables.items()}
    whole = averaged["FMANet"]
    return {
        "set": name,
        "clips": len(whole),
        "subjects": len({row.subject for row in whole}),
        "classes": classes,
        "seeds": seeds,
        "settings": settings_of(work / "ladder" / compared["rows"][-1]["folder"]),
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
    """The results as lines of text."""
    lines = [f"{found['set']}: {found['clips']} clips, {found['subjects']} subjects, {found['seeds']} seeds"]
    for title, row in found["yardsticks"].items():
        lines.append(f"{title:28} UF1 {row['uf1']['value']:.3f} [{row['uf1']['low']:.3f}, {row['uf1']['high']:.3f}]")
    for row in found["ladder"]:
        mean, whole = row["spread"]["uf1"], row["seed_average"]["uf1"]
        std = 0.0 if mean["std"] is None else mean["std"]
        lines.append(f"{row['row']:28} UF1 mean {mean['mean']:.3f} +- {std:.3f}, seed average {whole:.3f}")
    return "\n".join(lines)


def main() -> None:
    """Train, score, print, store."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of shards and runs; a call that was stopped goes on"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = results(options.set, options.work, options.seeds)
    sys.stdout.write(table(found) + "\n")
    if options.out:
        machine.write(options.out, f"recognition-{options.set}", found)


if __name__ == "__main__":
    main()
