"""The first run on a machine, which compiles the kernels, and machines on which they cannot be compiled or stored as usual."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import flowkit_kernels
from conftest import SMALL, Done, flowkit, shard_bytes, start
from flowkit.cli import main, printing
from flowkit.config import load_config
from flowkit.doctor import examination
from flowkit.extraction.options import RunOptions
from flowkit.extraction.spot_manifest import complete
from flowkit.extraction.stage_times import Spent, TaskTimes
from flowkit.extraction.summary import Summary
from flowkit.synthetic.dataset import SynthConfig, synthesise
from flowkit_kernels.cpu import code_cache
from flowkit_kernels.probing import obstacles

NOTE = "Compiling kernels, once per machine"
ENTRIES = ("tvl1.solve", "mmcof.combine")


@dataclass(frozen=True)
class FirstRuns:
    """Three commands that were started together where nothing was compiled, and could be stored nowhere but in `temporary`."""

    environment: dict[str, str]
    temporary: Path
    out: Path
    completed: Path
    shares: tuple[Done, Done]
    spot: Done

    @property
    def all(self) -> tuple[Done, ...]:
        """What each command did."""
        return (*self.shares, self.spot)


@pytest.fixture(scope="module")
def without_apex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of two cropped clips with all their frames, without their apex."""
    config = SynthConfig(
        motion="bumps",
        subjects=1,
        classes=("smile", "surprise"),
        cropped=True,
        width=96,
        height=96,
        noise=0.5,
        phase_frames=(8, 12),
    )
    manifest = synthesise(tmp_path_factory.mktemp("without") / "clips", config)
    with manifest.open(newline="") as file:
        rows = [{**row, "apex": ""} for row in csv.DictReader(file)]
    path = manifest.with_name("without_apex.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def first_runs(cropped: Path, without_apex: Path, tmp_path_factory: pytest.TempPathFactory) -> FirstRuns:
    """A regular file stands wherever a folder for the code would have to be made, which stops root too."""
    folder = tmp_path_factory.mktemp("first")
    kernels = folder / "site-packages" / "flowkit_kernels"
    shutil.copytree(code_cache.HERE, kernels, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (kernels / "__pycache__", folder / "file"):
        path.touch()
    (folder / "tmp").mkdir()
    environment = {
        "PYTHONPATH": os.pathsep.join([str(kernels.parent), *filter(None, sys.path)]),
        "NUMBA_CACHE_DIR": str(folder / "file" / "cache"),
        "NUMBA_DEBUG_CACHE": "1",  # Numba prints whatever any process loads and stores
        "XDG_CACHE_HOME": str(folder / "file" / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    out, completed = folder / "out", folder / "completed.csv"
    commands = [("extract", cropped, "--out", out, *SMALL, "--part", f"{share}/2", "--json") for share in (0, 1)]
    commands += [("spot", without_apex, "--out", completed, "--align", "none", "--workers", "2")]
    running = [start(*command, **environment) for command in commands]
    ended = [(process.communicate(timeout=400), process.returncode) for process in running]
    first, second, spot = (Done(code, *streams) for streams, code in ended)
    return FirstRuns(environment, folder / "tmp", out, completed, (first, second), spot)


def summary(done: Done) -> dict[str, object]:
    """The JSON document on stdout, between the lines that Numba prints."""
    lines = [line for line in done.out.splitlines() if not line.startswith("[cache]")]
    found: dict[str, object] = json.loads("\n".join(lines))
    return found


def test_of_processes_that_start_together_one_compiles(first_runs: FirstRuns) -> None:
    """Two shares and a command whose two workers all need the kernels; each line is from one process."""
    assert [done.code for done in first_runs.all] == [0, 0, 0], [done.err for done in first_runs.all]
    printed = "".join(done.out for done in first_runs.all)
    for entry in ENTRIES:
        assert len(re.findall(rf"data saved to .*{entry}\.", printed)) == 1
    # Both workers of spot have it: one of them may be the process that compiled.
    assert len(re.findall(rf"data (saved to|loaded from) .*{ENTRIES[0]}\.", first_runs.spot.out)) >= 2


def test_compiling_is_told_once_and_counts_in_no_rate(first_runs: FirstRuns) -> None:
    assert [done.err.count(NOTE) for done in first_runs.all] == [1, 1, 1]
    for done in first_runs.shares:
        found = summary(done)
        assert found["compile_seconds"] > found["seconds"] > 0
        assert found["compile_seconds"] > sum(found["stage_seconds"].values())  # type: ignore[attr-defined]
        assert found["clips_per_s"] == pytest.approx(found["computed"] / found["seconds"], rel=0.01)


def test_the_code_is_stored_in_a_private_folder_that_is_told_and_found_again(first_runs: FirstRuns) -> None:
    (folder,) = first_runs.temporary.glob("flowkit-kernels-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for done in first_runs.all:
        assert done.err.count(f"The compiled kernels are stored in {folder}/") == 1
        assert "Set NUMBA_CACHE_DIR to choose a folder." in done.err
    again = flowkit("doctor", "--warm-up", "--json", **first_runs.environment | {"NUMBA_DEBUG_CACHE": "0"})
    assert "The kernels were compiled already." in again.err
    assert NOTE not in again.err
    (found,) = [row for row in json.loads(again.out) if row["name"] == "compiled kernels"]
    assert found["status"] == "warning"
    assert f"stored in {folder}/" in found["detail"]
    assert "NUMBA_CACHE_DIR" in found["next_step"]


def test_the_bytes_are_those_of_any_other_run(
    first_runs: FirstRuns, undisturbed: Path, without_apex: Path, tmp_path: Path
) -> None:
    assert shard_bytes(first_runs.out) == shard_bytes(undisturbed)
    config = load_config(align__method="none")
    complete(without_apex, tmp_path / "completed.csv", config.frames, config.align, RunOptions(workers=1))
    assert first_runs.completed.read_bytes() == (tmp_path / "completed.csv").read_bytes()


COMMANDS = {
    "extract": ("extract", "{manifest}", "--out", "{out}", *SMALL),
    "extract that spots": ("extract", "{manifest}", "--out", "{out}", *SMALL, "--missing-apex", "spot"),
    "spot": ("spot", "{manifest}", "--out", "{out}", "--align", "none"),
    "bench": ("bench", "--op", "mmcof"),
    "bench end to end": ("bench", "--end-to-end"),
}


def run(command: tuple[str, ...], manifest: Path, out: Path) -> Result:
    return CliRunner().invoke(main, [word.format(manifest=manifest, out=out) for word in command])


@pytest.fixture
def no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Code can be neither found nor stored anywhere."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(code_cache, "candidates", lambda: iter([tmp_path / "file" / "folder"]))
    yield
    code_cache._why_not.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NUMBA_DISABLE_JIT is set."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    obstacles.forget()
    yield
    obstacles.forget()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("fixture", "step"),
    [("no_folder", "Set NUMBA_CACHE_DIR to a folder that can be written"), ("no_compiler", "Unset NUMBA_DISABLE_JIT")],
)
def test_where_kernels_cannot_be_compiled_every_command_ends_with_3_and_the_next_step(
    request: pytest.FixtureRequest,
    command: tuple[str, ...],
    fixture: str,
    step: str,
    without_apex: Path,
    tmp_path: Path,
) -> None:
    request.getfixturevalue(fixture)
    done = run(command, without_apex, tmp_path / "out")
    assert done.exit_code == 3, done.output
    assert step in done.output
    assert NOTE not in done.output
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.usefixtures("no_compiler")
def test_spotting_needs_the_compiler_whatever_computes_the_flow(without_apex: Path, tmp_path: Path) -> None:
    command = (*COMMANDS["extract that spots"], "--backend", "reference")
    done = run(command, without_apex, tmp_path / "out")
    assert done.exit_code == 3, done.output
    assert "Unset NUMBA_DISABLE_JIT." in done.output


@pytest.mark.parametrize(
    ("fixture", "name", "step"),
    [("no_folder", "compiled kernels", "NUMBA_CACHE_DIR"), ("no_compiler", "backends", "NUMBA_DISABLE_JIT")],
)
def test_the_doctor_finds_what_keeps_kernels_from_being_compiled(
    request: pytest.FixtureRequest, fixture: str, name: str, step: str
) -> None:
    request.getfixturevalue(fixture)
    notes: list[str] = []
    examination.compile_kernels(notes.append)
    assert notes == []
    (found,) = [one for one in (examination._backends(), *examination._compiled_kernels()) if one.status == "missing"]
    assert found.name == name
    assert step in found.next_step


def test_the_doctor_says_where_compiled_kernels_lie_or_how_to_compile_them(monkeypatch: pytest.MonkeyPatch) -> None:
    flowkit_kernels.warm_up("cpu")
    (there,) = examination._compiled_kernels()
    assert there.status == "ok"
    assert Path(there.detail.removeprefix("in ")).is_dir()
    monkeypatch.setattr(code_cache, "_stamp", lambda: "after an update")
    (absent,) = examination._compiled_kernels()
    assert (absent.status, absent.next_step) == ("ok", "flowkit doctor --warm-up")


def test_a_slow_rate_is_never_printed_as_zero(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As of one clip on a machine that is busy with something else."""
    times = TaskTimes()
    for stage in ("read", "align", "flow", "store"):
        times.stages.add(stage, Spent(400.0, 400.0, 1))
    done = Summary(tmp_path, planned=1, ok=1, computed=1, seconds=900.0, compile_seconds=31.0, times=times)
    printing.show_summary(done.to_dict())
    printed = capsys.readouterr().out
    assert "(0.0011 clips/s)" in printed
    assert "kernels were compiled, once per machine: 31.0 s" in printed
    assert "Bound by workers: 0.00083 clips/s with 1 worker; store 0.0025." in printed
    assert " 0.0 " not in printed
