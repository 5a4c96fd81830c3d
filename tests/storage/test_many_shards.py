"""More shards, in processes of every kind, than the files that may be open."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.storage import durable_files
from flowkit.storage.folder import ShardFolder
from flowkit.storage.shard_reader import Shard
from shard_builder import build_folder

QUICK, ALL = 140, 1000
SHARDS = (QUICK, pytest.param(ALL, marks=pytest.mark.slow))
FILES = {QUICK: 110, ALL: 256}
"""Files that a process may have open, of which the reader takes 64 for so many shards."""
READ = """
import sys
from pathlib import Path
from torch.utils.data import DataLoader, Subset
from flowkit import ShardFolder
from fmanet.dataset import ShardDataset
out, count, methods = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
step = max(1, count // 300)
found = ShardDataset([out], None, verify=False)  # looks into each
assert len(found) == count
some = Subset(found, range(0, count, step))  # more than may be open at once
for method in methods:
    loader = DataLoader(some, batch_size=50, num_workers=1, multiprocessing_context=method)
    assert sum(len(batch["row"]) for batch in loader) == len(some), method
shards = list(ShardFolder.open(out).shards())
first = [shard.sample(0)["clip_id"] for shard in shards[:300]]
assert [shard.sample(0)["clip_id"] for shard in shards[:300]] == first
"""


@pytest.fixture(scope="module", params=SHARDS)
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one clip each; made without waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable_files.os, "fsync", lambda handle: None)
        return build_folder(tmp_path_factory.mktemp("many") / "out", clips=request.param, shard_clips=1, failures=0)


def test_more_shards_than_files_may_be_open_are_read(many: Path) -> None:
    count = len(list(many.glob("shards/*/*.h5")))
    methods = ("fork", "spawn", "forkserver") if count == ALL else ("spawn",)  # each imports torch anew
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(many), str(count), *methods],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES[count], FILES[count])),
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_shard_that_is_open_here_is_read_there(many: Path, method: str) -> None:
    """Under fork the child has the parent's handle, and opens one of its own."""
    shard = next(iter(ShardFolder.open(many).shards()))
    expected = shard.sample(0)["sample_hash"]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_hash, [shard] * 8) == [expected] * 8
    assert shard.sample(0)["sample_hash"] == expected


def read_hash(shard: Shard) -> str:
    found: str = shard.sample(0)["sample_hash"]
    return found
