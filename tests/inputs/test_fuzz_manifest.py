"""Any bytes and any rows as a manifest: clips, or a ManifestError, and no path that leaves the root. Settings likewise."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.config import load_config
from flowkit.errors import ConfigError, ManifestError
from flowkit.face.landmarks import POINTS
from flowkit.face.landmarks_file import read_landmarks_file
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import OPTIONAL, REQUIRED, read_manifest, write_manifest

FUZZ = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "",
        " ",
        "1",
        "8.0",
        "-1",
        "1e9",
        "../x",
        "a/../b",
        "/x",
        "~",
        "a:b",
        "x%03d.png",
        'q"q',
        "a,b",
        "\n",
        "\r",
        "\0",
        "\ufeff",
        "é",
    ]
)
NUMBERS = st.integers(0, 999_999_999)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "table"


def refused_or(call: Callable[[], Any], refusal: type[Exception]) -> Any:
    """What a call returns; None where it refuses, in the form of this project's messages."""
    try:
        return call()
    except refusal as error:
        said = str(error)
    assert " must " in said
    return None


def read(path: Path, content: bytes) -> list[Clip] | None:
    """Clips, or None where the manifest is refused; every accepted path must lie under the root."""
    path.write_bytes(content)
    clips = refused_or(lambda: read_manifest(path), ManifestError)
    if clips is None:
        return None
    root = Path("/root/of/all")
    for clip in clips:
        there = Path(*(root / clip.path).parts)
        assert ".." not in there.parts
        assert there.is_relative_to(root)
        assert "\0" not in clip.path
        assert "://" not in clip.path
    assert clips
    return clips


@FUZZ
@given(content=st.binary(max_size=400), header=st.booleans())
def test_any_bytes_are_clips_or_an_error(file: Path, content: bytes, header: bool) -> None:
    read(file, (",".join(REQUIRED) + "\n").encode() * header + content)


@FUZZ
@given(
    further=st.lists(TEXTS, max_size=3),
    optional=st.lists(st.sampled_from(OPTIONAL), max_size=2, unique=True),
    data=st.data(),
)
def test_any_rows_are_clips_or_an_error_and_clips_can_be_written_again(
    file: Path, further: list[str], optional: list[str], data: st.DataObject
) -> None:
    header = [*REQUIRED, *optional, *further]
    plain = st.sampled_from(["a", "b", "c d", "1", "2", "30", ""])
    rows = data.draw(st.lists(st.lists(plain | TEXTS, min_size=len(header), max_size=len(header)), max_size=4))
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    clips = read(file, text.getvalue().encode("utf-8", "surrogatepass"))
    if clips is not None:
        assert_round_trip(clips)


@FUZZ
@given(
    names=st.lists(
        st.text("abcé =+-@'\"<>,;", min_size=1, max_size=8).map(str.strip).filter(bool),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    numbers=st.tuples(NUMBERS, NUMBERS | st.none(), NUMBERS | st.none()),
    fps=st.floats(1e-3, 1e5) | st.just(math.nan),
    note=st.text('xyz=<&"', max_size=9),
)
def test_what_is_written_reads_back(
    names: list[str], numbers: tuple[int, int | None, int | None], fps: float, note: str
) -> None:
    onset, apex, offset = numbers
    clips = [
        Clip(name, f"f/{n}", onset, apex, offset, name, "d", name, fps, "", (("note", note),))
        for n, name in enumerate(names)
    ]
    assert_round_trip(sorted(clips, key=lambda clip: clip.clip_id))


def assert_round_trip(clips: list[Clip]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "again.csv")
        write_manifest(path, clips)
        assert [clip.row_hash() for clip in read_manifest(path)] == [clip.row_hash() for clip in clips]


@FUZZ
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_settings_or_an_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused_or(lambda: load_config(file), ConfigError)


@FUZZ
@given(rows=st.lists(st.lists(TEXTS, min_size=4, max_size=4), max_size=4), junk=st.binary(max_size=40))
def test_any_rows_are_landmarks_or_an_error(file: Path, rows: list[list[str]], junk: bytes) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["clip_id", "point", "x", "y"], *rows])
    file.write_bytes(text.getvalue().encode("utf-8", "surrogatepass") + junk)
    found = refused_or(lambda: read_landmarks_file(file), ManifestError)
    assert all(points.shape == (POINTS, 2) for points in (found or {}).values())
