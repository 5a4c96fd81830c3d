"""What training costs: a leave-one-subject-out run, one forward pass, loading, networks trained together, memory by folds.

    python benchmarks/training.py SHARDS --set network.floor_px=0 --out benchmarks/results/training.json

Bars: a run of one configuration and one seed over the 309 clips of megc-flow28 within 120 s on two cores; a forward pass of one
clip of 112 x 112 under 5 ms on one core; loading never dominates training; memory does not grow with the number of folds. With
--before CHECKOUT, the run of an older version takes turns with this one's, on the same shards: no slower is the bar.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import machine
from flowkit.settings_io import load_values
from fmanet.building import build_network, multiply_adds, parameter_count
from fmanet.dataset import Clips, ShardDataset
from fmanet.protocol import loso, split
from fmanet.settings import NetworkConfig, RunSettings
from fmanet.stacked_training import train_together
from fmanet.training import State, train

FORWARD_BAR_MS, RUN_BAR_S, BESIDE_BAR = 5.0, 120.0, 1.0
ROUNDS = 2
"""Of the runs that take turns; the faster one of each version counts."""
PEAK = """
import resource, sys
from fmanet.cli import main
try:
    main()
finally:
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(own, workers, file=sys.stderr)
"""


def fmanet(*arguments: str | Path, checkout: Path | None = None) -> tuple[dict[str, Any], float, float]:
    """What a command prints as JSON, and the peak memory of its process and of its largest worker, MiB."""
    where = dict(os.environ)
    if checkout is not None:
        where["PYTHONPATH"] = os.pathsep.join(str(checkout.absolute() / part) for part in ("", "kernels", "models"))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)], capture_output=True, text=True, check=True, env=where
    )
    own, workers = (round(int(kib) / 1024, 1) for kib in done.stderr.split()[-2:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found, own, workers


def forward_ms(config: NetworkConfig, size: int, repeats: int = 200) -> dict[str, Any]:
    """One clip through the network on one thread, milliseconds."""
    torch.set_num_threads(1)
    network = build_network(config, 0).eval()
    flow = torch.randn(1, 2, 2, size, size, generator=torch.Generator().manual_seed(0))
    valid, region = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, size, size, dtype=torch.bool)
    times = []
    with torch.no_grad():
        for _ in range(repeats + 20):
            begin = time.perf_counter()
            network(flow, valid, region)
            times.append(1000 * (time.perf_counter() - begin))
    low, median, high = statistics.quantiles(times[20:], n=4)
    return {
        "size": size,
        "median_ms": round(median, 3),
        "quartiles_ms": [round(low, 3), round(high, 3)],
        "parameters": parameter_count(network),
        "multiply_adds": multiply_adds(network, size, size),
    }


def loading(shards: Path, settings: RunSettings) -> dict[str, Any]:
    """Seconds to read and verify all clips, beside the seconds to train one network on them."""
    begin = time.perf_counter()
    clips = ShardDataset([shards], settings.classes, size=settings.size or None).clips()
    read = time.perf_counter() - begin
    training, _ = split(clips, loso(clips)[0])
    network = dataclasses.replace(settings.network, classes=len(clips.classes))
    begin = time.perf_counter()
    train(training, network, settings.train, 0)
    return {"clips": len(clips), "load_s": round(read, 3), "train_one_network_s": round(time.perf_counter() - begin, 3)}


def largest_difference(one: State, other: State) -> float:
    """Over all weights."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def together(parts: Sequence[Clips], settings: RunSettings, batch: int) -> dict[str, Any]:
    """Seconds of several networks one after the other and trained together, without dropout, whose masks differ."""
    network = dataclasses.replace(settings.network, classes=len(parts[0].classes), dropout=0.0)
    some = dataclasses.replace(settings.train, epochs=2, batch=batch)
    seeds = range(len(parts))
    begin = time.perf_counter()
    alone = [train(own, network, some, seed) for own, seed in zip(parts, seeds, strict=True)]
    between = time.perf_counter()
    stacked = train_together(parts, network, some, list(seeds))
    end = time.perf_counter()
    return {
        "networks": len(parts),
        "batch": batch,
        "one_by_one_s": round(between - begin, 3),
        "together_s": round(end - between, 3),
        "speed_up": round((between - begin) / (end - between), 2),
        "largest_difference_of_a_weight": max(
            largest_difference(a.state, b.state) for a, b in zip(alone, stacked, strict=True)
        ),
    }


def memory(shards: Path, given: list[str]) -> list[dict[str, Any]]:
    """Peak memory of a run of few folds and of one of all."""
    clips = ShardDataset([shards], RunSettings.from_dict(load_values(None, given)).classes).clips()
    subjects = sorted(set(clips.subject))
    few = [name for name in subjects if _trainable_without(clips, name)][:3]
    found = []
    for flags in (["--protocol", "holdout", "--hold-out", ",".join(few)], []):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            sets = [word for text in given for word in ("--set", text)]
            summary, own, worker = fmanet(
                "train", shards, "--out", out, "--epochs", "1", "--workers", "2", "--json", *sets, *flags
            )
        found.append({"networks": summary["planned"], "parent_peak_mib": own, "worker_peak_mib": worker})
    return found


def _trainable_without(clips: Clips, subject: str) -> bool:
    held = [row for row, name in enumerate(clips.subject) if name == subject]
    return len({int(clips.target[row]) for row in held}) == len(clips.classes)


def run_seconds(shards: Path, given: list[str], checkout: Path | None = None) -> dict[str, Any]:
    """A whole run of one seed, as the command does it."""
    sets = [word for text in given for word in ("--set", text)]
    with tempfile.TemporaryDirectory() as folder:
        summary, _, _ = fmanet("train", shards, "--out", Path(folder) / "run", "--json", *sets, checkout=checkout)
    return {"networks": summary["planned"], "seconds": summary["seconds"]}


def beside(shards: Path, given: list[str], checkout: Path) -> dict[str, Any]:
    """The run of this version and that of an older one, taking turns."""
    turns = [(run_seconds(shards, given), run_seconds(shards, given, checkout)) for _ in range(ROUNDS)]
    own, older = ([run["seconds"] for run in runs] for runs in zip(*turns, strict=True))
    return {"seconds": own, "seconds_before": older, "ratio": round(min(own) / min(older), 3)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--set", dest="given", action="append", default=[])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="also time the run of an older version")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    settings = RunSettings.from_dict(load_values(None, options.given))
    clips = ShardDataset([options.shards], settings.classes).clips()
    parts = [split(clips, fold)[0] for fold in loso(clips)]
    steps = max(len(own) for own in parts) // 32 * 32
    alike = [own.select(range(steps)) for own in parts if len(own) >= steps][:8]
    results: dict[str, Any] = {
        "shards": str(options.shards.name),
        "settings": settings.to_dict(),
        "forward": [forward_ms(settings.network, size) for size in (28, 112)],
        "loading": loading(options.shards, settings),
        "stacked": [together(alike, settings, batch) for batch in (16, 32, 64)],
        "memory": memory(options.shards, options.given),
        "run": run_seconds(options.shards, options.given),
    }
    results["within_bars"] = {
        "forward_112": results["forward"][1]["median_ms"] < FORWARD_BAR_MS,
        "run": results["run"]["seconds"] < RUN_BAR_S,
    }
    if options.before:
        results["beside"] = beside(options.shards, options.given, options.before)
        results["within_bars"]["beside"] = results["beside"]["ratio"] <= BESIDE_BAR
    sys.stdout.write(json.dumps({key: value for key, value in results.items() if key != "settings"}, indent=1) + "\n")
    if options.out:
        machine.write(options.out, "training", results)


if __name__ == "__main__":
    main()
