"""Known errors of annotation files, each with its source: corrections.csv, a table to read and to change.

A correction names a clip by key, never by the number of its row, and is applied only if the cell still holds what was wrong:
copies of one workbook differ.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from flowkit.datasets.folders import bare_subject, fold_path
from flowkit.errors import ManifestError
from flowkit.labels.groupings import dataset_name
from flowkit.labels.toml_form import fold
from flowkit.storage.safe_files import read_regular

COLUMNS: Final = ("dataset", "subject", "clip", "onset", "field", "old", "new", "when", "source", "note")
FIELDS: Final = ("onset", "apex", "offset", "label", "action_units", "exclude")
ESTIMATED: Final = "estimated"
"""Condition of a row that is no correction of an error, but an estimate; and the column of a manifest that names those taken."""
CONDITIONS: Final = ("", "impossible", "ambiguous", ESTIMATED)
FILE: Final = "corrections.csv"


@dataclass(frozen=True, slots=True)
class Correction:
    """One row of the table.

    Attributes
    ----------
    dataset, subject, clip, onset : str
        Whose cell is wrong; an empty onset: any.
    field : str
        One of FIELDS; `exclude` leaves the clip out.
    old, new : str
        Text of the cell as it is in the workbook, and as it should be. An empty old: whatever fits `when`; "onset" or "offset":
        what that cell holds.
    when : str
        "impossible": only a frame number that is out of the order onset, apex, offset, or that no frame has; "ambiguous":
        only a text with the word "or"; "estimated": an estimate, in place of an impossible number, or of any if it is asked for.
    source, note : str
        Who says so, and what else there is to know.
    line : int
    """

    dataset: str
    subject: str
    clip: str
    onset: str
    field: str
    old: str
    new: str
    when: str
    source: str
    note: str
    line: int

    @property
    def what(self) -> str:
        """The change in words."""
        return "left out" if self.field == "exclude" else f"{self.field} {self.old or '*'} -> {self.new or 'empty'}"

    def fits(self, subject: str, clip: str, onset: str) -> bool:
        """Whether it is about the clip of these."""
        same = _key(self.subject, self.clip) == _key(subject, clip)
        return same and (self.onset == "" or _plain_number(self.onset) == _plain_number(onset))

    def refusal(self, present: str, *, impossible: bool) -> str:
        """Why it must not be applied to a cell that has another value than the new one; empty if it may.

        Parameters
        ----------
        present : str
            What the cell holds.
        impossible : bool
            Whether that number cannot be right.
        """
        if self.old and (fold(present) != fold(self.old) if self.field == "label" else present != self.old):
            return f"the file has {present!r}, not {self.old!r}"
        if self.when == "impossible" and not impossible:
            return f"the file has {present!r}, which may be right"
        if self.when == "ambiguous" and not re.search(r"\bor\b", present, re.IGNORECASE):
            return f"the file has {present!r}, which has no 'or'"
        return ""


def _key(subject: str, clip: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A clip as it is compared: "01" is "sub01"."""
    return tuple(map(bare_subject, fold_path(subject))), fold_path(clip)


def _plain_number(text: str) -> str:
    return str(int(text)) if text.isdecimal() else text


def corrections(dataset: str, file: Path | None = None) -> list[Correction]:
    """The known errors of a data set.

    Parameters
    ----------
    dataset : str
    file : Path, optional
        Another table in the form of corrections.csv.

    Raises
    ------
    ManifestError
        The table cannot be used: every problem is listed.
    """
    if file is None:
        text = resources.files("flowkit.datasets").joinpath(FILE).read_text(encoding="utf-8")
    else:
        try:
            text = read_regular(file).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file}: corrections must be a CSV file in UTF-8; got {error}. Check it.") from error
    rows = _parse(text.splitlines(), str(file or FILE))
    return [row for row in rows if dataset_name(row.dataset) == dataset_name(dataset)]


def _parse(lines: Iterable[str], where: str) -> Sequence[Correction]:
    reader = csv.DictReader(lines, strict=True)
    problems: list[str] = []
    found: list[Correction] = []
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            problems.append(
                f"{where}:1: header must be {','.join(COLUMNS)}; got {','.join(reader.fieldnames or ())}. Correct it."
            )
        for row in reader if not problems else ():
            if None in row or None in row.values():
                problems.append(
                    f"{where}:{reader.line_num}: row must have {len(COLUMNS)} fields; got another number. Correct it."
                )
                continue
            found.append(Correction(**{name: text.strip() for name, text in row.items()}, line=reader.line_num))
            problems += _row_problems(found[-1], f"{where}:{reader.line_num}")
    except csv.Error as error:
        problems.append(f"{where}:{reader.line_num + 1}: row must be CSV; got {error}. Check the quotes.")
    if problems:
        raise ManifestError("\n".join(problems))
    return found


def _row_problems(row: Correction, where: str) -> list[str]:
    allowed = {"field": FIELDS, "when": CONDITIONS}
    problems = [
        f"{where}: {name} must be one of {', '.join(filter(None, words))}; got {getattr(row, name)!r}. Correct it."
        for name, words in allowed.items()
        if getattr(row, name) not in words
    ]
    problems += [
        f"{where}: {name} must be filled in; got an empty cell. Fill it in."
        for name in ("dataset", "subject", "clip", "source")
        if not getattr(row, name)
    ]
    if row.field != "exclude" and not row.old and not row.when:
        problems.append(f"{where}: old must say what is wrong, or when must; got neither. Fill one in.")
    if row.field == "exclude" and (row.old or row.new or row.when):
        problems.append(f"{where}: exclude must come without old, new and when; got one of them. Leave them empty.")
    elif row.field in ("onset", "apex", "offset") and not re.fullmatch(
        "[0-9]*" if row.field == "apex" else "[0-9]+", row.new
    ):
        problems.append(f"{where}: new must be a frame number; got {row.new!r}. Correct it.")
    elif row.when in ("impossible", ESTIMATED) and row.field not in ("onset", "apex", "offset"):
        problems.append(f"{where}: {row.when} must be of onset, apex or offset; got {row.field}. Leave it empty.")
    return problems
