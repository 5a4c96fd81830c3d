"""The system check: what is missing is named with the line that installs it, before anything else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit import system

ROOT = Path(__file__).parents[1]


def test_what_cannot_be_loaded_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(system.LIBRARIES, "libnowhere.so.7", "libnowhere7")
    missing = system.missing_system_libraries()
    assert missing == [("libnowhere.so.7", "libnowhere7")]
    assert system.install_line(missing) == "sudo apt-get install -y libnowhere7"


def test_the_check_runs_before_anything_is_installed() -> None:
    """On the standard library alone: this is what `make` calls on a fresh machine."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "flowkit" / "system.py"], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_make_names_a_python_that_is_not_there() -> None:
    done = subprocess.run(
        ["make", "-C", ROOT, "demo", "PYTHON=python3.99"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode != 0
    assert "python3.99 must be installed" in done.stderr
