"""Where the time of TV-L1 goes on a GPU: by kernel and level, by number of pairs at once, on 1 to 4 streams, from host arrays.

python benchmarks/gpu_probe.py --out FILE.json

The backend is `cuda`. Nothing is judged here: `gpu.py` does that. The file is rewritten after each question, so an interrupted run
keeps the answers so far. `--once` computes one batch between the marks that a profiler listens for, and prints nothing.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit_kernels import BackendUnavailable, TVL1Params, resolve_backend, tvl1_flow
from flowkit_kernels.backend import describe_device

PARAMS = TVL1Params.preset("fixed")
WARM_UP = 2
"""Calls before anything is timed: the first loads kernels, the second records the graph."""
PIXEL_KERNELS = ("gradient_texels", "linearise", "median")


@dataclass(frozen=True)
class Plan:
    """What is measured at one image size.

    Attributes
    ----------
    size, items : int
        Pixels per side, and pairs per batch.
    chunks : tuple of int
        Pairs that are computed at once, in addition to the default.
    streams : tuple of (int, int)
        Chunks that are computed at once, each on a stream of its own, and pairs per chunk.
    """

    size: int
    items: int
    chunks: tuple[int, ...]
    streams: tuple[tuple[int, int], ...]


PLANS = (
    Plan(128, 512, (16, 32, 44, 64, 88, 132, 264, 512), ((1, 53), (2, 26), (2, 53), (3, 26), (4, 26))),
    Plan(224, 256, (8, 12, 17, 26, 33, 66, 132, 256), ((1, 17), (2, 8), (2, 17), (3, 8), (4, 8))),
)
QUICK = (Plan(48, 4, (1, 2), ((1, 2), (2, 1))),)


def images(size: int, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return onsets and apexes, (N, H, W): blurred noise that moves by up to 1.5 px along waves; eight pairs, repeated."""
    rng = np.random.default_rng(size)
    margin = 8
    noise = rng.random((8, size + 2 * margin, size + 2 * margin), dtype=np.float32)
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4)) / np.float32(7)
    noise = (noise - noise.min()) / np.ptp(noise)
    y, x = np.mgrid[:size, :size]
    u, v = 1.5 * np.sin(2 * np.pi * y / 60), np.cos(2 * np.pi * (x + y) / 80)
    apex = noise[:, margin:-margin, margin:-margin]
    onset = _sampled(noise, y + v + margin, x + u + margin)
    which = np.arange(count) % len(noise)
    return np.ascontiguousarray(onset[which], np.float32), np.ascontiguousarray(apex[which])


def _sampled(stack: Any, y: Any, x: Any) -> Any:
    """Sample each image at these positions, with linear interpolation."""
    rows, columns = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - rows, x - columns
    upper = stack[:, rows, columns] * (1 - right) + stack[:, rows, columns + 1] * right
    lower = stack[:, rows + 1, columns] * (1 - right) + stack[:, rows + 1, columns + 1] * right
    return upper * (1 - down) + lower * down


def on_device(size: int, count: int) -> list[Any]:
    """Return `images` as arrays on the GPU."""
    import cupy

    return [cupy.asarray(stack) for stack in images(size, count)]


@contextmanager
def chunks_of(items: int | None, at_once: int | None = None) -> Iterator[None]:
    """Set how many items are computed at once, in how many chunks (None: the default), with no memory kept from others."""
    from flowkit_kernels.cuda import batches

    chosen = batches.chunk_items, batches.COMPUTED_AT_ONCE, batches.KEPT_SOLVERS
    batches.forget_workers()
    if items is not None:
        batches.chunk_items = lambda *_, **__: items
    if at_once is not None:
        batches.COMPUTED_AT_ONCE = batches.KEPT_SOLVERS = at_once
    try:
        yield
    finally:
        batches.chunk_items, batches.COMPUTED_AT_ONCE, batches.KEPT_SOLVERS = chosen
        batches.forget_workers()


def rates(call: Callable[[], object], pairs: int, seconds: float) -> dict[str, float]:
    """Return pairs per second, by the clock of the GPU and of the host (medians)."""
    import cupy

    for _ in range(WARM_UP):
        call()
    cupy.cuda.Device().synchronize()
    spent: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(spent) < 3 or time.perf_counter() < end:
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        start = time.perf_counter()
        before.record()
        call()
        after.record()
        after.synchronize()
        spent.append((cupy.cuda.get_elapsed_time(before, after) / 1000, time.perf_counter() - start))
    device, host = (statistics.median(column) for column in zip(*spent, strict=True))
    return {"pairs_per_s": pairs / device, "host_pairs_per_s": pairs / host, "calls": len(spent)}


def by_chunk(plan: Plan, seconds: float) -> dict[str, Any]:
    """Return the rates by how many pairs are computed at once, the default first."""
    arrays = on_device(plan.size, plan.items)
    found = {}
    for items in (None, *plan.chunks):
        with chunks_of(items):
            call = lambda: tvl1_flow(*arrays, PARAMS, backend="cuda")  # noqa: E731 - timed as it stands
            found[str(items or "default")] = rates(call, plan.items, seconds)
    return found


def by_streams(plan: Plan, seconds: float) -> list[dict[str, Any]]:
    """Return the rates with so many chunks at once, each on a stream of its own."""
    arrays, found = on_device(plan.size, plan.items), []
    for streams, chunk in plan.streams:
        with chunks_of(streams * chunk, streams):
            call = lambda: tvl1_flow(*arrays, PARAMS, backend="cuda")  # noqa: E731 - timed as it stands
            found.append({"streams": streams, "chunk": chunk, **rates(call, plan.items, seconds)})
    return found


def by_kernel(plan: Plan, _seconds: float) -> list[dict[str, Any]]:
    """Return the microseconds per pair of each kernel at each level, from events around every launch; the slowest first."""
    from flowkit_kernels.cuda import device

    chunk = plan.streams[0][1]
    arrays = on_device(plan.size, chunk)
    here = device.device_of(device.current_index())
    plain, timed = here.launch, list[tuple[Any, Any, Any]]()

    def launch(kernel: str, grid: Any, block: Any, *arguments: Any, shared_bytes: int = 0) -> None:
        before, after = _event(), _event()
        before.record()
        plain(kernel, grid, block, *arguments, shared_bytes=shared_bytes)
        after.record()
        timed.append(((kernel, _level(kernel, arguments), tuple(grid), tuple(block)), before, after))

    with chunks_of(chunk, 1):
        tvl1_flow(*arrays, PARAMS, backend="cuda")
    with chunks_of(chunk, 1):  # a fresh solver launches kernels one by one, without a graph
        here.launch = launch  # type: ignore[method-assign]
        try:
            tvl1_flow(*arrays, PARAMS, backend="cuda")
        finally:
            del here.launch
        return _by_kernel(timed, chunk)


def _by_kernel(timed: Sequence[tuple[Any, Any, Any]], pairs: int) -> list[dict[str, Any]]:
    import cupy

    cupy.cuda.Device().synchronize()
    spent: dict[Any, list[float]] = collections.defaultdict(list)
    for what, before, after in timed:
        spent[what].append(1000 * cupy.cuda.get_elapsed_time(before, after))
    rows = [
        {"kernel": kernel, "level": level, "grid": grid, "block": block, "launches": len(each)}
        | {"us_a_launch": round(statistics.median(each), 2), "us_a_pair": round(sum(each) / pairs, 3)}
        for (kernel, level, grid, block), each in spent.items()
    ]
    return sorted(rows, key=lambda row: -row["us_a_pair"])


def _event() -> Any:
    import cupy

    return cupy.cuda.Event()


def _level(kernel: str, arguments: Sequence[Any]) -> tuple[int, ...]:
    """Return height and width of the level that a kernel works on, taken from its int32 arguments; () if they do not say."""
    numbers = [int(argument) for argument in arguments if isinstance(argument, np.int32)]
    if kernel.startswith("resize"):
        return tuple(numbers[2:4])
    return tuple(numbers[:2]) if kernel in PIXEL_KERNELS or kernel.startswith("iterate") else ()


def from_host(plan: Plan, seconds: float) -> dict[str, float]:
    """Return the rate with NumPy arrays in and out, by the clock of the host."""
    stacks = images(plan.size, plan.items)
    found = rates(lambda: tvl1_flow(*stacks, PARAMS, backend="cuda"), plan.items, seconds)
    return {"host_pairs_per_s": found["host_pairs_per_s"]}


QUESTIONS = {"kernels": by_kernel, "chunks": by_chunk, "streams": by_streams, "host_arrays": from_host}


def summary(plan: Plan, name: str, found: Any) -> str:
    """Return the answer as one line."""
    where = f"{plan.size} x {plan.size}"
    if isinstance(found, str):
        return f"{where}, {name}: {found}"
    if name == "kernels":
        total = sum(row["us_a_pair"] for row in found) or 1.0
        share = collections.Counter[str]()
        for row in found:
            share[row["kernel"]] += row["us_a_pair"]
        return f"{where}: " + ", ".join(f"{kernel} {100 * us / total:.0f} %" for kernel, us in share.most_common(4))
    if name == "chunks":
        best = max(found, key=lambda items: found[items]["pairs_per_s"])
        rate, most = found["default"]["pairs_per_s"], found[best]["pairs_per_s"]
        return f"{where}: {rate:.0f} pairs/s with the default number at once, {most:.0f} with {best}"
    if name == "streams":
        each = (f"{row['streams']} of {row['chunk']}: {row['pairs_per_s']:.0f}" for row in found)
        return f"{where}, pairs/s by streams and chunk: {', '.join(each)}"
    return f"{where}: {found['host_pairs_per_s']:.0f} pairs/s with host arrays"


def once(plan: Plan) -> None:
    """Compute one batch between start and stop of the profiler; an earlier batch has loaded the kernels."""
    import cupy

    arrays = on_device(plan.size, plan.streams[0][1])
    with chunks_of(plan.streams[0][1], 1):
        tvl1_flow(*arrays, PARAMS, backend="cuda")
    with chunks_of(plan.streams[0][1], 1):
        cupy.cuda.Device().synchronize()
        cupy.cuda.runtime.profilerStart()
        tvl1_flow(*arrays, PARAMS, backend="cuda")
        cupy.cuda.Device().synchronize()
        cupy.cuda.runtime.profilerStop()


def main() -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the answers as JSON")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each rate")
    parser.add_argument("--quick", action="store_true", help="tiny batches: tries the script, measures nothing")
    parser.add_argument("--once", action="store_true", help="one batch for a profiler, nothing else")
    options = parser.parse_args()
    try:
        resolve_backend("cuda")
    except BackendUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    plans = QUICK if options.quick else PLANS
    if options.once:
        once(plans[0])
        return 0
    from flowkit_kernels.cuda.device import translated_errors

    failed = 0
    result: dict[str, Any] = {"summary": [], "device": describe_device("cuda")}
    for plan in plans:
        for name, ask in QUESTIONS.items():
            try:
                with translated_errors():
                    found: Any = ask(plan, 0.01 if options.quick else options.seconds)
            except Exception as error:  # noqa: BLE001 - the next question may have an answer
                found = f"{type(error).__name__}: {error}"
            result[f"{name}_{plan.size}"] = found
            result["summary"].append(summary(plan, name, found))
            if options.out:
                options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            sys.stdout.write(f"{result['summary'][-1]}\n")
            sys.stdout.flush()
            failed += isinstance(found, str)
    return 0 if failed == 0 else 3 if failed == len(plans) * len(QUESTIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
