"""What holds for every command of both programs: help, examples, --quiet and --verbose, unforeseen errors, completion."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import flowkit.cli
import fmanet.cli
from conftest import SMALL
from flowkit.errors import ConfigError
from flowkit.execution.progress import LoggingReporter, StderrProgress, WarningsOnly
from flowkit.labels.groupings import grouping

PROGRAMS: dict[str, click.Group] = {"flowkit": flowkit.cli.main, "fmanet": fmanet.cli.main}


def commands(group: click.Group, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for word, command in group.commands.items():
        yield (*name, word)
        if isinstance(command, click.Group):
            yield from commands(command, (*name, word))


EVERY = [name for program, group in PROGRAMS.items() for name in commands(group, (program,))]


def find(name: tuple[str, ...]) -> click.Command:
    command: click.Command = PROGRAMS[name[0]]
    for word in name[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(PROGRAMS[str(arguments[0])], [str(argument) for argument in arguments[1:]])


def parse(line: str) -> click.Context:
    """Parse a command as the program would, and do nothing."""
    first, *words = shlex.split(line)
    command: click.Command = PROGRAMS[first]
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    return command.make_context(command.name, words)


# --------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", [("flowkit",), ("fmanet",), *EVERY], ids=" ".join)
def test_each_help_ends_with_an_example_that_parses(name: tuple[str, ...]) -> None:
    text = run(*name, "--help").output
    _, found, examples = text.partition("\nExample:\n")
    assert found, "no example"
    lines = [line.strip() for line in examples.strip().splitlines()]
    assert any(line.startswith(" ".join(name)) for line in lines)
    for line in lines:
        classes = parse(line).params.get("classes")
        assert classes is None or grouping(classes)


def test_an_example_with_an_option_that_is_none_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse("flowkit extract clips.csv --out out --nonsense")
    with pytest.raises(click.MissingParameter):
        parse("fmanet train out")


@pytest.mark.parametrize("name", [("flowkit", "extract"), ("fmanet", "train"), ("fmanet", "ablate")], ids=" ".join)
@pytest.mark.parametrize("columns", [40, 80])
def test_options_are_shown_in_groups(name: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = run(*name, "--help").output
    places = [
        text.index(f"\n{title}:\n")
        for title in ("What is computed", "What is read and written", "How it runs", "All settings", "Other options")
    ]
    assert places == sorted(places)
    body = text[: text.index("\nExample:")].splitlines()
    assert max(len(line) for line in body if not line.startswith("  -")) <= columns
    for option in ("--set", "--workers", "--out", "--quiet", "--help"):
        assert len(re.findall(rf"^  (?:-., )?{option}\b", text, re.MULTILINE)) == 1


# ------------------------------------------------------------------------------------------------ --quiet and --verbose


@pytest.mark.parametrize("name", [name for name in EVERY if not isinstance(find(name), click.Group)], ids=" ".join)
def test_each_command_takes_quiet_and_verbose_but_not_both(name: tuple[str, ...]) -> None:
    command = find(name)
    for flags in (["-q"], ["--quiet"], ["-v"], ["--verbose"]):
        assert (
            command.make_context(name[-1], flags, resilient_parsing=True).params.keys().isdisjoint({"quiet", "verbose"})
        )
    done = run(*name, "-q", "--verbose")
    assert done.exit_code == 2
    assert "--quiet and --verbose exclude each other" in done.stderr


@pytest.fixture(scope="module")
def spoilt(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest `cropped`, with the first clip's frames missing and the clips of three subjects left out."""
    lines = cropped.read_text().splitlines()
    first = lines[1].split(",")
    first[1] = "nowhere"
    path = tmp_path_factory.mktemp("spoilt") / "manifest.csv"
    path.write_text("\n".join([lines[0], ",".join(first), *lines[2:4]]) + "\n")
    return path


def test_quiet_and_verbose_say_less_and_more_of_the_same_run(cropped: Path, spoilt: Path, tmp_path: Path) -> None:
    said = {}
    for flag in ("--quiet", "--verbose"):
        flags = (*SMALL, "--root", cropped.parent, "--max-error-rate", "1", flag)
        done = run("flowkit", "extract", spoilt, "--out", tmp_path / flag, *flags)
        assert done.exit_code == 1
        assert "3 clips: 2 ok, 1 failed" in done.stdout
        said[flag] = done.stderr
    assert said["--quiet"] == ""
    for part in (
        "flowkit 0.",
        "Manifest /",
        "Versions: flowkit",
        "settings ",
        ": FRAME_MISSING: nowhere: path must exist",
        "2 clips stored",
        " flow ",
    ):
        assert part in said["--verbose"], said["--verbose"]


def test_warnings_are_shown_though_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for reporter in (WarningsOnly(), StderrProgress(), StderrProgress(verbose=True)):
        with reporter:
            reporter.note("Warning: two runs")
            reporter.note("Resuming")
            reporter.detail("Task 0")
            reporter.start(2)
            reporter.advance(2, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Warning: two runs"] * 2 + ["Resuming", "Warning: two runs", "Resuming", "Task 0"]


def test_a_program_hears_of_a_run_by_logging(cropped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import flowkit

    assert flowkit.LoggingReporter is LoggingReporter
    before = list(logging.getLogger("flowkit").handlers)
    caplog.set_level(logging.DEBUG, "flowkit")
    config = flowkit.load_config(
        None, ["align.method=none", "align.size=96", "backend=reference", "tvl1.scales=1", "tvl1.warps=1"]
    )
    options = flowkit.RunOptions(workers=1)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(cropped.read_text().splitlines()[:2]) + "\n")
    options = flowkit.RunOptions(workers=1, root=cropped.parent)
    flowkit.extract(few, tmp_path / "out", config, options, reporter=LoggingReporter())
    told = {(record.levelname, record.getMessage()) for record in caplog.records if record.name == "flowkit"}
    assert ("INFO", "1 clips to do") in told
    assert ("INFO", "1 of 1 clips done, 0 failed") in told
    assert any(level == "DEBUG" and text.startswith("Task 0 is committed") for level, text in told)
    LoggingReporter().note("Warning: two runs")
    assert ("WARNING", "two runs") in {(record.levelname, record.getMessage()) for record in caplog.records}
    assert logging.getLogger("flowkit").handlers == before


# ---------------------------------------------------------------------------------------------------- unforeseen errors


@pytest.fixture(params=PROGRAMS)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command of a program whose every command raises what it is given."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    group = PROGRAMS[request.param]

    def run_broken(error: BaseException, *flags: str, name: tuple[str, ...] = ("settings",)) -> Result:
        def callback(**_: Any) -> None:
            raise error

        command = find((request.param, *name))
        monkeypatch.setattr(command, "callback", callback)
        words = [request.param, *name, *flags]
        monkeypatch.setattr(sys, "argv", words)
        return CliRunner().invoke(group, words[1:])

    return run_broken


@pytest.mark.parametrize("name", [name for name in EVERY if not isinstance(find(name), click.Group)], ids=" ".join)
def test_an_unforeseen_error_in_any_command_asks_for_a_report(
    name: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = find(name)

    def callback(**_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(command, "callback", callback)
    (line,) = [line for line in run(*name, "--help").output.splitlines() if line.strip().startswith(" ".join(name))][
        -1:
    ]
    done = run(*shlex.split(line.strip()))
    (attached,) = tmp_path.glob("flowkit-error-*.txt")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "ZeroDivisionError: by nothing" in done.stderr
    assert "please report it" in done.stderr
    assert str(attached) in done.stderr
    assert "flowkit doctor --json" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_file_to_attach_has_traceback_versions_and_command_and_no_home(
    broken: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(Path(__file__).parent))
    done = broken(KeyError("clip"), "--out", f"{Path(__file__).parent}/x.toml")
    (attached,) = tmp_path.glob("flowkit-error-*.txt")
    text = attached.read_text()
    assert "Traceback (most recent call last)" in text
    assert "KeyError: 'clip'" in text
    assert "settings --out ~/x.toml" in text
    assert re.search(r"^click: \d", text, re.MULTILINE)
    assert str(Path(__file__).parent) not in text
    assert attached.stat().st_mode & 0o077 == 0
    assert done.exit_code == 1


def test_verbose_shows_the_traceback_too(broken: Callable[..., Result]) -> None:
    assert "Traceback (most recent call last)" in broken(ValueError("x"), "--verbose").stderr


def test_without_a_place_for_the_file_the_traceback_is_printed(
    broken: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    done = broken(ValueError("x"))
    assert done.exit_code == 1
    assert "which no file could take" in done.stderr
    assert "Traceback (most recent call last)" in done.stderr
    assert "please report it" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("settings: no."), 2, "Error: settings: no.\n"),
        (click.UsageError("not so"), 2, "Error: not so\n"),
        (click.exceptions.Exit(7), 7, ""),
        (SystemExit(5), 5, ""),
        (KeyboardInterrupt(), 130, "was interrupted"),
        (PermissionError(13, "Permission denied", "/place"), 3, "/place: must be usable"),
        (OSError(28, "No space left on device", "/place"), 74, "/place"),
        (MemoryError(), 3, "the memory is full"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_was_foreseen_is_never_reported_as_a_fault(
    broken: Callable[..., Result], tmp_path: Path, error: BaseException, code: int, says: str
) -> None:
    done = broken(error)
    assert done.exit_code == code
    assert says in done.stderr
    assert "please report" not in done.stderr
    assert not list(tmp_path.glob("flowkit-error-*"))


BROKEN_PACKAGES = {
    "missing": ("import not_there_at_all", "the package not_there_at_all cannot be imported"),
    "raises": (
        "import broken_one",
        "the package broken_one cannot be imported (RuntimeError: compiled for another NumPy)",
    ),
    "library": ("import broken_two", "the package broken_two cannot be imported (OSError: libEGL.so.1: cannot open"),
    "inner": ("import broken_three", "the package broken_three cannot be imported (ModuleNotFoundError"),
}


@pytest.mark.parametrize("case", BROKEN_PACKAGES)
def test_a_package_that_cannot_be_imported_is_named(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("raise RuntimeError('compiled for another NumPy')\n")
    (tmp_path / "broken_two.py").write_text("raise OSError('libEGL.so.1: cannot open shared object file')\n")
    (tmp_path / "broken_three.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    statement, says = BROKEN_PACKAGES[case]
    monkeypatch.setattr(find(("flowkit", "doctor")), "callback", lambda **_: exec(statement, {"__name__": "flowkit.x"}))
    done = run("flowkit", "doctor")
    assert done.exit_code == 3
    assert says in done.stderr
    assert "flowkit doctor" in done.stderr
    assert "please report" not in done.stderr


def test_nobody_who_reads_on_ends_a_listing_without_words() -> None:
    command = f"import sys; sys.path[:0] = {sys.path!r}; from flowkit.cli import main; main(['settings'])"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `| head` does, but before the first line
        assert process.stderr.read() == b""
    assert process.returncode == 1


# ------------------------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_shell_completes_commands_and_settings_and_loads_little(program: str) -> None:
    code = (
        f"import os, sys; sys.path[:0] = {sys.path!r}\n"
        f"import {program}.cli as cli\n"
        f"try: cli.main(prog_name='{program}')\n"
        "finally:\n"
        "  heavy = {'numba', 'mediapipe', 'cv2', 'torch', 'av', 'h5py', 'rich', 'PIL', 'dask'} & set(sys.modules)\n"
        "  print(sorted(heavy), file=sys.stderr)\n"
    )
    words = f"{program} {'tr' if program == 'fmanet' else 'ext'}"
    variables = {f"_{program.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout == f"plain,{'train' if program == 'fmanet' else 'extract'}\n"
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("program", "words", "begun", "offers"),
    [
        ("flowkit", ["extract", "clips.csv", "--set"], "tvl1.la", ["tvl1.lambda_="]),
        ("fmanet", ["train", "shards", "--set"], "train.ep", ["train.epochs="]),
        ("flowkit", ["manifest"], "casme3", ["casme3-a", "casme3-a-lv", "casme3-c"]),
        ("flowkit", ["extract"], "--qui", ["--quiet"]),
    ],
)
def test_values_are_completed(program: str, words: list[str], begun: str, offers: list[str]) -> None:
    shell = ShellComplete(PROGRAMS[program], {}, program, f"_{program.upper()}_COMPLETE")
    assert [item.value for item in shell.get_completions(words, begun)] == offers


def test_the_settings_of_a_program_are_json_for_programs() -> None:
    rows = json.loads(run("fmanet", "settings", "--json").stdout)
    assert {row["name"] for row in rows if row["left_out"]} == {"network.classes", "network.multi_label", "classes"}
