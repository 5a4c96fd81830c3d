"""Samples at flow level on disk: `write_samples`. `flowkit.storage.sample_reader` describes the files and reads them.

A data set is a folder of HDF5 files, each written whole, and settings.json. A stopped run resumes with the files that are missing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import h5py
import numpy as np
import numpy.typing as npt

from flowkit._version import __version__
from flowkit.config import ExtractConfig
from flowkit.errors import ConfigError, EnvironmentMissing, Interrupted
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import WorkerStartError
from flowkit.labels.groupings import grouping
from flowkit.storage import durable_files
from flowkit.storage.sample_reader import SAMPLE_SETTINGS
from flowkit.synthetic.expressions import EMOTIONS
from flowkit.synthetic.flow_samples import PICTURE_PX, FlowConfig, FlowSample, make_sample
from flowkit.synthetic.head import canonical_head
from flowkit_kernels.host import cores

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
    if config.form == "flow":
        columns["landmarks"] = np.stack([sample.landmarks for sample in samples]).astype(np.float32)
        columns["region"] = np.stack([sample.region for sample in samples])
    with h5py.File("samples", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        for name, values in columns.items():
            chunks = (1, *values.shape[1:]) if name in ("flow", "region") else None
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
                "stands_for": json.dumps(_stands_for(config), sort_keys=True),
                "version": __version__,
            }
        )
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _stands_for(config: FlowConfig) -> dict[str, Any]:
    """Settings of the shards whose flow the samples are like: those of extraction by default, or of `flowkit import stst`."""
    if config.form == "flow":
        return ExtractConfig().to_dict()
    still = {"method": "none", "size": PICTURE_PX, "stabilise": "none"}
    return {"align": still, "import": {"zero": "median", "scale": "spread"}, "units": "minmax"}


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
    path = out / SAMPLE_SETTINGS
    if path.is_file():
        if path.read_bytes() != settings:
            raise ConfigError(
                f"{out}: settings must be those of {SAMPLE_SETTINGS}, with which the folder was begun; got others. Run the same "
                "command as before, delete the folder, or choose another."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise ConfigError(
            f"{out}: --out must be an empty folder; got one with something in it. Delete it or choose another."
        )
    out.mkdir(parents=True, exist_ok=True)
    durable_files.replace_file(path, settings)
