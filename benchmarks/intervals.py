"""How well every expression of a long recording is found, how fast, and in how much memory; on frozen synthetic recordings.

    python benchmarks/intervals.py --folder /data/recordings --out benchmarks/results/intervals.json

The recordings are those of `scenes/recordings.toml`: people who talk, blink, turn their heads and show micro- and
macro-expressions, at noise 2. They are rendered into --folder, which takes an hour, and read by `flowkit spot-intervals` as
anybody's videos: faces are found by MediaPipe. Scores are those of `flowkit spot-score`: F1 at an intersection over union of 0.5,
pooled over videos, with 95 % bootstrap intervals over videos. `--tuning` takes the people for whoever chooses settings.

recall      share of the true micro-expressions that are hits, by expression, by peak, and by what else happened meanwhile
blinks      F1 of the blinks, at the same overlap
speed       two recordings of a minute, 640 x 480, 30 frames per second, with as many workers as there are cores
memory      proportional set size of all processes, sampled ten times per second, of recordings of 2 and of --minutes minutes: the
            same video again and again; and of 8 minutes with one worker
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av

import machine
import scene_sets
from flowkit.inputs.manifest import read_manifest
from flowkit.spotting.scores import Expression, matched, read_expressions, score_spotting
from flowkit.synthetic.recordings import RecordingConfig, record
from memory import memory_mb, tree

GROUPS = ("30 fps", "60 fps", "200 fps")
PEAKS_PX = (0.5, 0.8, 1.25, 2.0)
"""Bounds of the peaks that recall is told for."""
Record = dict[str, Any]


def rendered(folder: Path, group: str, people: str, subjects: int = 0) -> Path:
    """The manifest of the true expressions of a group, whose videos are rendered unless they are there."""
    more = {"subjects": subjects} if subjects else {}
    config = scene_sets.recording_settings(group, people, **more)
    return _recorded(folder / f"{people}-{group.replace(' ', '-')}", config) / "manifest.csv"


def _recorded(folder: Path, config: RecordingConfig) -> Path:
    """A folder of recordings: that of an earlier run, if it was finished."""
    if not (folder / "events.csv").is_file():
        record(folder, config)
    return folder


def spotted(videos: Path, out: Path) -> float:
    """Search a folder of recordings; seconds that took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "flowkit.cli", "spot-intervals", str(videos), "--out", str(out), "--overwrite"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"spot-intervals ended with exit code {done.returncode}")
    return time.perf_counter() - began


def measured(folder: Path, group: str, people: str) -> Record:
    """Scores of one group."""
    truth_file = rendered(folder, group, people)
    with tempfile.TemporaryDirectory() as place:
        found_file = Path(place) / "found.csv"
        seconds = spotted(truth_file.parent, found_file)
        truth, found = read_expressions(truth_file), read_expressions(found_file)
        blinks = _blinks(truth_file.parent, found_file.with_suffix(".json"))
    scores = score_spotting(truth, found)
    config = scene_sets.recording_settings(group, people)
    minutes = config.subjects * config.seconds / 60
    return {
        "recordings": config.subjects,
        "minutes": minutes,
        "seconds": round(seconds, 1),
        **{kind: _rounded(score) for kind, score in scores.to_dict()["kinds"].items()},
        "false_alarms_per_minute": {
            kind: round((one.found - one.hits) / minutes, 2) for kind, one in scores.kinds.items()
        },
        "blink_f1": blinks,
        "recall": recalls(truth_file, truth, found),
    }


def recalls(truth_file: Path, truth: Sequence[Expression], found: Sequence[Expression]) -> Record:
    """Hits among the true micro-expressions, by what they are."""
    peaks = {(clip.path, clip.onset): float(dict(clip.extra)["peak_px"]) for clip in read_manifest(truth_file)}
    others = _events(truth_file.parent)
    hits: list[tuple[Expression, bool]] = []
    for video in sorted({one.video for one in truth}):
        here, there = ([one for one in table if (one.video, one.kind) == (video, "micro")] for table in (truth, found))
        pairs = {i for i, _ in matched(here, there)}
        hits += [(one, i in pairs) for i, one in enumerate(here)]

    def share(chosen: Callable[[Expression], bool]) -> str:
        kept = [hit for one, hit in hits if chosen(one)]
        return f"{sum(kept)} of {len(kept)}"

    def meanwhile(kind: str) -> Callable[[Expression], bool]:
        return lambda one: any(
            begin <= one.offset and end >= one.onset for what, begin, end in others[one.video] if what == kind
        )

    labels = {
        label: share(lambda one, label=label: one.label == label) for label in sorted({one.label for one in truth})
    }
    bounds = list(itertools.pairwise(PEAKS_PX))
    by_peak = {
        f"{low:g} to {high:g} px": share(lambda one, low=low, high=high: low <= peaks[one.video, one.onset] <= high)
        for low, high in bounds
    }
    alone = {f"while {kind}": share(meanwhile(kind)) for kind in ("talking", "turn", "blink")}
    quiet = share(lambda one: not any(meanwhile(kind)(one) for kind in ("talking", "turn", "blink")))
    return {"label": labels, "peak": by_peak, "meanwhile": {**alone, "nothing else": quiet}}


def _events(folder: Path) -> dict[str, list[tuple[str, int, int]]]:
    """All that happens, by video."""
    with (folder / "events.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    suffix = next(folder.glob("s01.*")).suffix
    found: dict[str, list[tuple[str, int, int]]] = {}
    for row in rows:
        event = row["kind"], int(row["onset"]), int(row["offset"])
        found.setdefault(f"{row['recording']}{suffix}", []).append(event)
    return found


def _blinks(folder: Path, json_file: Path) -> float:
    """F1 of the blinks."""
    true = found = hits = 0
    events = _events(folder)
    for recording in json.loads(json_file.read_text(encoding="utf-8"))["recordings"]:
        path = recording["path"]
        there = [
            Expression(path, one["onset"], one["offset"], "blink")
            for one in recording["intervals"]
            if one["kind"] == "blink"
        ]
        here = [Expression(path, begin, end, "blink") for kind, begin, end in events[path] if kind == "blink"]
        hits, true, found = hits + len(matched(here, there)), true + len(here), found + len(there)
    return round(2 * hits / max(true + found, 1), 3)


def _rounded(score: Record) -> Record:
    return {
        name: [round(one, 3) for one in value] if isinstance(value, list) else round(value, 3)
        for name, value in score.items()
    }


def speed(folder: Path) -> Record:
    """Time of two recordings of 640 x 480 px at 30 frames per second."""
    config = RecordingConfig(subjects=2, seconds=60.0, width=640, height=480, fps=30.0, seed=7, noise=2.0)
    videos = _recorded(folder / "640x480", config)
    with tempfile.TemporaryDirectory() as place:
        seconds = min(spotted(videos, Path(place) / f"{k}.csv") for k in range(3))
    length = config.subjects * config.seconds
    return {"recordings_s": length, "seconds": round(seconds, 1), "times_real_time": round(length / seconds, 1)}


def memory(folder: Path, minutes: float) -> Record:
    """Peak memory of a short and of a long recording."""
    source = rendered(folder, "30 fps", "judging").with_name("s01.mp4")
    short = 2.0
    with tempfile.TemporaryDirectory(dir=folder) as place:
        results = {}
        for length in (short, minutes):
            path = Path(place) / f"{length:g}-minutes.mp4"
            repeated(source, path, round(length / short))
            results[f"{length:g} minutes"] = {"mb_on_disk": round(path.stat().st_size / 1e6), **_peaks(path)}
            path.unlink()
        repeated(source, path, 4)
        results["8 minutes, one worker"] = _peaks(path, "--workers", "1")
    return results


def repeated(source: Path, path: Path, times: int) -> None:
    """Write a video again and again into one file, without decoding it."""
    with av.open(str(path), "w") as out:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                there = container.streams.video[0]
                stream = stream or out.add_stream_from_template(there)
                last = 0
                for packet in container.demux(there):
                    if packet.dts is None:
                        continue
                    last = max(last, (packet.pts or 0) + (packet.duration or 1))
                    packet.pts, packet.dts, packet.stream = (packet.pts or 0) + offset, packet.dts + offset, stream
                    out.mux(packet)
                offset += last


def _peaks(video: Path, *more: str) -> dict[str, float]:
    """Highest memory of a search, MB, and the seconds it took."""
    command = [sys.executable, "-m", "flowkit.cli", "spot-intervals", str(video), "--quiet", "--overwrite"]
    began = time.perf_counter()
    running = subprocess.Popen([*command, "--out", str(video.with_suffix(".csv")), *more], stdout=subprocess.DEVNULL)
    found = {"all_processes_mb": 0.0, "parent_mb": 0.0}
    while running.poll() is None:
        sizes = [memory_mb(pid) for pid in tree(running.pid)]
        found = {
            "all_processes_mb": max(found["all_processes_mb"], sum(sizes)),
            "parent_mb": max(found["parent_mb"], sizes[0]),
        }
        time.sleep(0.1)
    if running.returncode:
        sys.exit(f"spot-intervals ended with exit code {running.returncode}")
    rounded = {name: round(value, 1) for name, value in found.items()}
    return {**rounded, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where recordings are rendered, or lie since an earlier run"
    )
    parser.add_argument("--tuning", action="store_true", help="the people for tuning; scores alone")
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=GROUPS)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="length of the long recording for memory; 0 for none (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    people = "tuning" if options.tuning else "judging"
    results: Record = {"people": people, "workers": os.cpu_count(), "groups": {}}
    for group in options.groups:
        results["groups"][group] = measured(options.folder, group, people)
        print(group, results["groups"][group], flush=True)
    if not options.tuning:
        results["speed"] = speed(options.folder)
        print(results["speed"], flush=True)
        if options.minutes:
            results["memory"] = memory(options.folder, options.minutes)
            print(results["memory"])
    if options.out:
        machine.write(options.out, "intervals", results)


if __name__ == "__main__":
    main()
