"""`flowkit bench`: what each backend answers, and only then how fast it is; beside it OpenCV's TV-L1 on the CPU.

A case is an operation at a size, with a batch, on a backend, with its arrays in the host's memory or in the device's. It is
computed once and compared with the float64 twin (above 128 x 128 with OpenCV's solver, where there is one that does not round its
coordinates). A case whose answer is wrong is reported and not timed. OpenCV is a yardstick: its difference is shown, not judged.

The figures, with P the pixels of an image and S the median seconds of a call (by device events where the arrays lie on the
device, else by the host's clock):

    items_per_s              batch / S: pairs of images (tvl1) or clips (mmcof)
    pixel_iterations_per_s   batch x iterations x (sum of P over the pyramid's levels) / S; none where a schedule may stop early
    copy_share               bytes / S, relative to the bandwidth of the best of several large copies. tvl1: 64 bytes a pixel and
                             iteration, what a kernel must move that keeps nothing between two iterations; above 1 it kept
                             them in caches or registers. mmcof: 29 P bytes a clip, flow and region read once, the map written
                             once

"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit.bench.options import (
    CPU_BATCHES,
    CPU_PIXELS,
    GPU_BATCHES,
    GPU_PIXELS,
    LABELS,
    OPENCV,
    OPS,
    SIZES,
    TWIN,
    Array,
    BenchOptions,
    Case,
    Document,
    Progress,
)
from flowkit.bench.result import heading
from flowkit.synthetic.scenes import Scene, SynthConfig, scenes
from flowkit_kernels import TVL1Params, mmcof, reference, tvl1_flow, warm_up
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.params import opencv_settings
from flowkit_kernels.timing import Spread, Stopwatch, Timing, copy_bandwidth, stopwatch, time_call

TWIN_PIXELS = 128 * 128
"""Largest image for which the twin judges although OpenCV could: it takes seconds for larger ones."""
MANY_PIXELS = 2**16
"""Largest image of which a batch holds scenes of both labels: the right answer of each takes its time."""
BORDER_PX = 8
TVL1_BYTES, MMCOF_BYTES = 64, 29


class Bar(NamedTuple):
    """How far an answer may lie off the right one."""

    mean: float
    percentile_99: float


BARS = {
    ("tvl1", "micro"): Bar(3e-3, 0.04),
    ("tvl1", "fixed"): Bar(3e-3, 0.04),
    ("tvl1", "opencv"): Bar(0.015, math.inf),  # in float32 a warp may stop at another iteration
    ("mmcof", "micro"): Bar(1e-5, 1e-4),
    ("mmcof", "fixed"): Bar(1e-5, 1e-4),
    ("mmcof", "opencv"): Bar(1e-5, 1e-4),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the worst item of an answer lies off the judge's; for tvl1 in pixels, 8 px off the border."""

    judge: str
    mean: float
    percentile_99: float

    def within(self, bar: Bar) -> bool:
        """Whether it is small enough; NaN never is."""
        return self.mean <= bar.mean and self.percentile_99 <= bar.percentile_99


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a case.

    Attributes
    ----------
    case : Case
    status : {"measured", "wrong", "failed", "not available"}
    detail : str
        Why it was not measured.
    difference : Difference, optional
        None for the judge itself.
    timing : Timing, optional
    seconds : Spread, optional
        That of the two clocks which the figures are taken from.
    items_per_s, pixel_iterations_per_s, copy_share : float, optional
        As the module says.
    """

    case: Case
    status: Literal["measured", "wrong", "failed", "not available"]
    detail: str = ""
    difference: Difference | None = None
    timing: Timing | None = None
    seconds: Spread | None = None
    items_per_s: float | None = None
    pixel_iterations_per_s: float | None = None
    copy_share: float | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of each operation for K items: images (K, H, W) twice, or flow (K, 2, 2, H, W)."""

    arguments: Mapping[str, tuple[Array, ...]]

    def batch(self, op: str, count: int) -> tuple[Array, ...]:
        """The arguments of a call with `count` items, which are those K in turn."""
        return tuple(array[np.arange(count) % len(array)] for array in self.arguments[op])


@dataclass(frozen=True, slots=True)
class RightAnswer:
    """What the judge, the twin or OpenCV, says to the K items of an operation."""

    judge: str
    items: Array

    def difference(self, answer: Array) -> Difference:
        """Of the worst item: one wrong pair among many must not drown."""
        expected = self.items[np.arange(len(answer)) % len(self.items)]
        if answer.shape != expected.shape:
            return Difference(self.judge, math.inf, math.inf)
        inside = (..., slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX))
        apart = np.abs(answer[inside].astype(np.float64) - expected[inside]).reshape(len(answer), -1)
        return Difference(self.judge, float(apart.mean(axis=1).max()), float(np.percentile(apart, 99, axis=1).max()))


def measure_cases(options: BenchOptions, progress: Progress = lambda _: None, into: Document | None = None) -> Document:
    """Check and measure every case.

    Parameters
    ----------
    options : BenchOptions
    progress : callable, optional
        Told in words what comes next.
    into : dict, optional
        Becomes the result, row by row: whoever stops the run finds in it what was measured, with interrupted still true.

    Returns
    -------
    dict
        Plain values, as `--json` prints them: title, format, machine, settings, interrupted, copy_bytes_per_s by memory, rows.

    Raises
    ------
    BackendUnavailable
    DeviceLost
    """
    backends = options.concrete_backends()
    document = {} if into is None else into
    document.update(heading(backends, options))
    if "cpu" in backends:
        warm_up("cpu", progress)
    memories = dict.fromkeys(_memory(name) for name in backends)
    progress(f"Bandwidth of a large copy: {', '.join(memories)}.")
    watches = {memory: stopwatch(memory) for memory in memories}
    bandwidth = {memory: copy_bandwidth(watch) for memory, watch in watches.items()}
    document.update(copy_bytes_per_s=bandwidth, rows=[])
    for height, width in options.sizes or SIZES:
        inputs = make_inputs(height, width)
        for op in options.ops or OPS:
            progress(f"{op}, {height} x {width}: {', '.join(backends)}.")
            right = right_answer(op, inputs, options.preset)
            for case in cases(op, height, width, backends, options):
                memory = _memory(case.backend)
                row = examine(case, inputs, right, watches[memory], options.seconds)
                document["rows"].append(dataclasses.asdict(_with_figures(row, bandwidth[memory])))
    document["interrupted"] = False
    return document


def make_inputs(height: int, width: int) -> Inputs:
    """Faces whose motion is known: onset and apex of each, and the true flow of both phases."""
    peak_px = 0.012 * min(height, width, 208)
    config = SynthConfig(
        subjects=1,
        classes=LABELS if height * width <= MANY_PIXELS else LABELS[:1],
        width=width,
        height=height,
        cropped=height == width,
        peak_px=(0.7 * peak_px, peak_px),
        drift_px=1.0,
    )
    rendered = list(scenes(config))
    onset = np.stack([_grey(scene, 0) for scene in rendered])
    apex = np.stack([_grey(scene, scene.draw.apex) for scene in rendered])
    flow = np.stack([scene.truth().flow for scene in rendered])
    return Inputs({"tvl1": (onset, apex), "mmcof": (flow,)})


def right_answer(op: str, inputs: Inputs, preset: str) -> RightAnswer:
    """The answer that every backend is held against."""
    arguments = inputs.arguments[op]
    height, width = arguments[0].shape[-2:]
    opencv = op == "tvl1" and height * width > TWIN_PIXELS and _opencv_judges()
    judge = OPENCV if opencv else TWIN
    case = Case(op, height, width, len(arguments[0]), judge, "host", preset)
    return RightAnswer(judge, _call(case, arguments)())


def cases(op: str, height: int, width: int, backends: Sequence[str], options: BenchOptions) -> Iterator[Case]:
    """What is measured of an operation at a size; arrays on the device where the backend has one."""
    for backend in backends:
        if backend == OPENCV and op != "tvl1":
            continue
        memories: tuple[Literal["host", "device"], ...] = ("host", "device") if backend in GPU_BACKENDS else ("host",)
        for batch in _batches(backend, height * width, options.batches):
            for arrays in memories:
                yield Case(op, height, width, batch, backend, arrays, options.preset)


def planned(options: BenchOptions) -> list[Case]:
    """Every case that will be examined, in this order, but OpenCV's where it cannot run."""
    backends = [name for name in options.concrete_backends() if name != OPENCV or not _opencv_obstacle()]
    return [
        case
        for height, width in options.sizes or SIZES
        for op in options.ops or OPS
        for case in cases(op, height, width, backends, options)
    ]


def examine(case: Case, inputs: Inputs, right: RightAnswer, watch: Stopwatch, seconds: float) -> Row:
    """Compute a case once, compare, and time it if it is right; the figures are still to come."""
    obstacle = _opencv_obstacle() if case.backend == OPENCV else ""
    if obstacle:
        return Row(case, "not available", obstacle)
    try:
        return _examine(case, inputs, right, watch, seconds)
    except MemoryError as error:  # DeviceOutOfMemory, CuPy's own, or the host's
        return Row(case, "failed", str(error) or "out of memory")


def _examine(case: Case, inputs: Inputs, right: RightAnswer, watch: Stopwatch, seconds: float) -> Row:
    arguments = inputs.batch(case.op, case.batch)
    if case.arrays == "device":
        arguments = tuple(watch.place(array) for array in arguments)
    call = _call(case, arguments)
    difference, warm_up_s = None, 0.0
    if case.backend != right.judge:
        difference, warm_up_s = right.difference(watch.fetch(call())), seconds / 4
        bar = BARS[case.op, case.preset]
        if case.backend != OPENCV and not difference.within(bar):
            return Row(case, "wrong", _how_wrong(difference, bar), difference)
    return Row(case, "measured", "", difference, time_call(watch, call, seconds, warm_up_s))


def _call(case: Case, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    if case.op == "mmcof":
        (flow,) = arguments
        return lambda: mmcof(flow, backend=case.backend)
    onset, apex = arguments
    if case.backend == OPENCV:
        return lambda: opencv_flow(onset, apex, case.preset)
    params = TVL1Params.preset(case.preset)
    return lambda: tvl1_flow(onset, apex, params, backend=case.backend)


def _how_wrong(difference: Difference, bar: Bar) -> str:
    return (
        f"off {difference.judge} by {difference.mean:.2g} (99th percentile {difference.percentile_99:.2g}), "
        f"at most {bar.mean:.2g} ({bar.percentile_99:.2g})"
    )


def _with_figures(row: Row, copy_bytes_per_s: float) -> Row:
    if row.timing is None:
        return row
    case, clocks = row.case, row.timing
    seconds = clocks.device_s if case.arrays == "device" and clocks.device_s else clocks.host_s
    work = case.batch * pixel_iterations(case)
    moved = TVL1_BYTES * work if case.op == "tvl1" else MMCOF_BYTES * case.batch * case.height * case.width
    return dataclasses.replace(
        row,
        seconds=seconds,
        items_per_s=case.batch / seconds.median,
        pixel_iterations_per_s=work / seconds.median if work else None,
        copy_share=moved / seconds.median / copy_bytes_per_s if moved else None,
    )


def pixel_iterations(case: Case) -> int:
    """Pixels times iterations of a pair, over all levels and warps; 0 where they are not known beforehand."""
    params = TVL1Params.preset(case.preset)
    if case.op != "tvl1" or params.epsilon > 0:
        return 0
    levels = reference.pyramid(np.zeros((case.height, case.width)), params)
    return sum(level.size for level in levels) * params.warps * params.outer_iterations * params.inner_iterations


def _memory(backend: str) -> str:
    """The backend whose memory is copied: GPU backends have the device's, all others the host's."""
    return backend if backend in GPU_BACKENDS else "cpu"


def _batches(backend: str, pixels: int, asked: tuple[int, ...]) -> tuple[int, ...]:
    if backend == OPENCV:
        return (1,)
    gpu = backend in GPU_BACKENDS
    choices, most = (GPU_BATCHES, GPU_PIXELS) if gpu else (CPU_BATCHES, CPU_PIXELS)
    return asked or tuple(batch for batch in choices if batch == 1 or batch * pixels <= most)


def _grey(scene: Scene, t: int) -> npt.NDArray[np.float32]:
    return scene.render(t).astype(np.float32) / np.float32(255)


# --- OpenCV


def opencv_flow(onset: Array, apex: Array, preset: str) -> Array:
    """(N, 2, H, W), a pair at a time with a fresh solver each: a used one keeps state that changes its answer."""
    optflow, params = importlib.import_module("cv2").optflow, TVL1Params.preset(preset)
    flows = []
    for pair in zip(onset, apex, strict=True):
        solver = optflow.DualTVL1OpticalFlow_create()
        for name, value in opencv_settings(params).items():
            getattr(solver, f"set{name}")(value)
        flows.append(solver.calc(*pair, None).transpose(2, 0, 1))
    return np.stack(flows)


def _opencv_obstacle() -> str:
    cv2 = importlib.import_module("cv2")
    there = hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create")
    return "" if there else "this cv2 has no optflow; opencv-contrib-python brings it"


def _opencv_judges() -> bool:
    """Whether OpenCV can tell right from wrong: before version 5 it rounds coordinates to 1/32 px."""
    return not _opencv_obstacle() and int(importlib.import_module("cv2").__version__.partition(".")[0]) >= 5
