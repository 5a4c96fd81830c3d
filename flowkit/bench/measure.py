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
import datetime
import importlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from flowkit.config import BackendName, ExtractConfig, load_config
from flowkit.errors import ConfigError
from flowkit.extraction.options import RunOptions, Summary
from flowkit.extraction.pipeline import extract
from flowkit.provenance import describe_devices, other_devices, versions
from flowkit.storage.commit import read_records
from flowkit.synthetic.dataset import synthesise
from flowkit.synthetic.scenes import Scene, SynthConfig, scenes
from flowkit_kernels import TVL1Params, available_backends, mmcof, reference, resolve_backend, tvl1_flow, warm_up
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.host import cores, processor
from flowkit_kernels.timing import Spread, Stopwatch, Timing, copy_bandwidth, stopwatch, time_call

Array = npt.NDArray[Any]
Progress = Callable[[str], object]
Document = dict[str, Any]

TITLE = "flowkit bench"
FORMAT = 1
OPENCV, TWIN = "opencv", "reference"
EXTRACT_BACKENDS: tuple[str, ...] = get_args(BackendName)
OPENCV_SETTINGS: dict[str, dict[str, float]] = {
    "fixed": {"Epsilon": 0, "InnerIterations": 20, "OuterIterations": 1},
    "opencv": {},
}
OPS = ("tvl1", "mmcof")
SIZES = ((64, 64), (128, 128), (224, 224), (480, 640))
CPU_BATCHES, GPU_BATCHES = (1, 16, 64), (1, 16, 256)
CPU_PIXELS, GPU_PIXELS = 2**22, 2**24
"""Largest default batch, in pixels: 64 of 224 x 224 on the CPU, 256 of them on a GPU."""
SECONDS = 0.3
TOLERANCE = 0.1
SUBJECTS = 6
"""Of the data set of the end-to-end mode, eight clips each."""
SHARD_CLIPS = 8
"""Clips a shard there: few, so that the run has several tasks, as a long one has."""

TWIN_PIXELS = 128 * 128
"""Largest image for which the twin judges although OpenCV could: it takes seconds for larger ones."""
LABELS = ("happiness", "surprise")
MANY_PIXELS = 2**16
"""Largest image of which a batch holds scenes of both labels: the right answer of each takes its time."""
BORDER_PX = 8
TVL1_BYTES, MMCOF_BYTES = 64, 29


class Bar(NamedTuple):
    """How far an answer may lie off the right one."""

    mean: float
    percentile_99: float


BARS = {
    ("tvl1", "fixed"): Bar(3e-3, 0.04),
    ("tvl1", "opencv"): Bar(0.015, math.inf),  # in float32 a warp may stop at another iteration
    ("mmcof", "fixed"): Bar(1e-5, 1e-4),
    ("mmcof", "opencv"): Bar(1e-5, 1e-4),
}


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured.

    Attributes
    ----------
    backends : tuple of str
        Names of backends, and "opencv". If empty: all that run here but the twin, and OpenCV.
    ops : tuple of {"tvl1", "mmcof"}
        Both, if empty.
    sizes : tuple of (int, int)
        Height and width, px; `SIZES`, if empty.
    batches : tuple of int
        Pairs or clips a call. If empty: `CPU_BATCHES` or `GPU_BATCHES`, as far as they are not too large. OpenCV takes one pair a
        call, whatever is asked for.
    preset : {"fixed", "opencv"}
    seconds : float
        Time for each case; 3 calls are timed at least, 1000 at most.

    Raises
    ------
    ConfigError
    BackendUnavailable
        A backend cannot run here.
    """

    backends: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()
    preset: str = "fixed"
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        for op in self.ops:
            _check(op in OPS, "op", f"one of {', '.join(OPS)}", op)
        for height, width in self.sizes:
            fits = all(64 <= side <= 4096 and side % 2 == 0 for side in (height, width))
            _check(fits, "size", "of even sides from 64 to 4096", f"{height}x{width}")
        for batch in self.batches:
            _check(1 <= batch <= 65536, "batch", "from 1 to 65536", batch)
        _check(self.preset in OPENCV_SETTINGS, "preset", f"one of {', '.join(OPENCV_SETTINGS)}", self.preset)
        _check(0 < self.seconds <= 3600, "seconds", "above 0, at most 3600", self.seconds)
        others = [name for name in self.concrete_backends() if name != OPENCV]
        _check(bool(others) or "tvl1" in (self.ops or OPS), "op", "tvl1 where opencv is the only backend", "mmcof")

    def concrete_backends(self) -> tuple[str, ...]:
        """Each backend that is measured, once."""
        known = (*EXTRACT_BACKENDS, OPENCV)
        for name in self.backends:
            _check(name in known, "backend", f"one of {', '.join(known)}", name)
        named = [name if name == OPENCV else resolve_backend(name) for name in self.backends]
        if named:
            return tuple(dict.fromkeys(named))
        resolve_backend("cpu")  # runs everywhere: left out in silence, it would not be missed
        return (*(name for name in available_backends() if name != TWIN), OPENCV)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure; `arrays` says whose memory they lie in before and after the call."""

    op: str
    height: int
    width: int
    batch: int
    backend: str
    arrays: Literal["host", "device"]
    preset: str


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


def run(options: BenchOptions, progress: Progress = lambda _: None, into: Document | None = None) -> Document:
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
    document.update(_heading(backends, options))
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
    optflow = importlib.import_module("cv2").optflow
    flows = []
    for pair in zip(onset, apex, strict=True):
        solver = optflow.DualTVL1OpticalFlow_create()
        for name, value in OPENCV_SETTINGS[preset].items():
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


# --- end to end


def run_end_to_end(
    backends: Sequence[str] = (), progress: Progress = lambda _: None, into: Document | None = None
) -> Document:
    """Clips a second of `flowkit extract` as a whole, on a synthetic data set in a temporary folder, for each backend.

    The clips are whole images of 320 x 320 with landmarks beside them, aligned by these (`--align landmarks`) to 224 x 224, and
    stored in shards of `SHARD_CLIPS`.

    `seconds`, and the clips a second that follow from it, are a whole run's: starting the worker processes, and on a GPU the
    device's own process with its context and its kernels' load, are included, for every run pays them. `start_up_s` says how much
    that is: the seconds of a run of one clip. Compiling counts in neither, because a run of one clip goes before both.

    Parameters
    ----------
    backends : sequence of str
        All that run here but the twin, if empty.
    progress : callable, optional
    into : dict, optional
        As in `run`.

    Returns
    -------
    dict
        As `run` returns it, with end_to_end in place of copy_bytes_per_s and rows.

    Raises
    ------
    ConfigError
        extract has no such backend, such as "opencv".
    FlowkitError
        What stopped a run.
    """
    for name in backends:
        expectation = f"one that extract has ({', '.join(EXTRACT_BACKENDS)}), with --end-to-end"
        _check(name in EXTRACT_BACKENDS, "backend", expectation, name)
    names = tuple(name for name in BenchOptions(tuple(backends)).concrete_backends() if name != OPENCV)
    document = {} if into is None else into
    document.update(_heading(names, {"subjects": SUBJECTS, "shard_clips": SHARD_CLIPS}), end_to_end=[])
    if "cpu" in names:
        warm_up("cpu", progress)
    with tempfile.TemporaryDirectory() as folder:
        progress(f"{8 * SUBJECTS} synthetic clips are being rendered.")
        base = Path(folder)
        every = synthesise(base / "clips", SynthConfig(subjects=SUBJECTS, key_frames_only=True))
        one = synthesise(base / "clip", SynthConfig(subjects=1, classes=LABELS[:1], key_frames_only=True))
        for name in names:
            progress(f"extract: {name}.")
            document["end_to_end"].append(_time_extract(every, one, base / name, name))
    document["interrupted"] = False
    return document


def _time_extract(every: Path, one: Path, out: Path, backend: str) -> Document:
    """What a run of all clips told, and how long one of a single clip took, after another that compiled."""
    _extract(one, out / "compiled", backend)
    start_up = _extract(one, out / "start-up", backend)
    summary = _extract(every, out / "all", backend)
    found = summary.to_dict()
    kept = ("computed", "failed", "failure_codes", "seconds", "clips_per_s", "stage_seconds", "workers", "bound_by")
    return {
        "backend": backend,
        **{name: found[name] for name in kept},
        "start_up_s": round(start_up.seconds, 3),
        "shards": len(read_records(out / "all")),
    }


def _extract(manifest: Path, out: Path, backend: str) -> Summary:
    summary = extract(manifest, out, _extract_config(manifest, backend), RunOptions())
    if summary.stopped is not None:
        raise summary.stopped
    return summary


def _extract_config(manifest: Path, backend: str) -> ExtractConfig:
    landmarks = str(manifest.parent / "landmarks.csv")
    return load_config(backend=backend, align__method="landmarks", align__landmarks=landmarks, shard__clips=SHARD_CLIPS)


# --- results


def _heading(backends: Sequence[str], settings: BenchOptions | Mapping[str, Any]) -> Document:
    """What every result begins with. A GPU is described by a process of its own: this one may go without a context."""
    here = {name: version for backend in backends for name, version in versions(backend).items()}
    devices = {name: describe_devices(name, (0,))["0"] for name in backends if name in GPU_BACKENDS}
    return {
        "title": TITLE,
        "format": FORMAT,
        "machine": {
            "processor": processor(),
            "cores": cores(),
            "load_average": [round(load, 2) for load in os.getloadavg()]
            if hasattr(os, "getloadavg")
            else [],  # not on Windows
            "devices": devices,
            "versions": here,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        "settings": dataclasses.asdict(settings) if isinstance(settings, BenchOptions) else dict(settings),
        "interrupted": True,
    }


def troubles(document: Document) -> list[str]:
    """Every case that gave a wrong answer or none, and every run end to end that lost clips, in words."""
    rows = [row for row in document.get("rows", ()) if row["status"] in ("wrong", "failed")]
    runs = [found for found in document.get("end_to_end", ()) if found["failed"]]
    return [f"{label(Case(**row['case']))}: {row['status']}, {row['detail']}" for row in rows] + [
        f"extract, {found['backend']}: {found['failed']} clips failed {found['failure_codes']}" for found in runs
    ]


def label(case: Case) -> str:
    """A case in words."""
    return f"{case.op} {case.height} x {case.width}, batch {case.batch}, {case.backend}, {case.arrays} arrays"


def write_result(path: Path, document: Document) -> None:
    """Store a result as a baseline for `compare`."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The timed cases of a result, and the machine they were timed on."""

    machine: Mapping[str, Any]
    seconds: Mapping[Case, Spread]

    @classmethod
    def of(cls, document: Document) -> Baseline:
        """Of a result; KeyError, TypeError or ValueError if it is none."""
        if (document["title"], document["format"]) != (TITLE, FORMAT):
            raise ValueError("another title or format")
        timed = (row for row in document["rows"] if row["status"] == "measured")
        machine: Mapping[str, Any] = document["machine"]
        _ = machine["processor"], machine["cores"], [device.get("name") for device in machine["devices"].values()]
        return cls(machine, {Case(**row["case"]): _spread(row["seconds"]) for row in timed})


def _spread(stored: Mapping[str, Any]) -> Spread:
    """Of its fields; ValueError if they are no times."""
    if not all(isinstance(seconds, int | float) and 0 < seconds < math.inf for seconds in stored.values()):
        raise ValueError("not times")
    return Spread(**stored)


def read_baseline(path: Path) -> Baseline:
    """A result that `write_result` stored.

    Raises
    ------
    ConfigError
        There is no such file, or it holds something else.
    """
    got: object = "something else"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("title") == TITLE and "end_to_end" in document:
            got = "one of --end-to-end, which cannot be compared"
        else:
            return Baseline.of(document)
    except OSError as error:
        got = error.strerror
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(
        f"{path}: --compare must be a result of flowkit bench; got {got}. Store one with flowkit bench --out FILE."
    )


def check_comparable(then: Baseline, options: BenchOptions) -> None:
    """Refuse, before anything is timed, a stored result that has no case in common with what will be.

    Raises
    ------
    ConfigError
    """
    coming = planned(options)
    _check(
        any(case in then.seconds for case in coming),
        "--compare",
        "a result that timed some of the same cases",
        f"none of these {len(coming)}",
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A case then and now; `times` above 1: slower now."""

    case: Case
    then: Spread
    now: Spread
    times: float
    verdict: Literal["same", "slower", "faster"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes
    ----------
    ratios : tuple of Ratio
        For each case that both timed.
    only_then, only_now : int
        Cases that one of them timed alone.
    other_machine : str
        What differs between the machines, in words; empty if nothing does. Otherwise no ratio says anything about the code.
    """

    ratios: tuple[Ratio, ...]
    only_then: int
    only_now: int
    other_machine: str

    def to_dict(self) -> Document:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @property
    def slower(self) -> tuple[Ratio, ...]:
        """The cases that got slower."""
        return tuple(ratio for ratio in self.ratios if ratio.verdict == "slower")


def compare(then: Baseline, now: Baseline, tolerance: float = TOLERANCE) -> Comparison:
    """A result beside a stored one.

    A case got slower, or faster, where the medians differ by more than the tolerance and the quartiles do not overlap.

    Parameters
    ----------
    then, now : Baseline
    tolerance : float
        Share of the smaller median.

    Returns
    -------
    Comparison
        Without ratios, if they have no case in common.
    """
    both = [case for case in now.seconds if case in then.seconds]
    ratios = tuple(_ratio(case, then.seconds[case], now.seconds[case], tolerance) for case in both)
    only_then, only_now = (len(one.seconds) - len(both) for one in (then, now))
    return Comparison(ratios, only_then, only_now, _other_machine(then.machine, now.machine))


def _ratio(case: Case, then: Spread, now: Spread, tolerance: float) -> Ratio:
    verdict: Literal["same", "slower", "faster"] = "same"
    if now.median > (1 + tolerance) * then.median and now.low > then.high:
        verdict = "slower"
    elif then.median > (1 + tolerance) * now.median and then.low > now.high:
        verdict = "faster"
    return Ratio(case, then, now, now.median / then.median, verdict)


def _other_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changes = [f"{name} {then[name]} -> {now[name]}" for name in ("processor", "cores") if then[name] != now[name]]
    shared = [backend for backend in now["devices"] if backend in then["devices"]]
    devices = other_devices(*({backend: machine["devices"][backend] for backend in shared} for machine in (then, now)))
    return "; ".join([*changes, *([f"GPU {devices}"] if devices else [])])


# --- what people read

CASE_COLUMNS = ("op", "size", "batch", "backend", "arrays")
COLUMNS = (*CASE_COLUMNS, "host ms", "gpu ms", "items/s", "Gpx/s", "of copy", "off")
"""Short enough, as all figures are, for a terminal of 80 columns."""
COMPARED_COLUMNS = (*CASE_COLUMNS, "then ms", "now ms", "times", "")
END_TO_END_COLUMNS = ("backend", "clips", "shards", "seconds", "clips/s", "start-up s", "bound by")


def table(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for each row of a result."""
    return [_line(row) for row in document["rows"]]


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    timing, apart = row["timing"] or {}, row["difference"] or {}
    clocks = [timing.get(name) for name in ("host_s", "device_s")]
    on_host, on_device = (_ms(clock["median"]) if clock else "-" for clock in clocks)
    iterations, share = row["pixel_iterations_per_s"], row["copy_share"]
    return (
        *_case_cells(Case(**row["case"])),
        row["status"] if row["status"] in ("wrong", "failed") else on_host,
        on_device,
        _figure(row["items_per_s"]) if row["items_per_s"] else "-",
        _figure(iterations / 1e9) if iterations else "-",
        f"{_figure(100 * share)} %" if share else "-",
        f"{apart['mean']:.0e}" if apart else "-",
    )


def notes(document: Mapping[str, Any]) -> list[str]:
    """What to know about the table, in sentences: why a case was not timed, and what the columns mean."""
    speeds = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in document["copy_bytes_per_s"].items())
    untimed = [row for row in document["rows"] if row["status"] != "measured"]
    return [
        *(f"{label(Case(**row['case']))}: {row['status']}: {row['detail']}." for row in untimed),
        f"of copy: bytes to be moved, beside the best large copy ({speeds}); over 100 % where a kernel keeps data in cache.",
        "Times are medians, --json has the quartiles. Gpx/s: 10^9 pixels times iterations. off: mean error (tvl1: px).",
    ]


def comparison_table(compared: Comparison) -> list[tuple[str, ...]]:
    """A line of `COMPARED_COLUMNS` for each case that both results timed."""
    return [
        (
            *_case_cells(r.case),
            *(_ms(r.then.median), _ms(r.now.median), f"{r.times:.2f}"),
            "" if r.verdict == "same" else r.verdict,
        )
        for r in compared.ratios
    ]


def comparison_notes(compared: Comparison) -> list[str]:
    """What to know about the table, in sentences."""
    told = []
    if compared.other_machine:
        told.append(f"Another machine: {compared.other_machine}. The times say nothing about the code.")
    if compared.only_then or compared.only_now:
        told.append(f"Not compared: {compared.only_then} cases timed only then, {compared.only_now} only now.")
    return [*told, f"{len(compared.ratios)} cases compared, {len(compared.slower)} slower."]


def end_to_end_table(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of `END_TO_END_COLUMNS` for each backend."""
    return [
        (
            *(found["backend"], str(found["computed"]), str(found["shards"])),
            *(_figure(found[name]) for name in ("seconds", "clips_per_s", "start_up_s")),
            found["bound_by"],
        )
        for found in document["end_to_end"]
    ]


def end_to_end_notes(document: Mapping[str, Any]) -> list[str]:
    """What each stage took, in sentences, and what the seconds include."""
    told = []
    for found in document["end_to_end"]:
        if found["computed"]:
            stages = (f"{name} {1000 * s / found['computed']:.0f}" for name, s in found["stage_seconds"].items())
            told.append(f"{found['backend']}, ms a clip, added up over processes: {', '.join(stages)}.")
    return [
        *told,
        "Seconds include starting the processes; start-up s is a run of one clip. Compiling counts in neither.",
    ]


def _case_cells(case: Case) -> tuple[str, ...]:
    """A cell for each of `CASE_COLUMNS`."""
    return (case.op, f"{case.height}x{case.width}", str(case.batch), case.backend, case.arrays)


def _ms(seconds: float) -> str:
    return _figure(1000 * seconds)


def _figure(value: float) -> str:
    """Three digits or all before the point, never with an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from "480x640", or from one side.

    Raises
    ------
    ConfigError
    """
    sides = text.lower().split("x")
    _check(
        len(sides) <= 2 and all(side.isdecimal() for side in sides),
        "size",
        "a side or HEIGHTxWIDTH in pixels, such as 224 or 480x640",
        repr(text),
    )
    return int(sides[0]), int(sides[-1])


def _check(ok: bool, name: str, expectation: str, value: object) -> None:
    if not ok:
        raise ConfigError(f"bench: {name} must be {expectation}; got {value}. Correct it.")
