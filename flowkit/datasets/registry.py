"""Every data set that flowkit can read: the bundled ones, a line each, and those of one's own."""

from __future__ import annotations

import difflib
import re
from typing import Final

from flowkit.datasets.base import DataSet
from flowkit.datasets.own_modules import own_datasets
from flowkit.datasets.own_recordings import NAME as VIDEOS
from flowkit.datasets.own_recordings import TITLE
from flowkit.datasets.sets.casme2 import annotate as casme2
from flowkit.datasets.sets.casme3 import annotate_a as casme3_a
from flowkit.datasets.sets.casme3 import annotate_c as casme3_c
from flowkit.datasets.sets.casme_sq import annotate as casme_sq
from flowkit.datasets.sets.dfme import annotate as dfme
from flowkit.datasets.sets.fourdme import annotate as fourdme
from flowkit.datasets.sets.megc2019 import NAME as COMPOSITE
from flowkit.datasets.sets.mmew import annotate as mmew
from flowkit.datasets.sets.samm import annotate as samm
from flowkit.datasets.sets.samm_long import annotate as samm_long
from flowkit.datasets.sets.smic import annotate as smic
from flowkit.errors import ManifestError
from flowkit.labels.groupings import dataset_name

__all__ = ["COMPOSITE", "DATASETS", "find_dataset", "known_sets", "listed_sets"]

DATASETS: Final = {
    dataset.name: dataset
    for dataset in (
        DataSet("casme2", casme2),
        DataSet("samm", samm),
        DataSet("samm-lv", samm_long),
        DataSet("smic-hs", smic),
        DataSet("smic-vis", smic),
        DataSet("smic-nir", smic),
        DataSet("mmew", mmew),
        DataSet("casme-sq", casme_sq),
        DataSet("casme-sq-lv", casme_sq),
        DataSet("casme3-a", casme3_a),
        DataSet("casme3-a-lv", casme3_a),
        DataSet("casme3-c", casme3_c),
        DataSet("4dme", fourdme),
        DataSet("dfme", dfme),
    )
}
"""By name; the names are those of flowkit.labels.groupings."""


def known_sets() -> dict[str, DataSet]:
    """Return the bundled data sets and those of one's own, by name.

    Raises
    ------
    ConfigError
        A folder of FLOWKIT_DATASETS, or a TOML file there, cannot be used.
    """
    return {**DATASETS, **own_datasets()}


def find_dataset(name: str) -> DataSet:
    """Return the data set of a name, however it is written.

    Parameters
    ----------
    name : str

    Raises
    ------
    ManifestError
        There is none.
    ConfigError
        See `known_sets`.
    """
    known, sets = dataset_name(name), known_sets()
    if known not in sets:
        begun = re.sub("[^a-z0-9]", "", known)
        begin = [other for other in sets if begun and other.replace("-", "").startswith(begun)]
        near = begin or difflib.get_close_matches(known, sets, 1, 0.5)
        hint = (
            f" Did you mean {' or '.join(near)}?" if near else " Correct it, or write the manifest yourself (README)."
        )
        raise ManifestError(f"DATASET: must be one of {', '.join(dict(listed_sets()))}; got {name!r}.{hint}")
    return sets[known]


def listed_sets(*, own: bool = True) -> list[tuple[str, str]]:
    """Return all that `flowkit manifest` takes: each name, and what it means in a few words.

    Parameters
    ----------
    own : bool
        Whether the data sets of one's own are among them.

    Raises
    ------
    ConfigError
        See `known_sets`.
    """
    sets = known_sets() if own else DATASETS
    return [
        *((name, dataset.description + ("" if name in DATASETS else " (your own)")) for name, dataset in sets.items()),
        (COMPOSITE, DataSet(COMPOSITE, lambda _: ()).description),
        (VIDEOS, TITLE),
    ]
