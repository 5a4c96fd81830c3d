"""Files come to lie whole, durable and never overwritten, or not at all."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.errors import DiskFull, EnvironmentMissing, SchemaTooNew, ShardCorrupt
from flowkit.storage import commit, durable_files, hashed_json

CONTENT = {"key": "k", "clips": [], "failures": [], "began": 0.0, "ended": 1.0, "host": "h"}


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_record_names_its_data_by_content(tmp_path: Path) -> None:
    record = commit.publish(tmp_path, 12, b"numbers", CONTENT)
    assert record.path == tmp_path / "shards" / "000" / "000012.json"
    assert record.data_path is not None
    assert record.data_path.read_bytes() == b"numbers"
    assert record.content["file"]["sha256"].startswith(record.data_path.stem.split("-")[1])
    assert commit.read_records(tmp_path) == [record]


def test_what_does_not_stand_the_check_is_not_published(tmp_path: Path) -> None:
    seen = []

    def check(image: bytes) -> None:
        seen.append(image)
        raise ShardCorrupt("shard in memory: clip 0 must read back as written.")

    with pytest.raises(ShardCorrupt, match="must read back"):
        commit.publish(tmp_path, 0, b"numbers", CONTENT, check)
    assert seen == [b"numbers"]
    assert files(tmp_path) == {}


def test_the_first_commit_of_a_task_counts(tmp_path: Path) -> None:
    first = commit.publish(tmp_path, 0, b"mine", {**CONTENT, "run": "mine"})
    second = commit.publish(tmp_path, 0, b"mine", {**CONTENT, "run": "theirs"})
    assert second == first
    assert second.is_of("mine")
    assert not second.is_of("theirs")


def test_a_record_of_other_settings_is_no_success(tmp_path: Path) -> None:
    commit.publish(tmp_path, 0, b"mine", CONTENT)
    with pytest.raises(ShardCorrupt, match="use an --out for each"):
        commit.publish(tmp_path, 0, b"theirs", {**CONTENT, "key": "other"})


@pytest.mark.parametrize("damage", ["torn record", "flipped record", "short data", "no data"])
def test_a_damaged_commit_counts_as_none_and_is_kept_aside(tmp_path: Path, damage: str) -> None:
    record = commit.publish(tmp_path, 0, b"numbers", CONTENT)
    data = record.data_path
    assert data is not None
    if damage == "torn record":
        record.path.write_bytes(record.path.read_bytes()[:40])
    elif damage == "flipped record":
        record.path.write_bytes(record.path.read_bytes().replace(b'"k"', b'"j"'))
    elif damage == "short data":
        data.write_bytes(b"num")
    else:
        data.unlink()
    assert commit.read_records(tmp_path) == []
    (invalid,) = commit.invalid_records(tmp_path)
    assert durable_files.quarantine(invalid).parent == tmp_path / "quarantine"
    again = commit.publish(tmp_path, 0, b"numbers", CONTENT)
    assert again.data_path is not None
    assert again.data_path.read_bytes() == b"numbers"


def test_a_record_of_a_newer_version_is_refused_not_redone(tmp_path: Path) -> None:
    record = commit.publish(tmp_path, 0, b"numbers", CONTENT)
    content = json.loads(record.path.read_bytes())["content"]
    record.path.write_bytes(hashed_json.encode({**content, "schema": hashed_json.SCHEMA + 1}))
    with pytest.raises(SchemaTooNew, match="newer flowkit"):
        commit.read_records(tmp_path)


def test_a_full_disk_is_a_clean_error_that_leaves_nothing(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: the kernel refuses the write in the same place."""
    code = (
        "import resource, signal; from pathlib import Path; from flowkit.storage import commit\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))\n"
        "try:\n"
        f"    commit.publish(Path({str(tmp_path)!r}), 0, bytes(1 << 20), {CONTENT!r})\n"
        "except commit.DiskFull as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "must have room for 1048576 bytes" in done.stdout
    assert files(tmp_path) == {}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_too_little_space_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    durable_files.check_space(tmp_path, 1)
    with pytest.raises(DiskFull, match="free space must be at least"):
        durable_files.check_space(tmp_path, 1 << 60)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentMissing, match="--out must be a folder where files can be created"):
        commit.probe(tmp_path / "file")


def test_only_dead_processes_temporaries_are_removed(tmp_path: Path) -> None:
    commit.probe(tmp_path)
    mine = durable_files.temporary_path(tmp_path / "index.npz")
    dead = mine.with_name(mine.name.replace(f"~{os.getpid()}~", "~99999999~"))
    elsewhere = dead.with_name(dead.name.replace(durable_files._owner(), "another-host"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and still stands in the process table
    unnoticed = mine.with_name(mine.name.replace(f"~{os.getpid()}~", f"~{ended.pid}~"))
    for path in (mine, dead, elsewhere, unnoticed):
        path.write_bytes(b"")
    durable_files.remove_stale_temporaries(tmp_path)
    assert [path.exists() for path in (mine, dead, elsewhere, unnoticed)] == [True, False, True, False]
    assert ended.wait() == 0


def test_overwrite_discards_only_what_flowkit_made(tmp_path: Path) -> None:
    commit.probe(tmp_path)
    durable_files.publish_file(tmp_path / commit.RUN_FILE, hashed_json.encode({"schema": 1}))
    commit.publish(tmp_path, 0, b"numbers", CONTENT)
    (tmp_path / "notes.txt").write_text("mine")
    commit.discard(tmp_path)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_overwrite_refuses_a_folder_that_is_not_flowkits(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "notes.txt").write_text("mine")
    with pytest.raises(EnvironmentMissing, match="must find a folder that flowkit made"):
        commit.discard(tmp_path)
    assert files(tmp_path) == {"plan/notes.txt": b"mine"}
    commit.discard(tmp_path.with_name("nothing there"))


def test_a_record_may_not_name_a_file_elsewhere(tmp_path: Path) -> None:
    record = commit.publish(tmp_path, 0, b"numbers", CONTENT)
    (tmp_path / "outside.h5").write_bytes(b"numbers")
    file = {**record.content["file"], "name": "../../outside.h5"}
    record.path.write_bytes(hashed_json.encode({**record.content, "file": file}))
    assert commit.read_records(tmp_path) == []
