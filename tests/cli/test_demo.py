"""`flowkit demo`: one folder from nothing to a report; every command line that it prints works as printed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conftest import start
from flowkit.cli import main
from flowkit.demo import README, command, make_demo
from flowkit.errors import Terminated
from flowkit.execution.progress import Silent
from flowkit.execution.stop import Stop
from flowkit.synthetic import dataset

BIN = Path(sys.executable).parent
CLIPS = 9
"""Of the small data set."""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Three of the eight classes, with key frames alone: a third of the clips, a tenth of the frames."""
    with pytest.MonkeyPatch.context() as patch:
        few = partial(dataset.SynthConfig, classes=("happiness", "surprise", "anger"), key_frames_only=True)
        patch.setattr(dataset, "SynthConfig", few)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the commands are typed."""
    return tmp_path_factory.mktemp("a new user")


@pytest.fixture(scope="module")
def finished(place: Path) -> Result:
    """A demo made in three runs: the first two were stopped, one in each step."""
    with contextlib.chdir(place):
        for step in ("synth", "extract"):
            reporter = StopsIn(step)
            with pytest.raises(Terminated, match="Run the same command again"):
                make_demo("flowkit-demo", reporter=reporter, stop=reporter.stop)
        return CliRunner().invoke(main, ["demo"])


class StopsIn(Silent):
    """Has a run stopped in one of its steps, whose command lines it is told."""

    def __init__(self, step: str) -> None:
        self.stop = Stop("demo")
        self._step, self._here = step, False

    def note(self, text: str) -> None:
        if text.startswith("$ "):
            self._here = f" {self._step} " in text

    def start(self, total: int) -> None:
        if self._here:
            self.stop.request(Terminated)


def lines_behind(text: str, mark: str) -> list[str]:
    return [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]


def test_a_demo_that_was_stopped_twice_is_resumed_and_says_what_it_holds(finished: Result, place: Path) -> None:
    assert finished.exit_code == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    for words in ("flowkit-demo/out/report.html", "subjects", f"{CLIPS}"):
        assert words in finished.stdout
    assert (place / "flowkit-demo" / "out" / "report.html").is_file()
    assert "deleted at any time" in (place / "flowkit-demo" / README).read_text()


def test_the_steps_are_shown_as_the_commands_that_they_are(finished: Result, place: Path) -> None:
    shown = [shlex.split(line)[1:] for line in lines_behind(finished.stderr, "$ ")]
    clips, out = "flowkit-demo/clips", "flowkit-demo/out"
    assert shown == [["extract", f"{clips}/manifest.csv", "--out", out], ["inspect", out]]  # the clips were there
    with contextlib.chdir(place):
        for words in shown:
            again = CliRunner().invoke(main, [*words, "--json"])
            assert again.exit_code == 0
            assert json.loads(again.stdout).get("computed", 0) == 0


@pytest.mark.skipif(not (BIN / "fmanet").exists(), reason="flowkit is not installed here")
def test_each_next_command_works_as_printed(finished: Result, place: Path) -> None:
    commands = lines_behind(finished.stdout, "    ")
    assert [shlex.split(line)[1] for line in commands] == ["check", "export", "export", "install", "train"]
    for line in commands:
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}  # the extra is there
        done = subprocess.run(
            line, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(list((place / "flowkit-demo" / "stst").rglob("* .png"))) == 4 * CLIPS
    scores = json.loads((place / "flowkit-demo" / "run" / "scores.json").read_text())
    assert scores["classes"] == ["negative", "positive", "surprise"]


def test_a_demo_is_not_begun_anew_unless_it_is_asked_for(finished: Result, place: Path) -> None:
    with contextlib.chdir(place):
        (place / "flowkit-demo" / "mine.txt").write_text("precious")
        again = CliRunner().invoke(main, ["demo", "--json"])
        anew = CliRunner().invoke(main, ["demo", "--overwrite", "--json"])
    found = json.loads(again.stdout)
    assert (found["summary"]["computed"], found["inspect"]["ok"]) == (0, CLIPS)
    assert [line for step in found["next"] for line in step["commands"]] == lines_behind(finished.stdout, "    ")
    assert json.loads(anew.stdout)["summary"]["computed"] == CLIPS
    first, *_ = lines_behind(anew.stderr, "$ ")
    assert shlex.split(first)[1:] == ["synth", "--out", "flowkit-demo/clips", "--subjects", "3"]
    assert (place / "flowkit-demo" / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["thesis.tex", README])
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_folder_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, name: str, flags: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text("precious")
    done = CliRunner().invoke(main, ["demo", "--out", str(tmp_path), *flags])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"must be new, empty or an earlier demo; got a folder that holds {name}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_a_missing_library_is_told_with_the_line_that_installs_it_before_anything_is_made(tmp_path: Path) -> None:
    """In an interpreter in which OpenCV cannot be imported, as it cannot without its libraries."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; sys.modules['cv2'] = None\n"
        "from flowkit import system_libraries as system\n"
        "system.LIBRARIES = {'libnowhere.so.1': 'libnowhere1'}\n"
        "from flowkit.cli import main\n"
        "main(['demo', '--out', 'new'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "missing: libnowhere.so.1" in done.stderr
    assert "sudo apt-get install -y libnowhere1" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "signal_number", "code"), [("demo", signal.SIGTERM, 75), ("synth", signal.SIGINT, 130)]
)
def test_a_signal_ends_the_rendering_in_words(tmp_path: Path, name: str, signal_number: int, code: int) -> None:
    out = tmp_path / "new"
    process = start(name, "--out", out)
    deadline = time.monotonic() + 60
    while not list(out.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal_number)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (code, "")
    assert "the data set was stopped before its end and has no manifest.csv. Run the same command again" in err
    assert "Traceback" not in err


def test_a_command_is_printed_so_that_this_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of this environment, not one of that name which PATH leads to."""
    own, other = tmp_path / "here" / ".venv" / "bin", tmp_path / "bin"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "flowkit").write_text("#!/bin/sh\n")
        (folder / "flowkit").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(other))
    assert command("flowkit", "check", "my clips.csv") == ".venv/bin/flowkit check 'my clips.csv'"
    monkeypatch.setenv("PATH", str(own))
    assert command("flowkit", "check", 1) == "flowkit check 1"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert command("flowkit") == "here/.venv/bin/flowkit"
    monkeypatch.chdir(other)
    assert command("flowkit") == str(own / "flowkit")
    assert command("pip") == "pip"
