"""What networks pretrained on synthetic faces are worth: without training, as a start for training, and how fast they answer.

    python benchmarks/pretrained.py zero-shot --work DIR --out benchmarks/results/pretrained-zero-shot.json
    python benchmarks/pretrained.py start --work DIR --out benchmarks/results/pretrained-start.json
    python benchmarks/pretrained.py speed --work DIR --out benchmarks/results/pretrained-speed.json

`zero-shot`: the shipped models answer for the 309 real clips (public 28 x 28 pictures, `../shared/data`) and for the people of
scenes/recognition.toml who are held out: our head, and another one (face3d). --ship writes the figures into the model cards.

`start`: FMANet on the real clips from random weights and from the shipped ones. Each subject held out once, five seeds, paired; and
learning curves: 4, 8, 16 and 32 subjects train, all others are tested, ten draws. Both phases, and the rise alone, whose start is
pretrained here on the same samples. The settings of each row are chosen from the same configurations (those of recognition.py, and
others with lower rates and fewer epochs): for all subjects by inner splits of the training people, for few by other draws of 8.

`speed`: clips per second of `fmanet predict --pretrained` on one core, 112 x 112 pixels.

A call that was stopped is resumed: DIR holds clips, shards, runs and what was tried.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import machine
import recognition
from flowkit.settings_io import load_values
from flowkit_kernels.host import cores
from fmanet.batches import derived_seed
from fmanet.building import build_network, load_weights
from fmanet.checkpoint import load
from fmanet.dataset import Clips, ShardDataset
from fmanet.pretrained.card import card, commands
from fmanet.pretrained.model_folder import CARD_FILE, MEASURED_FILE, is_model, read_model, shipped, start_of
from fmanet.pretrained.start import with_start
from fmanet.pretrained.trust import REAL, SYNTHETIC, best_temperature, trust, with_temperature
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.metrics import score
from fmanet.scoring.prediction_table import Prediction, prediction_rows, read_table
from fmanet.settings import RunSettings, TrainSettings
from fmanet.training import predict, train

GROUPING = "3-class"
SEEDS = 5
INPUTS = ("both", "rise")
SUBJECTS, DRAWS = (4, 8, 16, 32), 10
TUNED_ON = 8
"""Subjects that train where settings for few are chosen; those draws are not the ones that are reported."""
CONFIGURATIONS = [
    *recognition.CONFIGURATIONS,
    *(
        (f"train.rate={rate}", f"train.epochs={epochs}", f"train.augment.rotation_deg={angle}")
        for rate in (4e-3, 1e-3, 3e-4)
        for epochs in (5, 20)
        for angle in (5, 10)
    ),
]
"""What is tried of each row."""
NOTES = [
    "Real clips are those of SMIC-HS and CASME II in the public 28 x 28 pictures; intervals: 95 %, bootstrap over subjects. The "
    "other head is that of ICT-FaceKit, whose shapes and movements were sculpted; its clips, like those of our own head, went "
    "through the whole extraction. The real clips were read three times. After the second reading (UF1 0.624) the samples got the "
    "labels of the MEGC2019 composite, so the third one, given here, is slightly optimistic; docs/pretrained.md has all readings."
]


# --- without training


def shares_of(folder: Path, clips: Clips) -> npt.NDArray[np.float64]:
    """Return probabilities as a model gives them, without a temperature."""
    model = read_model(folder)
    return predict(load(model.path).model, clips, TrainSettings(flip_test=bool(model.content["flip_test"])))


def answered(folder: Path, clips: Clips, temperature: float) -> dict[str, Any]:
    """Return how right a model is about clips whose classes are known."""
    shares = with_temperature(shares_of(folder, clips), temperature)
    interval = subject_interval(prediction_rows(clips, shares, "zero-shot", 0), clips.classes)
    scores = {name: recognition.bounds(getattr(interval, name)) for name in ("uf1", "uar", "acc")}
    return {**trust(shares, clips), **scores}


def zero_shot(work: Path, _: int) -> dict[str, Any]:
    """Return the scores of the shipped models on real clips and on synthetic people of two heads."""
    found = recognition.real_clips(work, recognition.WHOLE)
    tests = {"minmax": [("309 real clips", REAL, ShardDataset(found.shards, GROUPING).clips())]}
    people = recognition.synthetic_3(work, recognition.WHOLE)
    clips = ShardDataset(people.shards[1:], GROUPING, size=28).clips()
    names = {recognition.DATASET: "synthetic people, our head", recognition.OTHERS: "synthetic people, another head"}
    tests["px"] = [
        (names[name], SYNTHETIC, clips.select([row for row, own in enumerate(clips.dataset) if own == name]))
        for name in dict.fromkeys(clips.dataset)
    ]
    name, _, ours = tests["px"][0]  # which has no other use: the trust comes from the other head
    extracted = {
        "temperature": best_temperature(shares_of(shipped("px"), ours), ours.target.numpy()),
        "calibrated_on": f"{name}, whose clips went through the whole extraction",
    }
    found = {}
    for units, given in tests.items():
        folder, calibrated = shipped(units), extracted if units == "px" else {}
        temperature = calibrated.get("temperature", read_model(folder).temperature)
        found[units] = {
            "weights": read_model(folder).digest,
            **calibrated,
            "tests": [{"name": name, "kind": kind, **answered(folder, own, temperature)} for name, kind, own in given],
            "notes": NOTES,
        }
    return found


def ship(found: dict[str, Any]) -> None:
    """Write the figures into the folders of the shipped models."""
    for units, measured in found.items():
        folder = shipped(units)
        (folder / MEASURED_FILE).write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        (folder / CARD_FILE).write_text(card(read_model(folder).content, measured), encoding="utf-8")


# --- as a start


def start_model(work: Path, inputs: str) -> Path:
    """The model that networks of these inputs start from: the shipped one, or one made of the same samples."""
    if inputs == "both":
        return shipped("minmax")
    folder = work / f"model-{inputs}"
    if not is_model(folder):
        synth, _ = commands(read_model(shipped("minmax")).content)
        recognition.run("flowkit", *synth.split()[1:-1], work / "samples")
        recognition.run("fmanet", "pretrain", work / "samples", "--out", folder, "--set", f"network.inputs={inputs}")
    return folder


def settings_of(clips: Clips, shards: list[Path], given: tuple[str, ...]) -> RunSettings:
    """Settings as `fmanet train` would have them."""
    values = load_values(None, list(given))
    if values.get("train", {}).get("start"):
        values = with_start(values, shards)
    values.setdefault("network", {})["classes"] = len(clips.classes)
    return RunSettings.from_dict(values)


_clips: dict[tuple[Path, ...], Clips] = {}
"""In a worker: those of the set."""


def asked(shards: tuple[Path, ...], given: tuple[str, ...], keep: list[int], aside: list[int]) -> list[list[float]]:
    """Return probabilities of the clips of some rows, of a network that was trained on others."""
    if shards not in _clips:
        _clips[shards] = ShardDataset(shards, GROUPING).clips()
    clips = _clips[shards]
    settings = settings_of(clips, list(shards), given)
    trained = train(clips.select(keep), settings.network, settings.train, derived_seed("pretrained", *keep))
    model = build_network(settings.network, 0)
    load_weights(model, trained.state)
    shares: list[list[float]] = predict(model, clips.select(aside), settings.train).tolist()
    return shares


def uf1(clips: Clips, rows: list[int], shares: list[list[float]]) -> float:
    """Return UF1 of some rows."""
    truth = [clips.classes[number] for number in clips.target[rows].tolist()]
    return score(truth, [clips.classes[int(np.argmax(own))] for own in shares], clips.classes).uf1


Split = tuple[list[int], list[int]]
"""Rows to train on, and rows set aside."""


def tune(
    path: Path, found: recognition.Clipset, clips: Clips, rows: dict[str, tuple[str, ...]], splits: list[Split]
) -> list[dict[str, Any]]:
    """Return UF1 over all splits of every configuration of each row; those known already are not tried again."""
    tried: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    known = {(row["row"], tuple(row["settings"])) for row in tried}
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for title, given in rows.items():
            for settings in CONFIGURATIONS:
                if (title, settings) in known:
                    continue
                jobs = [pool.submit(asked, tuple(found.shards), (*given, *settings), *parts) for parts in splits]
                answers = [own for job in jobs for own in job.result()]
                value = round(uf1(clips, [row for _, aside in splits for row in aside], answers), 4)
                tried.append({"row": title, "settings": list(settings), "uf1": value, "trainings": len(splits)})
                sys.stderr.write(f"{title} {value:.4f} {' '.join(settings)}\n")
                path.write_text(json.dumps(tried, indent=1))
    return tried


def with_best(rows: dict[str, tuple[str, ...]], tried: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the settings of each row with the configuration that did best."""
    best = {title: max((row for row in tried if row["row"] == title), key=lambda row: row["uf1"]) for title in rows}
    return {title: (*given, *best[title]["settings"]) for title, given in rows.items()}


def drawn(clips: Clips, draw: int) -> list[str]:
    """Return the subjects in an order of their own for each draw; every class is among the first four."""
    subjects = sorted(set(clips.subject))
    rng = np.random.default_rng(draw)
    while True:
        order = [subjects[number] for number in rng.permutation(len(subjects))]
        first = [row for row, subject in enumerate(clips.subject) if subject in order[: SUBJECTS[0]]]
        if len(set(clips.target[first].tolist())) == len(clips.classes):
            return order


def first_of(clips: Clips, draw: int, count: int) -> Split:
    """Return the clips of the first subjects of a draw, and those of all others."""
    chosen = drawn(clips, draw)[:count]
    keep = [row for row, subject in enumerate(clips.subject) if subject in chosen]
    return keep, [row for row, subject in enumerate(clips.subject) if subject not in chosen]


def curves(
    work: Path, found: recognition.Clipset, clips: Clips, rows: dict[str, tuple[str, ...]]
) -> list[dict[str, Any]]:
    """Return UF1 on all other subjects of networks trained on few, for each draw."""
    path = work / "curves.json"
    known: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    there = {(row["row"], row["subjects"], row["draw"]) for row in known}
    jobs = []
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for draw in range(DRAWS):
            for count in SUBJECTS:
                keep, aside = first_of(clips, draw, count)
                for title, given in rows.items():
                    if (title, count, draw) not in there:
                        job = pool.submit(asked, tuple(found.shards), given, keep, aside)
                        jobs.append((title, count, draw, aside, job))
        for title, count, draw, aside, job in jobs:
            value = round(uf1(clips, aside, job.result()), 4)
            known.append({"row": title, "subjects": count, "draw": draw, "uf1": value})
            path.write_text(json.dumps(known))
    return sorted(known, key=lambda row: (row["subjects"], row["draw"], row["row"]))


def compared(found: list[dict[str, Any]], inputs: str) -> list[dict[str, Any]]:
    """Return, for each number of subjects, both means over draws, and the differences draw by draw."""
    table = []
    for count in SUBJECTS:
        of = {
            kind: [row["uf1"] for row in found if (row["row"], row["subjects"]) == (f"{inputs}, {kind}", count)]
            for kind in ("scratch", "pretrained")
        }
        apart = np.array(of["pretrained"]) - np.array(of["scratch"])
        drawn_again = np.random.default_rng(0).choice(apart, (2000, len(apart))).mean(axis=1)
        low, high = np.quantile(drawn_again, [0.025, 0.975])
        table.append(
            {
                "inputs": inputs,
                "subjects": count,
                **{kind: round(statistics.mean(values), 4) for kind, values in of.items()},
                "difference": {
                    "value": round(float(apart.mean()), 4),
                    "low": round(float(low), 4),
                    "high": round(float(high), 4),
                },
                "better_in": f"{int((apart > 0).sum())} of {len(apart)}",
            }
        )
    return table


def start(work: Path, seeds: int) -> dict[str, Any]:
    """Return what the start is worth."""
    found = recognition.real_clips(work, recognition.WHOLE)
    clips = found.clips()
    rows: dict[str, tuple[str, ...]] = {}
    for inputs in INPUTS:
        rows[f"{inputs}, scratch"] = (*found.settings, f"network.inputs={inputs}")
        rows[f"{inputs}, pretrained"] = (f"train.start={start_of(start_model(work, inputs))}",)
    inner = recognition.inner_splits(clips, found.folds(clips))
    few_people = [first_of(clips, draw, TUNED_ON) for draw in range(DRAWS, 2 * DRAWS)]
    tried = tune(work / "tuning-start.json", found, clips, rows, inner)
    tried_on_few = tune(work / "tuning-few.json", found, clips, rows, few_people)
    rows_of_few, rows = with_best(rows, tried_on_few), with_best(rows, tried)
    everybody: dict[str, list[Prediction]] = {}
    for title, settings in rows.items():
        out = work / "loso" / title.replace(", ", "-")
        recognition.training_run(found, settings, out, seeds)
        everybody[title] = list(read_table(out / "predictions.csv").rows)
    few = curves(work, found, clips, rows_of_few)
    return {
        "seeds": seeds,
        "tuning": {"all subjects": tried, f"{TUNED_ON} subjects": tried_on_few},
        "chosen": {
            name: {title: [one for one in own if not one.startswith("train.start")] for title, own in chosen.items()}
            for name, chosen in (("all subjects", rows), (f"{TUNED_ON} subjects", rows_of_few))
        },
        "all_subjects": [
            {"row": title, **recognition.bounds(subject_interval(own, clips.classes).uf1)}
            for title, own in everybody.items()
        ],
        "differences": {
            f"{a} - {b}": recognition.bounds(paired_difference(everybody[a], everybody[b], clips.classes))
            for a, b in (
                ("both, pretrained", "both, scratch"),
                ("rise, pretrained", "rise, scratch"),
                ("both, pretrained", "rise, pretrained"),
            )
        },
        "few_subjects": [row for inputs in INPUTS for row in compared(few, inputs)],
        "draws": few,
    }


# --- tables


def with_bounds(value: dict[str, float], sign: str = "") -> str:
    """Return a score, or with "+" a difference, and its interval."""
    return f"{value['value']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def zero_shot_table(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table in README.md: clips that nobody trained on."""
    lines = ["| clips of | clips | UF1 | UAR | ACC |", "| --- | --- | --- | --- | --- |"]
    for measured in found.values():
        for test in measured["tests"]:
            scores = [with_bounds(test[name]) for name in ("uf1", "uar", "acc")]
            lines.append(f"| {' | '.join([test['name'], str(test['clips']), *scores])} |")
    return lines


def start_table(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table in README.md: networks from random weights beside those that start from the samples."""
    lines = [f"| trains on | {' | '.join(map(str, SUBJECTS))} subjects | all but one |", f"| --- |{' --- |' * 5}"]
    everybody = {row["row"]: row for row in found["all_subjects"]}
    for inputs, words in (("both", "both phases"), ("rise", "rise alone")):
        few = [row for row in found["few_subjects"] if row["inputs"] == inputs]
        for kind, what in (("scratch", "random start"), ("pretrained", "pretrained")):
            cells = [f"{row[kind]:.3f}" for row in few]
            lines.append(f"| {words}, {what} | {' | '.join(cells)} | {with_bounds(everybody[f'{inputs}, {kind}'])} |")
        apart = [with_bounds(row["difference"], "+") for row in few]
        whole = with_bounds(found["differences"][f"{inputs}, pretrained - {inputs}, scratch"], "+")
        lines.append(f"| {words}, difference | {' | '.join(apart)} | {whole} |")
    return lines


# --- speed


def speed(work: Path, _: int) -> dict[str, Any]:
    """Return clips per second on one core, in this process and as a command."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    from fmanet.inference import predict_by_model

    shards = [recognition.our_shards(work, recognition.WHOLE, held_out) for held_out in (False, True)]
    count, out = len(ShardDataset(shards, None, verify=False)), work / "answers.csv"
    times: dict[str, list[float]] = {"in a process that is warm": [], "as a command": []}
    predict_by_model(shipped("px"), shards, out)
    for _ in range(5):
        begin = time.perf_counter()
        predict_by_model(shipped("px"), shards, out)
        times["in a process that is warm"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        recognition.run("fmanet", "predict", "--pretrained", *shards, "--out", out)
        times["as a command"].append(time.perf_counter() - begin)
    return {
        "clips": count,
        "side": 112,
        "clips_per_second": {name: round(count / statistics.median(own), 1) for name, own in times.items()},
        "seconds": {name: [round(one, 3) for one in own] for name, own in times.items()},
    }


PARTS = {"zero-shot": zero_shot, "start": start, "speed": speed}


def main() -> None:
    """Measure, print, store."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work", type=Path, required=True, help="folder of shards and runs; a stopped call goes on")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks of each fold")
    parser.add_argument("--ship", action="store_true", help="with zero-shot: write the figures into the model cards")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = PARTS[options.part](options.work, options.seeds)
    print(json.dumps({name: value for name, value in found.items() if name not in ("draws", "tuning")}, indent=1))
    if options.ship:
        ship(found)
    if options.out:
        machine.write(options.out, f"pretrained-{options.part}", found)


if __name__ == "__main__":
    main()
