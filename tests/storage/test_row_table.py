"""Rows by column are the rows that they were made from."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from flowkit.storage.row_table import Rows, column

ROWS: list[dict[str, Any]] = [
    {
        "clip_id": f"c{n}",
        "label": "joy" if n % 2 else "fear",
        "phase_valid": [True, n > 3],
        "qc": n % 2,
        "nested": [[n]],
    }
    for n in range(7)
]


def test_rows_come_back_as_they_were() -> None:
    rows = Rows(ROWS)
    assert (len(rows), [*rows], rows) == (7, ROWS, ROWS)
    assert (rows[2], rows[-1], rows[2:6:2]) == (ROWS[2], ROWS[-1], ROWS[2:6:2])
    assert json.loads(json.dumps(rows, default=list)) == ROWS
    assert pickle.loads(pickle.dumps(rows)) == ROWS
    assert rows != ROWS[:-1]
    with pytest.raises(IndexError):
        rows[7]


def test_a_column_is_the_same_from_rows_and_from_dicts() -> None:
    for name in ROWS[0]:
        assert column(Rows(ROWS), name) == column(ROWS, name) == [row[name] for row in ROWS]
    assert column(Rows([]), "clip_id") == []
    with pytest.raises(KeyError):
        column(Rows(ROWS), "nothing")


def test_what_repeats_is_stored_once() -> None:
    rows = Rows([{"label": "".join(["j", "oy"]), "valid": [True, False]} for _ in range(9)])
    assert len({id(label) for label in column(rows, "label")}) == 1
    assert len({id(valid) for valid in column(rows, "valid")}) == 1


def test_equal_values_of_other_types_are_not_mixed_up() -> None:
    mixed: list[dict[str, Any]] = [{"qc": 1}, {"qc": True}, {"qc": 1.0}]
    assert [type(value) for value in column(Rows(mixed), "qc")] == [int, bool, float]


@pytest.mark.parametrize("rows", [[{"a": 1}, {"b": 1}], [{"a": 1}, {"a": 1, "b": 1}], [{"a": 1}, None], ["a"], [[]]])
def test_what_are_no_rows_with_the_same_keys_is_refused(rows: list[Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        Rows(rows)
