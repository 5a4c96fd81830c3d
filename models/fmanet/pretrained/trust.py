"""How far to trust an answer: a temperature for probabilities, and how often answers of some probability are right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fmanet.errors import CheckpointRefused
from fmanet.pretrained.model_folder import MAX_TEMPERATURE, MEASURED_FILE
from fmanet.scoring.metrics import Scores, score

if TYPE_CHECKING:  # probabilities need no torch
    from fmanet.dataset import Clips

EDGES: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bands of the largest probability."""
TEMPERATURES: Final = np.geomspace(1 / MAX_TEMPERATURE, MAX_TEMPERATURE, 921)
"""Those that are tried, one per cent apart."""
LEAST_CLIPS: Final = 10
"""A band of fewer clips says nothing."""
REAL, SYNTHETIC = "real", "synthetic"
"""Kinds of the tests of measured.json that `right_real` and `right_synthetic` come from."""


def best_temperature(shares: npt.NDArray[np.float64], target: npt.NDArray[np.int64]) -> float:
    """Return the temperature at which the negative log-likelihood of the true classes is lowest (Guo et al. 2017).

    Parameters
    ----------
    shares : (N, C) float64
        Probabilities.
    target : (N,) int64

    Examples
    --------
    >>> best_temperature(np.array([[0.99, 0.01]] * 10), np.array([0] * 8 + [1] * 2)) > 1
    True
    """
    costs = []
    for temperature in TEMPERATURES:
        found = with_temperature(shares, float(temperature))
        costs.append(float(-np.log(np.maximum(found[np.arange(len(found)), target], 1e-12)).mean()))
    return round(float(TEMPERATURES[int(np.argmin(costs))]), 4)


def with_temperature(shares: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return probabilities, (N, C), whose logarithms were divided by a temperature."""
    logits = np.log(np.maximum(shares, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def trust(shares: npt.NDArray[np.float64], clips: Clips) -> dict[str, Any]:
    """Return how right answers are: scores, and the share right by the largest probability.

    Parameters
    ----------
    shares : (N, C) float64
    clips : Clips
        With known classes.
    """
    target, answer, largest = clips.target.numpy(), shares.argmax(axis=1), shares.max(axis=1)
    names = clips.classes
    found: Scores = score([names[n] for n in target], [names[n] for n in answer], names)
    bands = []
    for low, high in pairwise(EDGES):
        inside = (largest >= low) & ((largest < high) | (high == EDGES[-1]))
        count = int(inside.sum())
        right = float((answer == target)[inside].mean()) if count else None
        bands.append({"from": low, "to": high, "clips": count, "right": None if right is None else round(right, 4)})
    return {
        "clips": len(clips),
        "people": len(set(clips.subject)),
        "uf1": round(found.uf1, 4),
        "uar": round(found.uar, 4),
        "acc": round(found.acc, 4),
        "bands": bands,
    }


def share_right(shares: npt.NDArray[np.float64], found: Mapping[str, Any] | None) -> list[float | None]:
    """Return, for each clip, the share of right answers among clips of such a probability.

    Parameters
    ----------
    shares : (N, C) float64
    found : mapping, optional
        What `trust` gave of clips whose classes are known; without, or where a band has few clips, nothing is known.
    """
    if found is None:
        return [None] * len(shares)
    bands = found["bands"]
    uppers = [float(band["to"]) for band in bands[:-1]]
    rights = [band["right"] if band["clips"] >= LEAST_CLIPS else None for band in bands]
    return [rights[n] for n in np.digitize(shares.max(axis=1), uppers)]


def measured(folder: Path) -> Mapping[str, Any] | None:
    """Return the figures of measured.json of a model folder, if it has one."""
    path = folder / MEASURED_FILE
    found: Mapping[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    return found


def temperature_of(folder: Path, content: Mapping[str, Any]) -> float:
    """Return the temperature of a model's probabilities: that of extracted clips, where it was measured, else of samples set aside.

    Raises
    ------
    CheckpointRefused
        The stored one is no temperature.
    """
    found = (measured(folder) or {}).get("temperature", content["temperature"])
    if type(found) not in (int, float) or not 0 < found <= MAX_TEMPERATURE:
        raise CheckpointRefused(
            f"{folder / MEASURED_FILE}: temperature must be above 0 and at most {MAX_TEMPERATURE:g}; got {found!r:.60}. Restore "
            "the file from a copy, or delete it."
        )
    return float(found)


def synthetic_trust(folder: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is known of a model on synthetic people: on extracted clips, where it was measured, else on samples set aside.

    Samples are degraded as extraction degrades flow, but answers for them are right more often than for clips.
    """
    tests = (measured(folder) or {"tests": ()})["tests"]
    extracted = [test for test in tests if test["kind"] == SYNTHETIC]
    return extracted[-1] if extracted else dict(content["set_aside"])


def real_trust(folder: Path) -> Mapping[str, Any] | None:
    """Return what was measured of a model on real clips, if anything was."""
    tests = (measured(folder) or {"tests": ()})["tests"]
    return next((test for test in tests if test["kind"] == REAL), None)
