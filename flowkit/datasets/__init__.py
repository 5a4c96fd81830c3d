"""Annotation files and frame folders of the public data sets as manifests: one small module a set over shared parts.

layouts.toml      what files, sheets, columns and folders are called
corrections.csv   known errors, each with its source
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flowkit.datasets import casme2, casme3, casme_sq, dfme, fourdme, megc2019, mmew, own_recordings, read, samm, smic
from flowkit.datasets.base import DataSet, Event, Reading, layout
from flowkit.errors import ManifestError
from flowkit.labels.groupings import dataset_name

__all__ = ["DATASETS", "DataSet", "Event", "Reading", "find_dataset", "read_dataset", "read_megc2019"]

DATASETS: Final = {
    dataset.name: dataset
    for dataset in (
        DataSet("casme2", casme2.annotate),
        DataSet("samm", samm.annotate),
        DataSet("smic-hs", smic.annotate),
        DataSet("smic-vis", smic.annotate),
        DataSet("smic-nir", smic.annotate),
        DataSet("mmew", mmew.annotate),
        DataSet("casme-sq", casme_sq.annotate),
        DataSet("casme3-a", casme3.annotate_a),
        DataSet("casme3-c", casme3.annotate_c),
        DataSet("4dme", fourdme.annotate),
        DataSet("dfme", dfme.annotate),
    )
}
"""By name; the names are those of flowkit.labels.groupings."""
COMPOSITE: Final = megc2019.NAME


def find_dataset(name: str) -> DataSet:
    """The data set of a name, however it is written.

    Raises
    ------
    ManifestError
    """
    known = dataset_name(name)
    if known not in DATASETS:
        near = difflib.get_close_matches(known, DATASETS, 1, 0.5)
        hint = f" Did you mean {near[0]}?" if near else " Correct it, or write the manifest yourself (README)."
        raise ManifestError(
            f"DATASET: must be one of {', '.join((*DATASETS, COMPOSITE, own_recordings.NAME))}; got {name!r}.{hint}"
        )
    return DATASETS[known]


def read_dataset(
    name: str,
    root: str | Path,
    *,
    workbook: str | Path | None = None,
    frames: str | Path | None = None,
    fixes: bool = True,
    corrections: str | Path | None = None,
) -> Reading:
    """A data set as clips of a manifest, and what was done on the way.

    Parameters
    ----------
    name : str
        One of DATASETS, or another name that classes.toml knows it by.
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

    Returns
    -------
    Reading

    Raises
    ------
    ManifestError
        The folder or its annotation cannot be read as this data set; what was looked for, where, and what was found.
    EnvironmentMissing
        openpyxl is not installed.
    """
    return read.read(
        find_dataset(name),
        Path(root),
        workbook=None if workbook is None else Path(workbook),
        frames=frames,
        fixes=fixes,
        corrections=None if corrections is None else Path(corrections),
    )


def read_megc2019(
    roots: Mapping[str, str | Path],
    *,
    list_file: str | Path | None = None,
    workbooks: Mapping[str, str | Path] | None = None,
    frames: Mapping[str, str | Path] | None = None,
    fixes: bool = True,
    corrections: str | Path | None = None,
) -> Reading:
    """The MEGC2019 composite of three data sets as clips of a manifest.

    Parameters
    ----------
    roots : mapping of str to (str or Path)
        Folder of each of casme2, samm and smic-hs.
    list_file : str or Path, optional
        The official list; without it, one that lies in a root; without any, clips are chosen by their labels.
    workbooks, frames : mapping of str to (str or Path), optional
        As `workbook` and `frames` of `read_dataset`, by data set.
    fixes, corrections
        See `read_dataset`.

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
    readings = {
        name: read_dataset(
            name,
            roots[name],
            workbook=(workbooks or {}).get(name),
            frames=(frames or {}).get(name),
            fixes=fixes,
            corrections=corrections,
        )
        for name in sets
    }
    return megc2019.compose(readings, None if list_file is None else Path(list_file))
