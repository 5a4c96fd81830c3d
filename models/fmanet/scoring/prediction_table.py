"""The table of predictions: one row a clip and seed, and the only thing that scores are ever computed from.

CSV in UTF-8 with the header `clip_id,subject,dataset,fold,seed,truth,prediction,p:CLASS,...`. Numbers are written so that
reading gives the same bits; a reader takes nothing on trust and names the line of whatever is wrong.

Where the classes are action units (AU1, AU2, ...), truth and prediction name those that are shown, "AU4+AU7" or "none", and each
probability is that of its unit by itself.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit.labels.action_units import are_action_units, one_word, shown_in
from flowkit.storage.durable_files import replace_file
from flowkit.storage.safe_files import read_regular
from fmanet.errors import TableDamaged

if TYPE_CHECKING:  # who reads a table needs no torch
    from fmanet.dataset import Clips

__all__ = [
    "SEED_AVERAGE",
    "Prediction",
    "Table",
    "parse_table",
    "prediction_rows",
    "read_table",
    "table_bytes",
    "write_table",
]

COLUMNS: Final = ("clip_id", "subject", "dataset", "fold", "seed", "truth", "prediction")
PROBABILITY: Final = "p:"
"""Before the class, in the name of a column of probabilities."""
SEED_AVERAGE: Final = -1
"""Stands for the seed in rows that are averages over seeds."""
SUM_TOLERANCE: Final = 1e-4
"""How far a sum of probabilities may be from 1: float32 softmax, with room."""
SHOWN: Final = 0.5
"""Probability from which on an action unit is said to be shown."""
MAX_LISTED: Final = 20
"""Problems printed before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one network said of one held-out clip.

    Attributes
    ----------
    clip_id : str
        Unique within its data set.
    subject : str
        As "dataset/subject".
    dataset : str
    fold : str
        Name of the fold that held the clip out.
    seed : int
        Of the run; `SEED_AVERAGE` for an average.
    truth, prediction : str
        Classes; of action units, those that are shown, in one word.
    probabilities : tuple of float
        One a class, in the table's order; they sum to 1, those of action units excepted.
    """

    clip_id: str
    subject: str
    dataset: str
    fold: str
    seed: int
    truth: str
    prediction: str
    probabilities: tuple[float, ...]


class Table(NamedTuple):
    """Rows in stored order, and the classes of their probabilities."""

    rows: tuple[Prediction, ...]
    classes: tuple[str, ...]


def prediction_rows(clips: Clips, probabilities: npt.NDArray[np.float64], fold: str, seed: int) -> list[Prediction]:
    """Return the predictions of clips whose truth is known.

    Parameters
    ----------
    clips : Clips
    probabilities : (N, C) float64
        As `training.predict` gives them.
    fold : str
        Name of the fold that held the clips out.
    seed : int
        Of the run.

    Returns
    -------
    list of Prediction
        In the order of the clips.
    """
    return [
        Prediction(
            clips.clip_id[row],
            clips.subject[row],
            clips.dataset[row],
            fold,
            seed,
            clips.truth(row),
            answer(shares.tolist(), clips.classes),
            tuple(shares.tolist()),
        )
        for row, shares in enumerate(probabilities)
    ]


def answer(shares: Sequence[float], classes: Sequence[str]) -> str:
    """Return what probabilities say: the most probable class, the first of equals; or all action units from 0.5 on, in one word."""
    if are_action_units(classes):
        return one_word([name for name, share in zip(classes, shares, strict=True) if share >= SHOWN])
    return classes[max(range(len(classes)), key=shares.__getitem__)]


def write_table(path: Path, rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Put a table where `read_table` finds it; an older one there is replaced at once.

    Raises
    ------
    TableDamaged
        The rows break a rule of the table; nothing was written.
    DiskFull
    """
    replace_file(path, table_bytes(rows, classes, str(path)))


def read_table(path: Path) -> Table:
    """The table that `write_table` was given.

    Raises
    ------
    TableDamaged
        It cannot be read or breaks a rule; every problem with its line.
    """
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableDamaged(
            f"{path}: predictions must be a readable table in UTF-8; got {error}. Restore it from a copy."
        ) from error
    return parse_table(text, str(path))


def table_bytes(rows: Sequence[Prediction], classes: Sequence[str], where: str = "predictions") -> bytes:
    """The bytes of a table, checked as a reader would.

    Parameters
    ----------
    rows : sequence of Prediction
    classes : sequence of str
        Order of the probabilities.
    where : str
        What messages call the table.

    Raises
    ------
    TableDamaged
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{PROBABILITY}{name}" for name in classes)])
    for row in rows:
        names = (row.clip_id, row.subject, row.dataset, row.fold)
        writer.writerow(
            [*names, int(row.seed), row.truth, row.prediction, *(repr(float(p)) for p in row.probabilities)]
        )
    parse_table(text.getvalue(), where)
    return text.getvalue().encode("utf-8")


def parse_table(text: str, where: str = "predictions") -> Table:
    """The table in a text.

    Raises
    ------
    TableDamaged
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    problems: list[str] = []
    rows: list[Prediction] = []
    try:
        classes = _classes(next(reader, []), where)
        lines = _Lines(classes)
        for cells in reader:
            found = list(lines.problems(cells))
            problems += [f"{where}:{reader.line_num}: {problem}" for problem in found]
            if not found:
                rows.append(_prediction(cells))
    except csv.Error as error:
        raise TableDamaged(
            f"{where}:{reader.line_num}: line must be CSV; got {error}. Restore it from a copy."
        ) from error
    if not rows and not problems:
        problems.append(f"{where}: table must hold a prediction; got none. Restore it from a copy.")
    if not text.endswith("\n"):
        problems.append(f"{where}: last line must be whole; got no end of line. Restore it from a copy.")
    if problems:
        more = [f"... and {len(problems) - MAX_LISTED} more."] if len(problems) > MAX_LISTED else []
        raise TableDamaged("\n".join([*problems[:MAX_LISTED], *more]))
    return Table(tuple(rows), classes)


def _classes(header: Sequence[str], where: str) -> tuple[str, ...]:
    names = header[len(COLUMNS) :]
    classes = tuple(name.removeprefix(PROBABILITY) for name in names)
    whole = tuple(header[: len(COLUMNS)]) == COLUMNS and all(name.startswith(PROBABILITY) for name in names)
    if not whole or len(classes) < 2 or len(set(classes)) < len(classes) or "" in classes:
        raise TableDamaged(
            f"{where}:1: header must be {','.join(COLUMNS)},{PROBABILITY}CLASS,... for two or more classes; got "
            f"{','.join(header)!r:.200}. Restore it from a copy."
        )
    return classes


class _Lines:
    """The rules of a line, some of which look back at the lines before."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._each = are_action_units(classes)
        self._seen: set[tuple[str, str, int]] = set()
        self._clips: dict[tuple[str, str], tuple[str, str]] = {}

    def problems(self, cells: Sequence[str]) -> Iterator[str]:
        width = len(COLUMNS) + len(self._classes)
        if len(cells) != width:
            yield f"line must have {width} fields; got {len(cells)}. Restore it from a copy."
            return
        named = dict(zip(COLUMNS, cells, strict=False))
        for name in ("clip_id", "subject", "dataset", "fold"):
            if not named[name]:
                yield f"{name} must be filled in; got nothing. Restore it from a copy."
        for name in ("truth", "prediction"):
            if named[name] not in self._words(named[name]):
                yield f"{name} must be one of {', '.join(self._classes)}; got {named[name]!r}. Restore it from a copy."
        yield from _probability_problems(cells[len(COLUMNS) :], sum_to_1=not self._each)
        yield from self._repetitions(named)

    def _words(self, word: str) -> Sequence[str]:
        """What may stand as truth or prediction; of action units, what of them the word names, as it must be written."""
        if not self._each:
            return self._classes
        shown = set(shown_in(word))
        return [one_word([name for name in self._classes if name in shown])]

    def _repetitions(self, named: dict[str, str]) -> Iterator[str]:
        seed = _number(named["seed"])
        if seed is None:
            yield f"seed must be a whole number; got {named['seed']!r}. Restore it from a copy."
            return
        clip = (named["dataset"], named["clip_id"])
        if (*clip, seed) in self._seen:
            yield f"clip must stand once a seed; got {named['clip_id']!r} twice for seed {seed}. Remove the wrong line."
        self._seen.add((*clip, seed))
        known = self._clips.setdefault(clip, (named["subject"], named["truth"]))
        if known != (named["subject"], named["truth"]):
            yield (
                f"clip must have one subject and truth; got {named['subject']!r} and {named['truth']!r} where an earlier line of "
                f"{named['clip_id']!r} has {known[0]!r} and {known[1]!r}. Restore it from a copy."
            )


def _probability_problems(cells: Sequence[str], *, sum_to_1: bool) -> Iterator[str]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [math.nan]
    if not all(0 <= value <= 1 for value in values):
        yield f"probabilities must be numbers from 0 to 1; got {','.join(cells)!r:.200}. Restore it from a copy."
    elif sum_to_1 and abs(math.fsum(values) - 1) > SUM_TOLERANCE:
        yield f"probabilities must sum to 1; got {math.fsum(values):.6g}. Restore it from a copy."


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _prediction(cells: Sequence[str]) -> Prediction:
    clip_id, subject, dataset, fold, seed, truth, prediction, *probabilities = cells
    return Prediction(
        clip_id, subject, dataset, fold, int(seed), truth, prediction, tuple(float(cell) for cell in probabilities)
    )
