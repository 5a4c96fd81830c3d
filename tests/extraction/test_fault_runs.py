"""Faults that concern a run as a whole: it ends with the right code, says what to do, and goes on where it was.

The numbers are those of the fault table in docs/reliability.md; faults of single clips are in test_faults.py, kills in
test_kill_matrix.py.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_extract import extract, leftovers, rows, write_rows
from test_faults import sick

from conftest import SMALL, flowkit, shard_bytes, start
from flowkit.storage import commit


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- 16 and 28: the manifest


def test_a_manifest_without_clips_or_with_a_clip_twice_ends_before_anything_is_written(
    cropped: Path, tmp_path: Path
) -> None:
    header, first, second, *_ = cropped.read_text().splitlines(keepends=True)
    (tmp_path / "none.csv").write_text(header)
    (tmp_path / "twice.csv").write_text(header + first + second + first)
    for name, says in (("none.csv", ("none.csv",)), ("twice.csv", ("twice.csv:4", "line 2"))):
        done = extract(tmp_path / name, tmp_path / "out", "--root", cropped.parent)
        assert done.code == 2, done.err
        assert all(text in done.err for text in says), done.err
        assert not (tmp_path / "out").exists()


# -- 17: the disk


def test_more_clips_than_the_disk_has_room_for_are_refused_before_the_first(cropped: Path, tmp_path: Path) -> None:
    """Rows that name the same frames, in number more than fit."""
    bytes_a_clip = 14 * 2048**2  # flow and MM-COF alone
    row, count = rows(cropped)[0], shutil.disk_usage(tmp_path).free // bytes_a_clip + 1
    manifest = write_rows(tmp_path / "many.csv", [{**row, "clip_id": f"{n:07d}"} for n in range(count)])
    out = tmp_path / "out"
    done = extract(manifest, out, "--root", cropped.parent, "--size", "2048")
    assert done.code == 74, done.err
    assert "free space must be at least" in done.err
    assert shard_bytes(out) == {}
    assert leftovers(out) == []


# -- 18: the folder


def test_a_folder_that_may_not_be_written_is_told_before_anything_is_computed(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    """A user's own folder without the right to write; root has to give up its power over permissions for this."""
    powerless = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    begun = shutil.copytree(undisturbed, tmp_path / "begun")
    (tmp_path / "new").mkdir()
    for out, closed in ((tmp_path / "new", "."), (begun, "plan"), (begun, "shards/000")):
        before = shard_bytes(out)
        (out / closed).chmod(0o555)
        done = flowkit("extract", cropped, "--out", out, *SMALL, before=powerless)
        (out / closed).chmod(0o755)
        assert done.code == 3, done.err
        assert f"{out / closed}: --out must be a folder where files can be created" in done.err
        assert "Permission denied" in done.err
        assert shard_bytes(out) == before
        assert leftovers(out) == []
    (tmp_path / "in the way").write_text("a file")
    done = extract(cropped, tmp_path / "in the way" / "out")
    assert done.code == 3, done.err
    assert "--out must be a folder" in done.err
    assert extract(cropped, tmp_path / "new").code == 0
    assert shard_bytes(tmp_path / "new") == shard_bytes(undisturbed)


def test_a_folder_that_is_not_there_is_made_with_those_above_it(cropped: Path, tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "one.csv", rows(cropped)[:1])
    assert extract(manifest, tmp_path / "a" / "b" / "out", "--root", cropped.parent).code == 0
    assert flowkit("verify", tmp_path / "a" / "b" / "out").code == 0


# -- 20: signals


def test_sigterm_twice_before_the_first_commit_leaves_nothing_half_done(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start("extract", cropped, "--out", out, *SMALL)
    wait_until(lambda: (out / "plan" / "000000.json").exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Run the same command again" in err
    assert (leftovers(out), commit.invalid_records(out)) == ([], [])
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)


def test_sigterm_twice_amid_a_commit_lets_it_finish(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    """The process is held while a shard's temporary file is there, and finds both signals when it goes on.

    Not amid the last commit: after it, nothing is left to stop.
    """
    last = max(record.task for record in commit.read_records(undisturbed))
    for attempt in itertools.count():
        assert attempt < 20
        out = tmp_path / f"out{attempt}"
        process = start("extract", cropped, "--out", out, *SMALL)
        folder = out / "shards" / "000"
        while not held_amid_a_commit(process, folder) and process.poll() is None:
            pass
        held = sorted(path.name.rpartition("~")[2] for path in folder.glob(".tmp~*"))
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGCONT):
            os.kill(process.pid, number) if process.poll() is None else None
        _, err = process.communicate(timeout=120)
        if held and int(held[0][:6]) < last:
            break
    assert process.returncode == 75, err
    assert (leftovers(out), commit.invalid_records(out)) == ([], [])
    task = int(held[0][:6])
    assert [record.task for record in commit.read_records(out)] == list(range(task + 1))
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)


def held_amid_a_commit(process: subprocess.Popen[str], folder: Path) -> bool:
    """Stop a process if it has a shard's temporary file open; whether it stands still with that file there."""
    if not any(path.name.endswith(".h5") for path in folder.glob(".tmp~*")):
        return False
    os.kill(process.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] in "TZ")
    if any(path.name.endswith(".h5") for path in folder.glob(".tmp~*")):
        return True
    os.kill(process.pid, signal.SIGCONT)
    return False


def test_the_second_ctrl_c_ends_at_once(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    """The first waits for the batch that is being computed, which takes a minute here; the second does not."""
    out, mark = tmp_path / "out", tmp_path / "mark"
    slow = sick({rows(cropped)[-1]["clip_id"]: "slow"})
    process = start("extract", cropped, "--out", out, *SMALL, FLOWKIT_SICK_MARK=str(mark), **slow)
    wait_until(mark.exists)
    assert process.stderr is not None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = "".join(itertools.takewhile(lambda line: "press Ctrl-C again" not in line, process.stderr))
    assert process.poll() is None, said
    while process.poll() is None and time.monotonic() < began + 30:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.poll() == 130
    process.communicate()
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert leftovers(out) == []


# -- 23: processes that die


def session(leader: int) -> list[int]:
    """Processes that still run of those that a command started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def test_a_run_that_is_killed_leaves_no_process_behind(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    """Only the run itself, not its group; one worker hangs amid a clip, and would for ten minutes more."""
    out = tmp_path / "out"
    process = start("extract", cropped, "--out", out, *SMALL, **sick({rows(cropped)[7]["clip_id"]: "hangs"}))
    wait_until(lambda: list(out.glob("shards/*/000000.json")))
    assert len(session(process.pid)) > 2
    process.kill()
    process.wait()
    wait_until(lambda: session(process.pid) == [])
    process.communicate()
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert leftovers(out) == []


# -- 25: damaged files


@pytest.mark.parametrize(
    "what",
    [
        "record cut short",
        pytest.param("record overwritten", marks=pytest.mark.slow),
        "shard cut short",
        pytest.param("shard gone", marks=pytest.mark.slow),
    ],
)
def test_what_was_torn_is_moved_aside_and_done_again(
    undisturbed: Path, cropped: Path, tmp_path: Path, what: str
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (record,) = out.glob("shards/000/000001.json")
    (data,) = out.glob("shards/000/000001-*.h5")
    if what == "record cut short":
        record.write_bytes(record.read_bytes()[:-40])
    elif what == "record overwritten":
        record.write_bytes(bytes(record.stat().st_size))
    elif what == "shard cut short":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.unlink()
    assert flowkit("verify", out).code == 1
    done = extract(cropped, out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["computed"] == 5
    assert "a damaged commit record, or one whose shard is damaged, was moved here; its task runs again" in done.err
    kept = {path.name.rpartition(".")[0] for path in (out / "quarantine").iterdir()}
    assert kept == {record.name} | ({data.name} if what == "shard cut short" else set())
    shutil.rmtree(out / "quarantine")
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert flowkit("verify", out).code == 0


# -- 27: clocks


@pytest.mark.parametrize("year", [1971, pytest.param(2106, marks=pytest.mark.slow)])
def test_times_of_files_decide_nothing(undisturbed: Path, cropped: Path, tmp_path: Path, year: int) -> None:
    """Neither those of the sources nor of what a run left; half of it was done before, the other half after."""
    then = (year - 1970) * 365.25 * 86400
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    out = tmp_path / "out"
    assert extract(root / "manifest.csv", out, FLOWKIT_TEST_DIE_AT="000001-*.h5:after_fsync").code == 137
    assert len(leftovers(out)) == 1
    for path in itertools.chain(root.rglob("*"), out.rglob("*")):
        os.utime(path, (then, then))
    done = extract(root / "manifest.csv", out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["computed"] == 7
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert leftovers(out) == []
    again = extract(root / "manifest.csv", out, "--verify-sources", "--json")
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0)


# -- the page that names these tests


def test_every_row_of_the_fault_table_names_tests_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert [name for name in named_tests(page) if not exists(*name)] == []
    table = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in table] == list(range(1, 34))
    assert [line for line in table if not named_tests(line.split("|")[4])] == []


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, test) of each `file.py::test` in a text."""
    return re.findall(r"`([\w/]+\.py)::(\w+)`", text)


def exists(file: str, test: str) -> bool:
    paths = Path(__file__).parents[1].rglob(file)
    return any(f"\ndef {test}(" in path.read_text(encoding="utf-8") for path in paths)
