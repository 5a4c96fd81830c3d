"""Other systems, as far as Linux can show them: our code runs without what macOS or Windows lacks (elsewhere/sitecustomize.py).

What this cannot show: paths with backslashes, file systems without links, how Windows opens a file that another process holds,
whether the libraries' own wheels work there.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from conftest import SMALL, flowkit, shard_bytes
from flowkit import system_libraries
from flowkit.config import FrameConfig
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import read_frames
from flowkit.inputs.manifest import read_manifest
from flowkit.interop.export import export
from flowkit.interop.stst_import import import_stst
from flowkit.storage import durable_files, hashed_json, safe_files
from flowkit.storage.commit import RUN_FILE
from flowkit.synthetic.dataset import SynthConfig, synthesise
from flowkit_kernels import host
from shard_builder import build_folder

ELSEWHERE = Path(__file__).parent / "elsewhere"
READERS = """
import sys
import flowkit_kernels.checks, flowkit.labels.groupings, flowkit.cli.common, fmanet.cli, fmanet.training_run
from flowkit.storage.index import Index
from flowkit import ShardFolder
from fmanet.dataset import ShardDataset

out = sys.argv[1]
shards = list(ShardFolder.open(out).shards())
clips = [sample["clip_id"] for shard in shards for sample in shard.samples()]
index = Index.load(out)
assert clips == list(index.clip_ids(index.of_person("synth", "s01") | ~index.of_person("synth", "s01"))), clips
assert len(ShardDataset([out], "raw")) == len(clips)
print(len(clips), flowkit.cli.common.sys.platform, flowkit_kernels.checks.thread_count("here", None))
"""


def on(name: str) -> dict[str, str]:
    """Environment of a process, and of all that it starts, on another system."""
    return {"PYTHONPATH": os.pathsep.join([str(ELSEWHERE), *filter(None, sys.path)]), "FLOWKIT_ELSEWHERE": name}


def python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# -- the whole way


@pytest.mark.slow
def test_a_run_on_macos_is_killed_goes_on_and_gives_the_bytes_of_any_other(
    cropped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, mac = tmp_path / "out", on("darwin")
    killed = flowkit(
        "extract", cropped, "--out", out, *SMALL, FLOWKIT_TEST_DIE_AT="shards/*/000001.json:after_link", **mac
    )
    assert killed.code == 137, killed.err
    done = flowkit("extract", cropped, "--out", out, *SMALL, **mac)
    assert done.code == 0, done.err
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert [path.name for path in out.rglob(".tmp~*")] == []  # there is no /proc that says who still writes
    run = hashed_json.decode((out / RUN_FILE).read_bytes())
    assert run is not None
    assert (
        run["machine"]["processor"] == platform.machine()
    )  # what a Mac without sysctl would say: the pretence was at work
    for command in ("verify", "inspect"):
        assert flowkit(command, out, **mac).code == 0


@pytest.mark.slow
def test_shards_are_read_and_trained_on_on_windows(undisturbed: Path, tmp_path: Path) -> None:
    """Every module that reads or trains is imported; one fold is trained in a supervised worker process."""
    windows = on("win32")
    done = python("-c", READERS, undisturbed, **windows)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12", "win32", str(os.cpu_count())]
    flags = ("--protocol", "holdout", "--hold-out", "synth/s01", "--classes", "raw", "--epochs", "1", "--workers", "1")
    flags += ("--size", "32", "--set", "network.width=4", "--set", "network.grid=4", "--json")
    done = python("-m", "fmanet.cli", "train", undisturbed, "--out", tmp_path / "run", *flags, **windows)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 1
    assert (tmp_path / "run" / "predictions.csv").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "{manifest}", "--out", "{out}"),
        ("spot", "{manifest}", "--out", "{out}"),
        ("spot-intervals", "{folder}", "--out", "{out}.csv"),
    ],
    ids=["extract", "spot", "spot-intervals"],
)
def test_what_windows_does_not_do_says_so_in_one_line(
    cropped: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    done = flowkit(
        *(text.format(manifest=cropped, folder=cropped.parent, out=out) for text in arguments), **on("win32")
    )
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        f"Error: {arguments[0]}: this command needs Linux or macOS; this is Windows. Run it there or in WSL. Shards can be read, "
        "and networks trained, here."
    ]
    assert not list(tmp_path.iterdir())


def test_doctor_knows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for the libraries of Linux on Linux only, and says what Windows does not do."""
    monkeypatch.setitem(system_libraries.LIBRARIES, "libnowhere.so.7", "libnowhere7")
    assert system_libraries.missing_system_libraries() == [("libnowhere.so.7", "libnowhere7")]
    for name, code in (("darwin", 0), ("win32", 3)):
        monkeypatch.setattr(sys, "platform", name)
        assert system_libraries.missing_system_libraries() == []
        monkeypatch.undo()
        done = flowkit("doctor", "--json", **on(name))
        assert done.code == code, done.out
        (row,) = (row for row in json.loads(done.out) if row["name"] == "system libraries")
        assert (row["status"] == "missing") == ("Windows" in row["detail"]) == (name == "win32")


# -- one at a time


def test_cores_are_those_that_the_process_may_use() -> None:
    one = min(os.sched_getaffinity(0))
    code = "from flowkit_kernels.host import cores; print(cores())"
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    bound = subprocess.run(
        ["taskset", "-c", str(one), sys.executable, "-c", code],
        env={**os.environ, **path},
        capture_output=True,
        check=True,
    )
    assert int(bound.stdout) == 1
    assert host.cores() == len(os.sched_getaffinity(0))


def test_macos_is_asked_to_empty_the_drives_cache_and_other_drives_are_only_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def full_sync(handle: int, command: int) -> int:
        asked.append("full")
        if os.fstat(handle).st_size == 0:  # stands for a network drive
            raise OSError(errno.ENOTSUP, "not supported")
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(os, "fsync", lambda handle: asked.append("plain"))
    durable_files.replace_file(tmp_path / "file", b"content")
    assert asked == ["full"]
    durable_files.replace_file(tmp_path / "empty", b"")
    assert asked == ["full", "full", "plain"]


def test_without_proc_a_process_that_runs_keeps_its_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (os.getpid(), ended.pid):
        (tmp_path / f".tmp~{durable_files._owner()}~{pid}~0~1.h5").touch()
    monkeypatch.setattr(sys, "platform", "darwin")
    durable_files.remove_stale_temporaries(tmp_path)
    (left,) = tmp_path.iterdir()
    assert f"~{os.getpid()}~" in left.name
    monkeypatch.setattr(sys, "platform", "win32")  # there, nobody can be asked, and asking would end the process
    (tmp_path / f".tmp~{durable_files._owner()}~{ended.pid}~0~1.h5").touch()
    durable_files.remove_stale_temporaries(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_files_are_opened_as_bytes_where_the_system_tells_text_from_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Linux the flag is 0; here a flag of its own stands in for it, and every call that writes or reads must pass it."""
    flags: list[int] = []
    real = os.open

    def noted(path: str, given: int, *rest: int) -> int:
        if Path(path).is_relative_to(tmp_path) and not Path(path).is_dir():
            flags.append(given)
        return real(path, given & ~os.O_NOATIME, *rest)

    monkeypatch.setattr(durable_files, "BINARY", os.O_NOATIME)
    monkeypatch.setattr(os, "open", noted)
    durable_files.publish_file(tmp_path / "file", b"a\r\nb\x1a")
    assert flags
    assert all(given & os.O_NOATIME for given in flags)
    assert safe_files.read_regular(tmp_path / "file") == b"a\r\nb\x1a"


def copied(cropped: Path, folder: Path) -> Clip:
    """The first clip, with its frames in another folder."""
    clip = read_manifest(cropped)[0]
    shutil.copytree(cropped.parent / clip.path, folder)
    return clip


def test_what_finder_leaves_in_folders_is_no_frame_and_no_content(
    cropped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    clip = copied(cropped, tmp_path / "set")
    before = read_frames(dataclasses.replace(clip, path="set"), tmp_path, FrameConfig())
    pictures = [path.name for path in (tmp_path / "set").iterdir()]
    for name in [".DS_Store", *(f"._{name}" for name in pictures)]:
        (tmp_path / "set" / name).write_bytes(b"\0\5\x16\7")
    after = read_frames(dataclasses.replace(clip, path="set"), tmp_path, FrameConfig())
    assert after.source.source_hash == before.source.source_hash
    for name in ("exported", "made"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".DS_Store").touch()
    assert export(undisturbed, tmp_path / "exported", "npz").written == 12
    assert synthesise(
        tmp_path / "made", SynthConfig(motion="bumps", subjects=1, classes=("smile",), key_frames_only=True)
    ).is_file()


def test_what_finder_leaves_is_not_imported(undisturbed: Path, tmp_path: Path) -> None:
    shards = build_folder(tmp_path / "shards", clips=2, labels=("happiness",), datasets=("casme2",))
    public = tmp_path / "public"
    export(shards, public, "stst")
    for path in [path for path in public.rglob("*.[cp]*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    assert import_stst(public, tmp_path / "out").ok == 2


@pytest.mark.parametrize(("on_disk", "in_manifest"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_folder_is_found_however_its_accents_are_spelt(
    cropped: Path, tmp_path: Path, on_disk: Literal["NFC", "NFD"], in_manifest: Literal["NFC", "NFD"]
) -> None:
    name = "Übung/Señor é"
    clip = copied(cropped, tmp_path / unicodedata.normalize(on_disk, name))
    spelt = dataclasses.replace(clip, path=unicodedata.normalize(in_manifest, name))
    assert read_frames(spelt, tmp_path, FrameConfig()).source.source_hash
