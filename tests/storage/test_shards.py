"""The shard: the same bytes for the same samples, and a reader that trusts nothing."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile_shards import recommitted

from flowkit.errors import ConfigError, ShardCorrupt
from flowkit.storage import shard_writer
from flowkit.storage.folder import ShardFolder
from flowkit.storage.schema import ACTION_UNITS, COLUMNS, SHARD_SCHEMA, Column, sample_bytes
from flowkit.storage.shard_reader import Shard
from flowkit.storage.shard_writer import ShardBuilder, shard_image
from shard_builder import build_folder, of_schema_2

CLIPS = 2
"""In each shard of `build_folder`."""


@pytest.fixture
def folder(tmp_path: Path) -> ShardFolder:
    return ShardFolder.open(build_folder(tmp_path / "out"))


def first(folder: ShardFolder, *, verify: bool = True) -> Shard:
    return next(iter(folder.shards(verify=verify)))


def test_what_is_written_reads_back(folder: ShardFolder) -> None:
    with first(folder) as shard:
        samples = list(shard.samples())
        assert len(samples) == len(shard) == CLIPS
        assert shard.column("clip_id").tolist() == [sample["clip_id"] for sample in samples]
        assert np.array_equal(shard.column("flow")[1], samples[1]["flow"])
        assert {column.name for column in COLUMNS if column.name != "faces"} == set(samples[0])


def test_a_sample_of_the_newest_columns_reads_back_under_the_names_of_its_action_units(folder: ShardFolder) -> None:
    with h5py.File(first(folder).path) as file:
        assert file.attrs["schema"] == SHARD_SCHEMA
        assert tuple(file.attrs["action_units"].split()) == ACTION_UNITS
    with first(folder) as shard:
        for row in range(CLIPS):
            for name, value in of_schema_2(row).items():
                assert np.array_equal(shard.sample(row)[name], np.asarray(value, shard.column(name).dtype)), name


def test_the_same_samples_give_the_same_bytes(folder: ShardFolder) -> None:
    samples = list(first(folder).samples())
    assert shard_image(samples, folder.run["settings"]) == shard_image(samples, folder.run["settings"])
    assert shard_image(samples, folder.run["settings"]) == first(folder).path.read_bytes()


def test_the_size_estimate_is_that_of_the_numbers(folder: ShardFolder) -> None:
    """The file is larger by texts and HDF5's own records only."""
    real = first(folder).path.stat().st_size / CLIPS
    assert sample_bytes(32, keep_faces=False) < real < sample_bytes(32, keep_faces=False) + 10_000


@pytest.mark.parametrize("seed", range(20))
def test_any_flipped_bit_is_found_before_libhdf5_sees_it(folder: ShardFolder, seed: int) -> None:
    shard = first(folder)
    content = bytearray(shard.path.read_bytes())
    draw = np.random.default_rng(seed)
    content[draw.integers(len(content))] ^= 1 << draw.integers(8)
    shard.path.write_bytes(content)
    with pytest.raises(ShardCorrupt, match="that were committed"):
        shard.sample(0)


def test_a_truncated_file_is_no_commit_at_all(folder: ShardFolder) -> None:
    path = first(folder).path
    path.write_bytes(path.read_bytes()[:-1])
    assert len(list(ShardFolder.open(folder.path).shards())) < len(list(folder.shards()))


@pytest.mark.parametrize("name", ["flow", "au_hint"])
def test_numbers_changed_under_a_valid_file_hash_are_found(folder: ShardFolder, tmp_path: Path, name: str) -> None:
    def change(file: Any) -> None:
        file[name].write_direct(np.ones_like(file[name][:]))

    shard = recommitted(first(folder), change, tmp_path / "tampered")
    with pytest.raises(ShardCorrupt, match="must match its hash"):
        list(Shard(shard, folder.run["settings"]).samples())


def test_an_open_shard_travels_to_another_process(folder: ShardFolder) -> None:
    shard = first(folder)
    expected = shard.sample(0)["sample_hash"]
    assert pickle.loads(pickle.dumps(shard)).sample(0)["sample_hash"] == expected
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(read_hash, (shard,)) == expected


def read_hash(shard: Shard) -> str:
    found: str = shard.sample(0)["sample_hash"]
    return found


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got no run\.json"):
        ShardFolder.open(tmp_path)


def test_a_damaged_run_file_is_an_error(folder: ShardFolder) -> None:
    path = folder.path / "run.json"
    path.write_bytes(path.read_bytes().replace(b"cpu", b"gpu"))
    with pytest.raises(ShardCorrupt, match="as it was written"):
        ShardFolder.open(folder.path)


def test_a_value_of_another_shape_is_refused_and_not_stored(folder: ShardFolder) -> None:
    samples = list(first(folder).samples())
    for name, wrong in (("flow", samples[1]["flow"][..., :-1]), ("regions", samples[1]["regions"].ravel())):
        with pytest.raises(ValueError, match=f"{name}: shape must be"):
            shard_image([samples[0], {**samples[1], name: wrong}], folder.run["settings"])


@pytest.mark.parametrize("column", ["flow", "landmarks", "qc", "fps", "phase_valid"])
def test_numbers_that_do_not_read_back_as_written_are_refused(
    folder: ShardFolder, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """As where memory is bad: one clip's number changes between its hash and the file."""
    samples = list(first(folder).samples())
    write_column, write_chunk = shard_writer._write_column, shard_writer._write_chunk

    def damaged_column(file: Any, which: Column, values: list[Any], size: int) -> None:
        if which.name == column:
            values = [values[0], np.asarray(values[1]) == 0, *values[2:]]
        write_column(file, which, values, size)

    def damaged_chunk(dataset: Any, row: int, cell: Any) -> None:
        spoilt = row == 1 and dataset.name == f"/{column}"
        write_chunk(dataset, row, (cell == 0).astype(cell.dtype) if spoilt else cell)

    monkeypatch.setattr(shard_writer, "_write_column", damaged_column)
    monkeypatch.setattr(shard_writer, "_write_chunk", damaged_chunk)
    with pytest.raises(ShardCorrupt, match="clip 1 must read back as written"):
        shard_image(samples, folder.run["settings"])


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_fewer_clips_than_expected_give_the_bytes_of_a_shard_of_so_many(folder: ShardFolder, compress: str) -> None:
    settings = {**folder.run["settings"], "shard": {"clips": 2, "compress": compress, "keep_faces": False}}
    samples = list(first(folder).samples())
    builder = ShardBuilder(7, settings)
    for sample in samples:
        builder.add(sample)
    assert builder.image() == shard_image(samples, settings)
    assert [row["clip_id"] for row in builder.rows] == [sample["clip_id"] for sample in samples]
    assert {"flow", "mmcof", "regions", "landmarks"}.isdisjoint(builder.rows[0])
