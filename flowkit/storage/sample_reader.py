"""Samples at flow level, as `flowkit synth --level flow` writes them: `read_samples`, and file by file `each_sample_file`.

A data set is a folder of HDF5 files and settings.json. The datasets of a file; n samples, side S:

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
landmarks     (n, 478, 2) float32: of the onset, px of the crop. Not with pictures.
region        (n, S, S) bool: the face, as extraction takes it from the landmarks. Not with pictures.

The attribute `stands_for` is JSON: the settings of the shards whose flow the samples are like.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError, ShardCorrupt
from flowkit.storage.safe_files import read_regular

SAMPLE_SETTINGS: Final = "settings.json"
COLUMNS: Final = ("flow", "label", "class", "subject", "action_units", "peak", "seed")
FACTS: Final = ("units", "labels", "classes", "settings", "stands_for", "version")
MAX_FILES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One file of samples.

    Attributes
    ----------
    path : Path
    facts : dict of str to object
        Its attributes; those that are JSON are decoded.
    columns : dict of str to array
        Its datasets.
    """

    path: Path
    facts: dict[str, Any]
    columns: dict[str, npt.NDArray[Any]]


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
    ShardCorrupt
        A file cannot be read, or lacks a dataset.

    Examples
    --------
    >>> read_samples("samples")["flow"].shape  # doctest: +SKIP
    (1000, 2, 2, 112, 112)
    """
    parts = [file.columns for file in each_sample_file(folder)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def each_sample_file(folder: str | os.PathLike[str]) -> Iterator[SampleFile]:
    """Yield the files of a folder, in the order of the samples' numbers; raise as `read_samples` does."""
    files = _files(Path(folder))
    return (_read(path) for path in files)


def _files(folder: Path) -> list[Path]:
    path = folder / SAMPLE_SETTINGS
    if not path.is_file():
        raise ConfigError(
            f"{folder}: folder must hold {SAMPLE_SETTINGS}; got none. Make samples: flowkit synth --level flow."
        )
    try:
        wanted = json.loads(read_regular(path))["files"]
        if type(wanted) is not int or not 0 < wanted <= MAX_FILES:
            raise ValueError(wanted)
    except (ValueError, KeyError, TypeError) as error:
        raise ShardCorrupt(
            f"{path}: must be as flowkit synth wrote it; got another form. Make the samples again in another folder."
        ) from error
    files = sorted(folder.glob("samples-*.h5"))
    if len(files) != wanted:
        raise ConfigError(
            f"{folder}: folder must hold {wanted} files of samples; got {len(files)}. Run its command again: it resumes."
        )
    return files


def _read(path: Path) -> SampleFile:
    try:
        with h5py.File(path) as file:
            facts = {name: file.attrs[name] for name in FACTS}
            columns = {name: file[name][:] for name in file}
        for name in ("settings", "stands_for"):
            facts[name] = json.loads(facts[name])
        for name in ("labels", "classes"):
            facts[name] = tuple(map(str, facts[name]))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ShardCorrupt(
            f"{path}: must be as flowkit synth --level flow of this version wrote it; got {type(error).__name__}: {error}. Delete "
            "the folder and make the samples again."
        ) from error
    lengths = {len(values) for values in columns.values() if values.shape}
    if not set(COLUMNS) <= set(columns) or len(lengths) != 1 or not all(values.shape for values in columns.values()):
        raise ShardCorrupt(
            f"{path}: must hold {', '.join(COLUMNS)}, one row a sample; got others. Delete the folder and make the samples again."
        )
    return SampleFile(path, facts, columns)
