"""A model of `flowkit extract` on 8 and 16 cores with one GPU, from the stages as they are measured on this machine.

    python benchmarks/host_model.py --subjects 25 --out benchmarks/results/host_model.json

Nothing here was measured on such a machine. Measured, on idle cores of this one: the CPU time of each stage (with one worker), what
it costs to hand an aligned face to another process, and which share of taking out the head's motion holds Python's lock.
Not measured: the time of the GPU (--gpu-ms; what the kernels' instructions and memory traffic add up to).

The model: workers read and align; in the process on the GPU one thread receives faces, solves their flow, computes MM-COF and fills
the shard, others take the head's motion out, and one commits. The slowest of three bounds the run: all cores together, that one
thread with the GPU, and whatever holds Python's lock in that process. Cores of such a machine count as fast as those here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from flowkit.config import AlignConfig, ExtractConfig, FrameConfig
from flowkit.execution.messages import receive, send
from flowkit.extraction.read_and_align import AlignedClip, clip_loader
from flowkit.inputs.manifest import read_manifest
from flowkit.motion.flow import solve, stabilised
from flowkit.synthetic.dataset import SynthConfig, synthesise

GPU_MS = 0.3
CORES = (8, 16)
BATCH = 16


def stages_of(manifest: Path, out: Path, *words: str) -> dict[str, float]:
    """CPU milliseconds per clip and stage, from a run with one worker."""
    command = [sys.executable, "-m", "flowkit.cli", "extract", str(manifest), "--out", str(out), "--json", "--profile"]
    command += ["--workers", "1", "--threads", "1", "--backend", "cpu", "--size", "224", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return {row["stage"]: row["cpu_ms"] for row in json.loads(done.stdout)["profile"]["stages"]}


def aligned_batch(manifest: Path) -> list[AlignedClip]:
    """A batch of aligned clips, by their given landmarks."""
    align = AlignConfig(method="landmarks", landmarks=str(manifest.parent / "landmarks.csv"), size=224)
    with clip_loader(manifest.parent, FrameConfig(), align) as load:
        return [load(clip) for clip in read_manifest(manifest)[:BATCH]]


def _send(pipe: Any, what: Any, times: int) -> None:
    began = time.process_time()
    for _ in range(times):
        send(pipe, what)
    send(pipe, 1000 * (time.process_time() - began) / times)


def handed_over_ms(one: AlignedClip, times: int = 100) -> dict[str, float]:
    """CPU milliseconds of handing a face over, on either side."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    sender = multiprocessing.get_context("spawn").Process(target=_send, args=(theirs, one, times + 1))
    sender.start()
    receive(ours)  # it has started
    began = time.process_time()
    for _ in range(times):
        receive(ours)
    received = 1000 * (time.process_time() - began) / times
    sent = receive(ours)
    sender.join()
    return {"receive": received, "send": sent}


def locked_share(batch: list[AlignedClip], rounds: int = 9) -> float:
    """Share of taking the head's motion out that no second thread shortens (Amdahl)."""
    faces, valid = [one.face for one in batch], [one.source.key.phase_valid for one in batch]
    names, config = [one.source.clip.where for one in batch], ExtractConfig(backend="cpu")
    raw = solve(faces, valid, config.tvl1, "cpu", 1)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, found in seconds.items():
            began = time.perf_counter()
            stabilised(raw, faces, valid, "head", threads, names)
            found.append(time.perf_counter() - began)
    ratio = statistics.median(seconds[2]) / statistics.median(seconds[1])
    return min(max(2 * ratio - 1, 0.0), 1.0)


def modelled(
    stages: dict[str, float], pipe: dict[str, float], locked: float, gpu_ms: float, cores: int
) -> dict[str, Any]:
    """Clips per second by each bound, and the lowest."""
    workers_ms = stages["read"] + stages["align"] + pipe["send"]
    caller_ms = pipe["receive"] + stages["store"]
    behind_ms = stages["stabilise"] + stages["commit"]
    lock_ms = pipe["receive"] + stages["store"] + locked * stages["stabilise"]
    bounds = {
        "all cores": 1000 * cores / (workers_ms + caller_ms + behind_ms),
        "thread on the GPU": 1000 / (caller_ms + gpu_ms),
        "Python's lock": 1000 / lock_ms,
    }
    by = min(bounds, key=lambda name: bounds[name])
    return {
        "cores": cores,
        "clips_per_s": round(bounds[by]),
        "bound_by": by,
        **{k: round(v) for k, v in bounds.items()},
    }


def main() -> None:
    """Measure, model, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=25, help="synthetic people; eight clips each (25)")
    parser.add_argument(
        "--gpu-ms", type=float, default=GPU_MS, help="of flow and MM-COF per clip; not measured (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        manifest = synthesise(base / "clips", SynthConfig(subjects=options.subjects, key_frames_only=True))
        batch = aligned_batch(manifest)
        pipe, locked = handed_over_ms(batch[0]), locked_share(batch)
        given = ("--align", "landmarks", "--set", f"align.landmarks={manifest.parent / 'landmarks.csv'}")
        stages_of(manifest, base / "warm", *given)
        stages = {
            "mediapipe": stages_of(manifest, base / "found"),
            "given landmarks": stages_of(manifest, base / "given", *given),
        }
    results: dict[str, Any] = {
        "cpu_ms_per_clip": stages,
        "hand_over_cpu_ms": {name: round(value, 3) for name, value in pipe.items()},
        "share of stabilise that holds Python's lock": round(locked, 3),
        "gpu_ms (not measured)": options.gpu_ms,
        "model": {
            name: [modelled(found, pipe, locked, options.gpu_ms, cores) for cores in CORES]
            for name, found in stages.items()
        },
    }
    print(json.dumps(results, indent=1))
    if options.out:
        machine.write(options.out, "host_model", results)


if __name__ == "__main__":
    main()
