"""The system check: what is missing is named with the line that installs it, before anything else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit import system_libraries

ROOT = Path(__file__).parents[2]


def test_what_cannot_be_loaded_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(system_libraries.LIBRARIES, "libnowhere.so.7", "libnowhere7")
    missing = system_libraries.missing_system_libraries()
    assert missing == [("libnowhere.so.7", "libnowhere7")]
    assert system_libraries.install_line(missing) == "sudo apt-get install -y libnowhere7"


def test_the_check_runs_before_anything_is_installed() -> None:
    """On the standard library alone: this is what `make` calls on a fresh machine."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "flowkit" / "system_libraries.py"], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def pythons(folder: Path, **scripts: str) -> Path:
    """A folder of commands, all that PATH leads to: of each, what its shell script does."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def make(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make system` where only these commands are found."""
    make_itself = shutil.which("make")
    assert make_itself is not None
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": str(path)}
    command = [make_itself, "-C", str(ROOT), "system", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


WORKS = f'echo "$0" >>"$USED"; exec {sys.executable} "$@"'
BROKEN = "echo 'pyenv: python: command not found' >&2; exit 127"
OLD = f"case $1 in -c) exec {sys.executable} -c 'import sys; sys.version_info = (3, 10)\n'\"$2\" ;; *) echo Python 3.10.1 ;; esac"
WITHOUT_VENV = f"exec {sys.executable} -c \"import sys; sys.modules['ensurepip'] = None\n$2\""


@pytest.mark.parametrize(
    ("scripts", "used"),
    [
        ({"python3": WORKS, "python3.12": WORKS}, "python3"),
        ({"python3": OLD, "python3.11": WORKS}, "python3.11"),
        ({"python3": BROKEN, "python3.14": BROKEN, "python3.13": WORKS, "python3.12": WORKS}, "python3.13"),
        ({"python3": WITHOUT_VENV, "python3.14": WORKS}, "python3.14"),
    ],
    ids=["the usual one", "too old", "a shim that starts nothing", "no venv"],
)
def test_make_takes_the_first_python_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str], used: str
) -> None:
    monkeypatch.setenv("USED", str(tmp_path / "used"))
    done = make(pythons(tmp_path / "bin", **scripts))
    assert done.returncode == 0, done.stderr
    assert {Path(line).name for line in (tmp_path / "used").read_text().splitlines()} == {used}


@pytest.mark.parametrize(
    ("scripts", "arguments", "says"),
    [
        ({}, (), "none of them runs, is 3.11 or newer, and has venv"),
        ({"python3": BROKEN, "python3.11": OLD}, (), "none of them runs, is 3.11 or newer, and has venv"),
        ({"mine": BROKEN}, ("PYTHON=mine",), "mine: this command does not run"),
        ({"mine": OLD}, ("PYTHON=mine",), "mine: Python 3.10.1 is too old"),
        ({"mine": WITHOUT_VENV}, ("PYTHON=mine",), "mine: venv is missing"),
    ],
)
def test_make_says_what_is_wrong_with_each_python(
    tmp_path: Path, scripts: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    done = make(pythons(tmp_path / "bin", **scripts), *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Install" in done.stderr or "Name one" in done.stderr
