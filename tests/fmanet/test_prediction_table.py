"""The table of predictions: exact round trip, and every kind of damage refused with its line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmanet.errors import TableDamaged
from fmanet.scoring.prediction_table import Prediction, parse_table, read_table, table_bytes, write_table

CLASSES = ("negative", "positive")
ROW = Prediction("c1", "casme2/s1", "casme2", "casme2.s1", 0, "negative", "positive", (0.25, 0.75))
HEADER = "clip_id,subject,dataset,fold,seed,truth,prediction,p:negative,p:positive\n"
LINE = "c1,casme2/s1,casme2,casme2.s1,0,negative,positive,0.25,0.75\n"

words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=8)


@given(words, words, words, words, st.integers(-1, 10**6), st.floats(0, 1))
def test_a_table_reads_back_exactly_whatever_the_names_hold(
    clip: str, subject: str, dataset: str, fold: str, seed: int, share: float
) -> None:
    rows = [Prediction(clip, subject, dataset, fold, seed, "positive", "negative", (share, 1 - share))]
    read = parse_table(table_bytes(rows, CLASSES).decode())
    assert read == (tuple(rows), CLASSES)
    assert [math.copysign(1, p) for p in read.rows[0].probabilities] == [
        math.copysign(1, p) for p in rows[0].probabilities
    ]


def test_a_table_on_disk_keeps_the_order_of_rows_and_the_bits_of_float32(tmp_path: Path) -> None:
    softmax = np.array([0.1, 0.9], np.float32)
    rows = (replace(ROW, seed=1, probabilities=tuple(softmax)), ROW)
    write_table(tmp_path / "predictions.csv", rows, CLASSES)
    read = read_table(tmp_path / "predictions.csv")
    assert read.rows == (replace(rows[0], probabilities=tuple(map(float, softmax))), ROW)
    assert (tmp_path / "predictions.csv").read_text() == HEADER + (
        "c1,casme2/s1,casme2,casme2.s1,1,negative,positive,0.10000000149011612,0.8999999761581421\n" + LINE
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: header must be"),
        (HEADER.replace("truth,", "") + LINE, ":1: header must be"),
        (HEADER.replace(",p:positive", "") + LINE, ":1: header must be"),
        (HEADER.replace("p:positive", "p:negative") + LINE, ":1: header must be"),
        (HEADER, "table must hold a prediction"),
        (HEADER + LINE.replace("0.25,", ""), ":2: line must have 9 fields; got 8"),
        (HEADER + LINE.replace("negative", "sulk"), ":2: truth must be one of negative, positive; got 'sulk'"),
        (HEADER + LINE.replace("positive", "sulk"), ":2: prediction must be one of"),
        (HEADER + LINE.replace("0.75", "0.7"), ":2: probabilities must sum to 1; got 0.95"),
        (HEADER + LINE.replace("0.75", "nan"), ":2: probabilities must be numbers from 0 to 1"),
        (HEADER + LINE.replace("0.25,0.75", "-0.25,1.25"), ":2: probabilities must be numbers from 0 to 1"),
        (HEADER + LINE.replace("0.75", "much"), ":2: probabilities must be numbers from 0 to 1"),
        (HEADER + LINE.replace(",0,", ",0.5,"), ":2: seed must be a whole number"),
        (HEADER + LINE.replace("casme2/s1", ""), ":2: subject must be filled in"),
        (HEADER + LINE + LINE, ":3: clip must stand once a seed; got 'c1' twice for seed 0"),
        (HEADER + LINE + LINE.replace(",0,negative", ",1,positive"), ":3: clip must have one subject and truth"),
        (HEADER + LINE[:-1], "last line must be whole"),
        (HEADER + LINE + '"c2', ":3: line must be CSV"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TableDamaged) as caught:
        parse_table(text)
    assert message in str(caught.value)


def test_every_damaged_line_is_listed_at_once() -> None:
    with pytest.raises(TableDamaged) as caught:
        parse_table(HEADER + LINE.replace("0.75", "0.7") + LINE.replace("c1", "c2").replace("0.75", "inf"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "row", [replace(ROW, probabilities=(0.5, 0.6)), replace(ROW, clip_id="a\rb"), replace(ROW, truth="sulk")]
)
def test_rows_that_would_not_read_back_are_never_written(tmp_path: Path, row: Prediction) -> None:
    with pytest.raises(TableDamaged):
        write_table(tmp_path / "predictions.csv", [row], CLASSES)
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("none.csv", "torn.csv"):
        with pytest.raises(TableDamaged, match=name):
            read_table(tmp_path / name)
