"""`flowkit demo`: a synthetic data set, its shards and its report in one folder, and the commands that come next.

Each step is the command that it shows, so what a user reads can be typed again. OpenCV and mediapipe are imported only after the
system libraries that they need were found.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowkit.errors import ConfigError, EnvironmentMissing
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.storage import durable_files
from flowkit.storage.safe_files import NotRegular, read_regular
from flowkit.system_libraries import install_line, missing_system_libraries

if TYPE_CHECKING:
    from flowkit.extraction.summary import Summary

CLIPS: Final = "clips"
SHARDS: Final = "out"
SUBJECTS: Final = 3
"""The fewest with which each network is trained on several people."""
SHOWN: Final = ("planned", "ok", "failed", "shards", "bytes", "subjects", "labels", "backend")
"""What is printed of `flowkit inspect`."""
README: Final = "README.txt"
"""Says of which kind the folder is; written first."""
_TITLE: Final = "Made by `flowkit demo`."
_TEXT: Final = f"""{_TITLE} Nobody was filmed: all clips are rendered from one public-domain photograph (NASA).

{CLIPS}/manifest.csv   the clips: where their frames are, and their onset, apex and offset
{CLIPS}/truth          their true flow
{SHARDS}/report.html      counts, flow pictures and settings; open it in a browser
{SHARDS}/shards           the flow of both phases and MM-COF, in HDF5

The same command resumes a demo that was stopped, and prints the commands that come next. The folder can be deleted at any time.
"""


@dataclass(frozen=True, slots=True)
class DemoStep:
    """What a user may do next, and the commands for a shell that do it."""

    about: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo holds.

    Attributes
    ----------
    manifest, shards, report : Path
    summary : Summary
        Of the extraction.
    found : mapping
        What `flowkit inspect` says of the shards.
    steps : tuple of DemoStep
        What comes next.
    """

    manifest: Path
    shards: Path
    report: Path
    summary: Summary
    found: Mapping[str, Any]
    steps: tuple[DemoStep, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "manifest": str(self.manifest),
            "shards": str(self.shards),
            "report": str(self.report),
            "summary": self.summary.to_dict(),
            "inspect": dict(self.found),
            "next": [{"about": step.about, "commands": list(step.commands)} for step in self.steps],
        }


def make_demo(
    out: str | Path, *, overwrite: bool = False, reporter: Reporter | None = None, stop: Stop | None = None
) -> Demo:
    """Render a small data set, extract it and look at its shards; a demo that was stopped is resumed.

    Parameters
    ----------
    out : str or Path
        New, empty, or an earlier demo.
    overwrite : bool
        Discard the data set and the shards of an earlier demo.
    reporter, stop
        As of `pipeline.extract`.

    Raises
    ------
    EnvironmentMissing
        A system library, mediapipe or its model is missing; nothing was written.
    ConfigError
        `out` holds something else.
    Interrupted, DiskFull
        What was committed stays.
    FlowkitError
        What else stopped the extraction.
    """
    out, reporter, stop = Path(out), reporter or Silent(), stop or Stop("demo")
    _check_machine()
    _take_folder(out, overwrite)
    clips, shards = out / CLIPS, out / SHARDS
    manifest = clips / "manifest.csv"
    if not manifest.exists():
        from flowkit.synthetic.dataset import SynthConfig, synthesise

        reporter.note("$ " + command("flowkit", "synth", "--out", clips, "--subjects", SUBJECTS))
        synthesise(clips, SynthConfig(subjects=SUBJECTS), reporter=reporter, stop=stop)

    from flowkit.extraction.pipeline import extract
    from flowkit.storage.inspection import inspect

    reporter.note("$ " + command("flowkit", "extract", manifest, "--out", shards))
    summary = extract(manifest, shards, reporter=reporter, stop=stop)
    if summary.stopped is not None:
        raise summary.stopped
    reporter.note("$ " + command("flowkit", "inspect", shards))
    return Demo(manifest, shards, shards / "report.html", summary, inspect(shards, reporter.note), next_steps(out))


def next_steps(out: Path) -> tuple[DemoStep, ...]:
    """Commands that work on a demo, each as it can be typed."""
    manifest, shards = out / CLIPS / "manifest.csv", out / SHARDS
    return (
        DemoStep("Check a manifest: this one, then your own", (command("flowkit", "check", manifest),)),
        DemoStep(
            "Export the flow: as pictures, and in the public layout of 28 x 28 pixels",
            (
                command("flowkit", "export", shards, "--format", "png", "--out", out / "png"),
                command("flowkit", "export", shards, "--format", "stst", "--out", out / "stst"),
            ),
        ),
        DemoStep(
            "Train a network per held-out subject",
            (
                command("pip", "install", "flowkit-mer[train]"),
                command("fmanet", "train", shards, "--out", out / "run"),
            ),
        ),
    )


def command(program: str, *words: object) -> str:
    """A command line of a program of this environment, which works in this folder whatever PATH says.

    Examples
    --------
    >>> command("flowkit", "check", "my clips.csv").endswith("flowkit check 'my clips.csv'")
    True
    """
    own, found = Path(sys.executable).with_name(program), shutil.which(program)
    if own.exists() and not (found and own.samefile(found)):
        below = own.is_relative_to(Path.cwd())
        program = os.path.relpath(own) if below else str(own)
    return shlex.join([program, *map(str, words)])


def _check_machine() -> None:
    """Find what the extraction needs before a minute is spent on its clips."""
    if missing := missing_system_libraries():
        names = ", ".join(library for library, _ in missing)
        raise EnvironmentMissing(
            f"demo: system libraries are missing: {names}. On Debian and Ubuntu, install them with: {install_line(missing)}"
        )
    from flowkit.face.landmarks import check_landmarker

    check_landmarker()


def _take_folder(out: Path, overwrite: bool) -> None:
    """Mark a folder as a demo, or find that it is one; a folder of anything else is refused and left alone."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: --out must be a folder; got a file. Choose another.")
    if _is_demo(out / README):
        for folder in (out / CLIPS, out / SHARDS):
            if overwrite and folder.exists():
                shutil.rmtree(folder)
        return
    if others := sorted(path.name for path in out.glob("*") if not path.name.startswith(".tmp~")):
        raise ConfigError(
            f"{out}: --out must be new, empty or an earlier demo; got a folder that holds {', '.join(others[:3])}. Choose another: "
            "flowkit demo --out DIR"
        )
    out.mkdir(parents=True, exist_ok=True)
    durable_files.replace_file(out / README, _TEXT.encode())


def _is_demo(readme: Path) -> bool:
    try:
        return read_regular(readme, 1 << 16).startswith(_TITLE.encode())
    except (FileNotFoundError, NotRegular):
        return False
