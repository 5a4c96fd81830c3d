"""Folders of version 0.1 are read and left as they are, and version 0.1 reads today's records."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import version_0_1
from conftest import SMALL, flowkit
from flowkit.config import ExtractConfig
from flowkit.errors import SchemaTooNew
from flowkit.inputs.clip import Clip
from flowkit.storage import commit, hashed_json, run_file, schema
from flowkit.storage.folder import ShardFolder
from flowkit.storage.index import Index
from flowkit.storage.schema import COLUMNS, HASHED
from fmanet.dataset import ShardDataset
from shard_builder import build_folder

CONTENT = {"schema": 1, "key": "k", "ended": 1e9 + 0.1, "clips": [{"clip_id": "dégoût", "row": "0"}], "file": None}


@pytest.fixture
def old(undisturbed: Path, tmp_path: Path) -> Path:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    version_0_1.write_anew(out)
    return out


def test_each_version_reads_what_the_other_writes() -> None:
    assert hashed_json.decode(version_0_1.encode(CONTENT)) == CONTENT
    assert version_0_1.decode(hashed_json.encode(CONTENT)) == CONTENT


def test_an_old_folder_says_what_it_said(undisturbed: Path, old: Path) -> None:
    assert ShardFolder.open(old).clips() == ShardFolder.open(undisturbed).clips()
    assert flowkit("verify", old).code == 0
    assert not (old / "index.json").exists()
    assert len(Index.load(old, pytest.fail)) == 12


def test_an_old_shard_says_what_it_said_without_the_columns_it_lacks(undisturbed: Path, old: Path) -> None:
    for was, now in zip(ShardFolder.open(old).shards(), ShardFolder.open(undisturbed).shards(), strict=True):
        for before, after in zip(was.samples(), now.samples(), strict=True):
            assert set(before) == set(version_0_1.COLUMNS) - {"faces"}
            assert set(after) - set(before) == {column.name for column in COLUMNS if column.since == 2}
            assert before.pop("sample_hash") != after["sample_hash"]
            assert all(np.array_equal(before[name], after[name], equal_nan=name in HASHED) for name in before)
        with pytest.raises(KeyError):
            was.column("turn")


def test_every_command_reads_an_old_folder(old: Path, tmp_path: Path) -> None:
    assert json.loads(flowkit("inspect", old, "--json").out)["schema"] == 1
    for command in (("verify",), ("report",), ("settings", "--of")):
        assert flowkit(*command, old).code == 0, command
    for form in ("npz", "png"):
        assert flowkit("export", old, "--format", form, "--out", tmp_path / form).code == 0, form
    assert len(ShardDataset([old], "raw").clips()) == 12


def test_extract_says_in_one_line_how_to_go_on_with_the_settings_of_an_old_folder(
    cropped: Path, undisturbed: Path, old: Path, tmp_path: Path
) -> None:
    before = commit.listing(old)
    for flags in (SMALL, (*SMALL, "--stabilise", "none"), (*SMALL, "--dry-run"), (*SMALL, "--part", "0/2")):
        done = flowkit("extract", cropped, "--out", old, *flags)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert f"for the same settings: flowkit settings --of {old} --out FILE, then --config FILE" in done.err
        assert "or finish it with flowkit 0.1.0." in done.err
    assert commit.listing(old) == before
    assert flowkit("settings", "--of", old, "--out", tmp_path / "FILE").code == 0
    flags = ("--out", tmp_path / "anew", "--config", tmp_path / "FILE", "--dry-run", "--json")
    again = json.loads(flowkit("extract", cropped, *flags).out)
    assert again["fingerprint"] == ShardFolder.open(undisturbed).run["fingerprint"]


def test_an_old_folder_without_a_shard_is_begun_anew(cropped: Path, old: Path) -> None:
    shutil.rmtree(old / "shards")
    done = flowkit("extract", cropped, "--out", old, *SMALL, "--dry-run", "--json")
    assert json.loads(done.out)["pending"] == 12
    share = flowkit("extract", cropped, "--out", old, *SMALL, "--part", "0/2")
    assert share.code == 2
    assert "got schema 1 -> 2, and no shard yet" in share.err


def test_a_setting_that_came_later_has_the_value_of_then_in_an_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = build_folder(tmp_path / "out")
    monkeypatch.setitem(schema.NEWER_SETTINGS, "align", {"size": 1, "halo": "none"})
    settings = ShardFolder.open(out).run["settings"]
    assert (settings["align"]["size"], settings["align"]["halo"]) == (32, "none")
    assert run_file.completed({"import": {}, "align": {}}) == {"import": {}, "align": {}}


def test_the_values_of_then_are_settings_of_today() -> None:
    ExtractConfig.from_dict(schema.NEWER_SETTINGS)


def test_a_folder_of_newer_shards_is_refused_before_anything_is_written(cropped: Path, tmp_path: Path) -> None:
    out = build_folder(tmp_path / "out")
    run = ShardFolder.open(out).run
    (out / "run.json").write_bytes(hashed_json.encode({**run, "shard_schema": schema.SHARD_SCHEMA + 1}))
    for command in (("inspect", out), ("verify", out), ("extract", cropped, "--out", out)):
        done = flowkit(*command)
        assert (done.code, "schema of the shards must be at most 2; got 3. Use the newer flowkit" in done.err) == (
            1,
            True,
        )


def test_a_changed_value_in_an_old_file_is_found(tmp_path: Path) -> None:
    out = build_folder(tmp_path / "out")
    version_0_1.write_anew(out)
    path = next(out.glob("shards/*/*.json"))
    path.write_bytes(path.read_bytes().replace(b'"surprise"', b'"disgust"'))
    assert commit.invalid_records(out) == [path]


def test_any_changed_byte_in_a_new_file_is_found() -> None:
    text = hashed_json.encode(CONTENT)
    for place in range(len(text)):
        for bit in (1, 4, 32):
            changed = bytearray(text)
            changed[place] ^= bit
            assert hashed_json.decode(bytes(changed)) is None, changed
        assert hashed_json.decode(text[:place]) is None
    assert hashed_json.decode(text + b" ") is None


def test_json_of_another_layout_is_no_record() -> None:
    outer = json.loads(hashed_json.encode(CONTENT))
    assert hashed_json.decode(json.dumps(outer, separators=(",", ":")).encode()) is None
    assert hashed_json.decode(json.dumps({"content": outer["content"], "sha256": outer["sha256"]}).encode()) is None


def test_a_newer_schema_is_refused_in_both_layouts() -> None:
    newer = {**CONTENT, "schema": hashed_json.SCHEMA + 1}
    for text in (hashed_json.encode(newer), version_0_1.encode(newer)):
        with pytest.raises(SchemaTooNew):
            hashed_json.decode(text)


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
