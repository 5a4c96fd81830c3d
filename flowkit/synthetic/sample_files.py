"""Samples at flow level on disk: `write_samples` and `read_samples`.

A data set is a folder of HDF5 files, each written whole, and settings.json. A stopped run resumes with the files that are missing.
The datasets of a file; n samples, side S:

flow          (n, 2, 2, S, S) float16: phase (rise, fall), component (u right, v down), y, x.
              `moving(x + flow(x)) = reference(x)`, rise on the onset's grid, fall on the apex's. The file's attribute
              `units` is the unit: "px" of the crop; or "minmax",
              (grey level - median) / deviation of each component's picture, as `flowkit import stst` stores the public pictures.
label         (n,) int8: index into the attribute `labels`, the eight emotions.
class         (n,) int8: index into the attribute `classes`: negative, positive, surprise.
subject       (n,) int32: number of the person.
action_units  (n, 2, K) float16: displacement at apex and offset by each entry of the attribute `action_units` ("12L": unit 12, left
              side; "B": both), relative to the strongest. 0 where nothing moves.
peak          (n,) float32: largest length of the true local rise, px of the crop (of pictures: px of 56).
seed          (n,) uint64: of the sample's random numbers.

"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import h5py
import numpy as np
import numpy.typing as npt

from flowkit._version import __version__
from flowkit.errors import ConfigError, EnvironmentMissing, Interrupted
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import WorkerStartError
from flowkit.labels.groupings import grouping
from flowkit.storage import durable_files
from flowkit.synthetic.expressions import EMOTIONS
from flowkit.synthetic.flow_samples import FlowConfig, FlowSample, make_sample
from flowkit.synthetic.head import canonical_head
from flowkit_kernels.host import cores

_SETTINGS: Final = "settings.json"
_TIMEOUT_S: Final = 900.0


# --- files


def write_samples(
    out: Path,
    config: FlowConfig | None = None,
    *,
    workers: int = 0,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Path:
    """Write a folder of samples: settings.json and samples-00000.h5, samples-00001.h5, ...

    Parameters
    ----------
    out : Path
        A folder that is empty or does not exist, or that a run with the same settings has begun: it is resumed.
    config : FlowConfig, optional
    workers : int
        Processes; 0: one per core. The content does not depend on it.
    reporter : Reporter, optional
        Told of each sample; silent by default.
    stop : Stop, optional
        Asked while the files are being made.

    Returns
    -------
    Path
        The folder. Same settings and package versions, same bytes.

    Raises
    ------
    ConfigError
        The folder is not empty, or was begun with other settings.
    EnvironmentMissing
        No worker could be started.
    DiskFull
    Interrupted
    """
    config, reporter, stop = config or FlowConfig(), reporter or Silent(), stop or Stop("synth")
    out = Path(out)
    _take_folder(out, config)
    missing = [job for job in _jobs(out, config) if not job[0].exists()]
    reporter.start(sum(len(numbers) for _, numbers, _ in missing))
    try:
        for count in _written(missing, min(workers or cores(), len(missing)), stop):
            reporter.advance(count, 0)
    except Interrupted as error:
        raise type(error)(
            f"{out}: the run was stopped before its end; files that are there are whole. Run the same command again: it resumes."
        ) from None
    finally:
        reporter.finish()
    return out


_Job = tuple[Path, range, FlowConfig]
"""A file, and the numbers of its samples."""


def _jobs(out: Path, config: FlowConfig) -> list[_Job]:
    starts = range(0, config.samples, config.per_file)
    return [
        (out / f"samples-{k:05d}.h5", range(start, min(start + config.per_file, config.samples)), config)
        for k, start in enumerate(starts)
    ]


def _written(jobs: Sequence[_Job], workers: int, stop: Stop) -> Iterator[int]:
    """Write files, and yield the number of samples of each."""
    if workers < 2:
        for job in jobs:
            yield _write_file(job, stop.check)
        return
    with SupervisedPool(_writer, workers=workers, timeout_s=_TIMEOUT_S, window=4 * workers) as pool:
        try:
            for (path, _, _), outcome in pool.submit(jobs).outcomes(stop.check):
                if outcome.error is not None:
                    raise outcome.error
                if outcome.value is None:
                    raise EnvironmentMissing(
                        f"{path}: file must be made by a worker that lives; got {outcome.kind}: {outcome.detail}. "
                        "Run the same command again, with fewer --workers if memory is short."
                    )
                yield outcome.value
        except WorkerStartError as error:
            raise EnvironmentMissing(
                f"workers: a worker process must be able to start; got: {error}. Run flowkit doctor."
            ) from error


@contextmanager
def _writer() -> Iterator[Callable[[_Job], int]]:
    cv2.setNumThreads(1)
    yield _write_file


def _write_file(job: _Job, poll: Callable[[], None] = lambda: None) -> int:
    path, numbers, config = job
    samples = []
    for number in numbers:
        poll()
        samples.append(make_sample(number, config))
    durable_files.publish_file(path, _image(samples, config))
    return len(samples)


def _image(samples: Sequence[FlowSample], config: FlowConfig) -> bytes:
    """The bytes of a file."""
    three = grouping("3-class")
    keys = sorted(canonical_head().action_units)
    labels, classes = tuple(EMOTIONS), three.classes
    columns: dict[str, npt.NDArray[Any]] = {
        "flow": np.stack([sample.flow for sample in samples]).astype(np.float16),
        "label": np.array([labels.index(sample.label) for sample in samples], np.int8),
        "class": np.array([classes.index(str(three.of("synth", sample.label))) for sample in samples], np.int8),
        "subject": np.array([sample.subject for sample in samples], np.int32),
        "action_units": np.array([_unit_row(sample, keys) for sample in samples], np.float16),
        "peak": np.array([sample.peak_px for sample in samples], np.float32),
        "seed": np.array([sample.seed for sample in samples], np.uint64),
    }
    with h5py.File("samples", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        for name, values in columns.items():
            chunks = (1, *values.shape[1:]) if name == "flow" else None
            file.create_dataset(name, data=values, chunks=chunks, track_times=False)
        file.attrs.update(
            {
                "axes": "sample, phase, component, y, x",
                "phases": "rise (onset to apex, on the onset's grid), fall (apex to offset, on the apex's grid)",
                "components": "u (right), v (down)",
                "units": "px" if config.form == "flow" else "minmax",
                "labels": list(labels),
                "classes": list(classes),
                "action_units": [f"{unit}{side}" for unit, side in keys],
                "settings": json.dumps(_settings(config), sort_keys=True),
                "version": __version__,
            }
        )
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _unit_row(sample: FlowSample, keys: Sequence[tuple[int, str]]) -> list[list[float]]:
    moves = 1.0 if sample.peak_px else 0.0
    return [
        [moves * weights.get(key, 0.0) for key in keys] for weights in (sample.movement.apex, sample.movement.offset)
    ]


def _settings(config: FlowConfig) -> dict[str, Any]:
    return dataclasses.asdict(config) | {"peak_px": config.peaks_px, "classes": config.labels}


def _take_folder(out: Path, config: FlowConfig) -> None:
    """Begin a folder, or resume one that was begun with the same settings."""
    settings = (json.dumps(_settings(config) | {"files": len(_jobs(out, config))}, indent=2) + "\n").encode()
    path = out / _SETTINGS
    if path.is_file():
        if path.read_bytes() != settings:
            raise ConfigError(
                f"{out}: settings must be those of {_SETTINGS}, with which the folder was begun; got others. Run the same command "
                "as before, delete the folder, or choose another."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise ConfigError(
            f"{out}: --out must be an empty folder; got one with something in it. Delete it or choose another."
        )
    out.mkdir(parents=True, exist_ok=True)
    durable_files.replace_file(path, settings)


def read_samples(folder: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Return all samples of a folder, by the names of the datasets.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    dict of str to array
        In the order of the samples' numbers.

    Raises
    ------
    ConfigError
        The folder holds no samples, or not all of them.

    Examples
    --------
    >>> read_samples("samples")["flow"].shape  # doctest: +SKIP
    (1000, 2, 2, 112, 112)
    """
    path = Path(folder) / _SETTINGS
    if not path.is_file():
        raise ConfigError(
            f"{folder}: folder must hold {_SETTINGS}; got none. Make samples: flowkit synth --level flow."
        )
    wanted = json.loads(path.read_text("utf-8"))["files"]
    files = sorted(Path(folder).glob("samples-*.h5"))
    if len(files) != wanted:
        raise ConfigError(
            f"{folder}: folder must hold {wanted} files of samples; got {len(files)}. Run its command again: it resumes."
        )
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for path in files:
        with h5py.File(path) as file:
            parts.append({name: file[name][:] for name in file})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
