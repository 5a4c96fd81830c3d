"""Folders of version 0.1 are read and taken up again, and version 0.1 reads today's files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import version_0_1
from conftest import SMALL, flowkit, shard_bytes
from flowkit import commit
from flowkit.errors import SchemaTooNew
from flowkit.index import Index
from flowkit.manifest import Clip
from flowkit.shards import ShardFolder
from shard_builder import build_folder

CONTENT = {"schema": 1, "key": "k", "ended": 1e9 + 0.1, "clips": [{"clip_id": "dégoût", "row": "0"}], "file": None}


@pytest.fixture
def old(undisturbed: Path, tmp_path: Path) -> Path:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    version_0_1.write_anew(out)
    return out


def test_each_version_reads_what_the_other_writes() -> None:
    assert commit.decode(version_0_1.encode(CONTENT)) == CONTENT
    assert version_0_1.decode(commit.encode(CONTENT)) == CONTENT


def test_an_old_folder_says_what_it_said(undisturbed: Path, old: Path) -> None:
    assert ShardFolder.open(old).clips() == ShardFolder.open(undisturbed).clips()
    assert flowkit("verify", old).code == 0
    assert not (old / "index.json").exists()
    assert len(Index.load(old, pytest.fail)) == 12


def test_an_old_folder_that_was_killed_goes_on(undisturbed: Path, cropped: Path, old: Path) -> None:
    lost = sorted(old.glob("shards/*/*.json"))[1]
    (shard,) = lost.parent.glob(f"{lost.stem}-*.h5")
    lost.unlink()
    shard.unlink()
    done = flowkit("extract", cropped, "--out", old, *SMALL, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["computed"] == 5
    assert shard_bytes(old) == shard_bytes(undisturbed)


def test_a_changed_value_in_an_old_file_is_found(tmp_path: Path) -> None:
    out = build_folder(tmp_path / "out")
    version_0_1.write_anew(out)
    path = next(out.glob("shards/*/*.json"))
    path.write_bytes(path.read_bytes().replace(b'"surprise"', b'"disgust"'))
    assert commit.invalid_records(out) == [path]


def test_any_changed_byte_in_a_new_file_is_found() -> None:
    text = commit.encode(CONTENT)
    for place in range(len(text)):
        for bit in (1, 4, 32):
            changed = bytearray(text)
            changed[place] ^= bit
            assert commit.decode(bytes(changed)) is None, changed
        assert commit.decode(text[:place]) is None
    assert commit.decode(text + b" ") is None


def test_json_of_another_layout_is_no_record() -> None:
    outer = json.loads(commit.encode(CONTENT))
    assert commit.decode(json.dumps(outer, separators=(",", ":")).encode()) is None
    assert commit.decode(json.dumps({"content": outer["content"], "sha256": outer["sha256"]}).encode()) is None


def test_a_newer_schema_is_refused_in_both_layouts() -> None:
    newer = {**CONTENT, "schema": commit.SCHEMA + 1}
    for text in (commit.encode(newer), version_0_1.encode(newer)):
        with pytest.raises(SchemaTooNew):
            commit.decode(text)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_numbers = st.one_of(st.none(), st.integers(0, 10**9))


@given(
    st.tuples(_texts, _texts),
    st.tuples(st.integers(0, 10**9), _numbers, _numbers),
    st.tuples(_texts, _texts, _texts),
    st.one_of(st.just(math.nan), st.floats(0.001, 1e6)),
    _texts,
    st.lists(st.tuples(_texts, _texts), max_size=3).map(tuple),
)
def test_a_row_has_the_hash_that_old_records_name(
    where: tuple[str, str],
    frames: tuple[int, int | None, int | None],
    who: tuple[str, str, str],
    fps: float,
    source_hash: str,
    extra: tuple[tuple[str, str], ...],
) -> None:
    clip = Clip(*where, *frames, *who, fps, source_hash, extra, line=3)
    assert clip.row_hash() == version_0_1.row_hash(clip)
