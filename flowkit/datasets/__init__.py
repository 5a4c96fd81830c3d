"""Annotation files and frame folders of data sets as manifests: one small module per set over shared parts.

registry.py       which data sets there are
layouts.toml      what files, sheets, columns and folders are called
corrections.csv   known errors, each with its source
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit.datasets.base import Annotation, DataSet, Event, Reading, ReadOptions, layout
from flowkit.datasets.read import read as read_files
from flowkit.datasets.registry import COMPOSITE, DATASETS, find_dataset, known_sets, listed_sets
from flowkit.datasets.sets.megc2019 import compose
from flowkit.datasets.source import Source
from flowkit.errors import ManifestError

__all__ = [
    "COMPOSITE",
    "DATASETS",
    "Annotation",
    "DataSet",
    "Event",
    "Reading",
    "Source",
    "find_dataset",
    "known_sets",
    "listed_sets",
    "read_dataset",
    "read_megc2019",
]


def read_dataset(
    name: str,
    root: str | Path,
    *,
    workbook: str | Path | None = None,
    frames: str | Path | None = None,
    fixes: bool = True,
    corrections: str | Path | None = None,
    estimates: bool = False,
    renumbered: bool = False,
    nearest: bool = False,
    follow_symlinks: bool = False,
    label_from: str = "",
) -> Reading:
    """Read a data set as clips of a manifest, and what was done on the way.

    Parameters
    ----------
    name : str
        One of `known_sets`, or another name that flowkit.labels.groupings knows it by.
    root : str or Path
        Its folder, in any of the known layouts; nothing is written there.
    workbook : str or Path, optional
        Its annotation file, where several are there or none is found.
    frames : str or Path, optional
        A folder in the root: only frames under it count.
    fixes : bool
        Whether known errors are corrected.
    corrections : str or Path, optional
        Another table in the form of corrections.csv.
    estimates : bool
        Whether the estimates of that table take the place of the annotation; the column `estimated` names them.
    renumbered : bool
        Whether the images of each clip were renumbered, one for each frame from onset to offset.
    nearest : bool
        Whether a clip stays whose key frames are not all there; extract it with `frames.nearest`.
    follow_symlinks : bool
        Whether links that lead out of the root are followed; extract with `frames.follow_symlinks`.
    label_from : str
        A further column that becomes the label, such as "objective_class"; the label becomes the column `own_label`.

    Returns
    -------
    Reading

    Raises
    ------
    ManifestError
        The folder or its annotation cannot be read as this data set; what was looked for, where, and what was found.
    ConfigError
        A file of a data set of one's own cannot be used.
    EnvironmentMissing
        openpyxl is not installed.

    Examples
    --------
    >>> reading = read_dataset("casme2", "/data/CASME2")  # doctest: +SKIP
    """
    options = ReadOptions(
        workbook=None if workbook is None else Path(workbook),
        frames=frames,
        fixes=fixes,
        corrections=None if corrections is None else Path(corrections),
        estimates=estimates,
        renumbered=renumbered,
        nearest=nearest,
        follow_symlinks=follow_symlinks,
        label_from=label_from,
    )
    return read_files(find_dataset(name), Path(root), options)


def read_megc2019(
    roots: Mapping[str, str | Path],
    *,
    list_file: str | Path | None = None,
    workbooks: Mapping[str, str | Path] | None = None,
    frames: Mapping[str, str | Path] | None = None,
    **common: Any,
) -> Reading:
    """Read the MEGC2019 composite of three data sets as clips of a manifest.

    Parameters
    ----------
    roots : mapping of str to (str or Path)
        Folder of each of casme2, samm and smic-hs.
    list_file : str or Path, optional
        The official list; without it, one that is in a root; without any, clips are chosen by their labels.
    workbooks, frames : mapping of str to (str or Path), optional
        As `workbook` and `frames` of `read_dataset`, by data set.
    **common
        What else `read_dataset` takes, for all three, except `label_from`.

    Returns
    -------
    Reading
        Its root is the deepest folder that the three roots have in common.

    Raises
    ------
    ManifestError, EnvironmentMissing
        See `read_dataset`; or the list cannot be used.
    """
    sets = layout(COMPOSITE)["sets"]
    for given in (roots, workbooks or {}, frames or {}):
        if unknown := sorted(set(given) - set(sets)):
            raise ManifestError(
                f"{COMPOSITE}: data set must be one of {', '.join(sets)}; got {unknown[0]!r}. Correct it."
            )
    if missing := [name for name in sets if name not in roots]:
        wanted = " ".join(f"--root {name}=DIR" for name in missing)
        raise ManifestError(
            f"{COMPOSITE}: every set must have a root; got none for {', '.join(missing)}. Add {wanted}."
        )
    if common.get("label_from"):
        raise ManifestError(
            f"{COMPOSITE}: clips must have the sets' own labels; got --label-from. Write a manifest for each set with it."
        )
    readings = {
        name: read_dataset(
            name, roots[name], workbook=(workbooks or {}).get(name), frames=(frames or {}).get(name), **common
        )
        for name in sets
    }
    return compose(readings, None if list_file is None else Path(list_file))
