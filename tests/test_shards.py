"""The shard: the same bytes for the same samples, and a reader that trusts nothing."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flowkit import commit
from flowkit.commit import Record
from flowkit.errors import ConfigError, SchemaTooNew, ShardCorrupt
from flowkit.shards import COLUMNS, Shard, ShardFolder, sample_bytes, shard_image
from shard_builder import build_folder

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
        assert {column.name for column in COLUMNS if not column.optional} == set(samples[0])


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


def test_numbers_changed_under_a_valid_file_hash_are_found(folder: ShardFolder) -> None:
    shard = recommitted(first(folder), lambda file: file["flow"].write_direct(np.ones_like(file["flow"][:])))
    with pytest.raises(ShardCorrupt, match="must match its hash"):
        list(Shard(shard, folder.run["settings"]).samples())


def external(file: Any) -> None:
    del file["residual"]
    file.create_dataset("residual", (CLIPS, 2), "<f4", external=[("/etc/hostname", 0, 8 * CLIPS)])


def link(file: Any) -> None:
    del file["residual"]
    file["residual"] = h5py.ExternalLink("other.h5", "residual")


def soft(file: Any) -> None:
    del file["residual"]
    file["residual"] = h5py.SoftLink("/residual")


def virtual(file: Any) -> None:
    del file["residual"]
    layout = h5py.VirtualLayout((CLIPS, 2), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "residual", (CLIPS, 2))
    file.create_virtual_dataset("residual", layout)


def bomb(file: Any) -> None:
    del file["flow"]
    file.create_dataset("flow", (100_000_000, 2, 2, 32, 32), "<f2", chunks=(1, 2, 2, 32, 32))


def squeezed(file: Any) -> None:
    flow = file["flow"][:]
    del file["flow"]
    file.create_dataset("flow", data=flow, chunks=(1, 2, 2, 32, 32), compression="gzip")


def missing(file: Any) -> None:
    del file["transform"]


def wider(file: Any) -> None:
    flow = file["flow"][:].astype("<f8")
    del file["flow"]
    file.create_dataset("flow", data=flow, chunks=(1, 2, 2, 32, 32))


def newer(file: Any) -> None:
    file.attrs["schema"] = commit.SCHEMA + 1


@pytest.mark.parametrize("tamper", [external, link, soft, virtual, bomb, squeezed, missing, wider, newer])
def test_whatever_is_not_the_schema_is_refused(folder: ShardFolder, tamper: Callable[[Any], None]) -> None:
    """Even with a commit record that vouches for the file."""
    shard = Shard(recommitted(first(folder), tamper), folder.run["settings"])
    with pytest.raises(SchemaTooNew if tamper is newer else ShardCorrupt):
        shard.sample(0)


def recommitted(shard: Shard, tamper: Callable[[Any], None]) -> Record:
    """Tamper with a shard and commit the result as if it were honest."""
    with h5py.File(shard.path, "r+") as file:
        tamper(file)
    content = {k: v for k, v in shard.record.content.items() if k not in ("schema", "task", "file")}
    return commit.publish(shard.path.parents[2] / "tampered", 0, shard.path.read_bytes(), content)


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
