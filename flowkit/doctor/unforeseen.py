"""What becomes of an error that nobody foresaw: which package is broken, or a file to attach to a report.

The file holds the traceback, versions and the command line, and nothing else of the user: no environment, no host, no name of
the home folder.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

from flowkit._version import __version__

OWN = ("flowkit", "flowkit_kernels", "fmanet", "__main__")
MAX_TEXT = 1000
"""Characters of an error's text that are shown; the file has all."""


def broken_package(error: BaseException) -> str:
    """Name of the package whose import raised this error, empty if none did."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package not in OWN:
            return package
    name = ((error.name if isinstance(error, ImportError) else "") or "").partition(".")[0]
    return "" if name in OWN else name


def report(error: BaseException, program: str) -> str:
    """Write the file, and say what happened and what to attach to a report; the traceback too, where there is no file."""
    said = str(error)[:MAX_TEXT]
    what = f"{program}: {type(error).__name__}: {said}" if said else f"{program}: {type(error).__name__}"
    request = "This is a fault of flowkit that nobody foresaw: please report it."
    doctor = "what `flowkit doctor --json` prints"
    try:
        path = _write(_contents(error))
    except Exception as problem:  # noqa: BLE001 - a report that fails must not hide what it is about
        lines = "".join(traceback.format_exception(error))
        return f"{what}\n{request} Attach {doctor}, and what follows, which no file could take ({problem}):\n{lines}"
    return f"{what}\n{request} Attach {path} (traceback, versions, command line) and {doctor}."


def _contents(error: BaseException) -> str:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    versions = {"flowkit": __version__, "Python": platform.python_version(), "system": platform.platform()}
    parts = [
        f"Command: {command}",
        *(f"{name}: {version}" for name, version in {**versions, **_packages()}.items()),
        "".join(traceback.format_exception(error)),
    ]
    return _without_home("\n".join(parts))


def _packages() -> Mapping[str, str]:
    """Version of each distribution of which something is loaded."""
    distributions = importlib.metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {name for package in loaded for name in distributions.get(package, ())}
    return {name: importlib.metadata.version(name) for name in sorted(names, key=str.casefold)}


def _without_home(text: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return text.replace(home, "~") if len(home) > 1 else text


def _write(text: str) -> str:
    number, path = tempfile.mkstemp(prefix="flowkit-error-", suffix=".txt")
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path
