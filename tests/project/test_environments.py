"""Environments that nobody wishes for: each command ends well there, or says in words what is wrong."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import SMALL, shard_bytes
from flowkit.storage import hashed_json
from flowkit.storage.folder import ShardFolder

FULL = "/dev/full"
NAME = "sub01/Señor 顔"
"""Of a clip and its folder."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: bytes
    err: bytes


def run(
    *arguments: str | Path,
    program: str = "flowkit",
    shell: str = "",
    before: Sequence[str] = (),
    **environment: str | None,
) -> Ended:
    """Run a command, with a shell's redirections if any, and with variables set, or removed where they are None."""
    usual = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": None}
    values = {**os.environ, **usual, **environment}
    command = [*before, sys.executable, "-m", f"{program}.cli", *map(str, arguments)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", *command],
        env={name: value for name, value in values.items() if value is not None},
        capture_output=True,
        check=False,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def well(ended: Ended) -> Ended:
    """What any command owes its user: no traceback, and no complaint of Python's as it ends."""
    for text in (b"Traceback", b"Exception ignored", b"Error in sys.excepthook"):
        assert text not in ended.err, ended.err.decode()
    return ended


@pytest.fixture(scope="module")
def accented(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three clips, the first of which has a name and a folder that ASCII cannot say; the second fails."""
    root = tmp_path_factory.mktemp("Ünicode")
    header, *lines = cropped.read_text().splitlines()[:4]
    rows = [line.split(",") for line in lines]
    for name, row in zip((NAME, "gone", "plain"), rows, strict=True):
        shutil.copytree(cropped.parent / row[1], root / name)
        row[:2] = [name, name]
    shutil.rmtree(root / "gone")
    manifest = root / "clips é.csv"
    manifest.write_text("\n".join([header, *map(",".join, rows)]) + "\n", encoding="utf-8")
    return manifest


Arguments = Callable[[Path, Path, Path], tuple[str | Path, ...]]
COMMANDS: dict[str, tuple[str, Arguments]] = {
    "extract": ("flowkit", lambda manifest, shards, out: ("extract", manifest, "--out", out, "--dry-run", *SMALL)),
    "check": ("flowkit", lambda manifest, shards, out: ("check", manifest)),
    "inspect": ("flowkit", lambda manifest, shards, out: ("inspect", shards)),
    "synth": (
        "flowkit",
        lambda manifest, shards, out: (
            *("synth", "--out", out),
            *("--subjects", "1", "--classes", "happiness", "--key-frames-only"),
        ),
    ),
    "doctor": ("flowkit", lambda manifest, shards, out: ("doctor",)),
    "manifest": ("flowkit", lambda manifest, shards, out: ("manifest", "casme2", manifest.parent, "--out", out)),
    "train": (
        "fmanet",
        lambda manifest, shards, out: (
            *("train", shards, "--out", out),
            *("--classes", "raw", "--size", "32", "--dry-run"),
        ),
    ),
}
CODES = {"manifest": 2}
"""Of commands that are given something else than they need; all others are to end with 0."""


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_needs_a_home_a_terminal_a_folder_for_temporaries_or_an_encoding(
    command: str, cropped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """All at once: no HOME, no TMPDIR, a dumb terminal of one column, the C locale and ASCII."""
    program, arguments = COMMANDS[command]
    ended = run(
        *arguments(cropped, undisturbed, tmp_path / "out"),
        program=program,
        HOME=None,
        TMPDIR=str(tmp_path / "nowhere"),
        TERM="dumb",
        COLUMNS="1",
        NO_COLOR="1",
        LC_ALL="C",
        PYTHONIOENCODING="ascii",
    )
    assert well(ended).code == CODES.get(command, 0), ended.err.decode()
    assert b"\x1b" not in ended.out + ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_needs_an_open_stream(command: str, cropped: Path, undisturbed: Path, tmp_path: Path) -> None:
    program, arguments = COMMANDS[command]
    ended = run(*arguments(cropped, undisturbed, tmp_path / "out"), program=program, shell="<&- >&- 2>&-")
    assert ended.code == CODES.get(command, 0)


@pytest.mark.parametrize("command", ["extract", "check", "inspect", "synth", "doctor"])
def test_results_that_cannot_be_written_are_told(
    command: str, cropped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    program, arguments = COMMANDS[command]
    ended = run(*arguments(cropped, undisturbed, tmp_path / "out"), program=program, shell=f"> {FULL}")
    assert well(ended).code == 74
    assert ended.err.decode().splitlines()[-1] == (
        "Error: stdout: cannot be written (No space left on device). Send it elsewhere and run the same command again."
    )


def test_what_is_written_to_a_closed_stream_does_not_end_up_in_a_file(cropped: Path, tmp_path: Path) -> None:
    """A file that is opened takes the number of a stream that is closed; the hook writes to number 2 while run.json is open."""
    ended = run("extract", cropped, "--out", tmp_path, *SMALL, shell="2>&-", FLOWKIT_TEST_DIE_AT="run.json:after_write")
    assert ended.code == 137
    (left,) = tmp_path.glob(".tmp~*run.json")
    assert hashed_json.decode(left.read_bytes()) is not None  # every byte is as it was meant


@pytest.mark.parametrize("shell", ["2>&-", "<&- >&- 2>&-", f"2> {FULL}"])
def test_closed_streams_change_no_byte_of_the_shards(accented: Path, tmp_path: Path, shell: str) -> None:
    out = tmp_path / "out"
    ended = run("extract", accented, "--out", out, *SMALL, "--max-error-rate", "1", shell=shell)
    assert ended.code == (74 if FULL in shell else 1), ended.err.decode()
    well(ended)
    if FULL in shell:
        return
    folder = ShardFolder.open(out)
    clips = [sample["clip_id"] for shard in folder.shards() for sample in shard.samples()]  # every byte is checked
    assert clips == ["plain", NAME]
    assert run("verify", out).code == 0


def test_an_encoding_that_cannot_say_a_name_writes_it_as_its_number(accented: Path, tmp_path: Path) -> None:
    flags = ("--out", tmp_path / "out", *SMALL, "--max-error-rate", "1")
    done = well(run("extract", accented, *flags, PYTHONIOENCODING="ascii"))
    assert done.code == 1, done.err
    # Python's own file names are ASCII here, as without its UTF-8 mode in the C locale: a problem of each clip, in words.
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for flag in ("--json",), ():
        ended = well(run("check", accented, *flag, **bare))
        assert ended.code == 1, ended.err
        assert rb"Se\xf1or \u9854" in ended.out or flag
    problems = json.loads(well(run("check", accented, "--json", PYTHONIOENCODING="ascii")).out)["problems"]
    assert [problem["clip_id"] for problem in problems] == ["gone"]


def test_names_that_are_no_text_are_printed_with_their_bytes(tmp_path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    flags = ("--subjects", "1", "--classes", "happiness", "--key-frames-only")
    ended = well(run("synth", "--out", strange, *flags, PYTHONIOENCODING="utf-8"))
    assert ended.code == 0, ended.err
    assert rb"\udcff" in ended.out
    told = well(run("verify", strange))
    assert (told.code, rb"\udcff: folder must" in told.err) == (2, True)


def test_a_reader_that_leaves_ends_the_command_quietly(undisturbed: Path) -> None:
    for command in (("inspect", undisturbed), ("--help",), ("extract", "--help")):
        ended = run(*command, shell="2>&1 | head -1")
        assert (ended.code, len(ended.out.splitlines()), ended.err) == (0, 1, b"")
    both = run("inspect", undisturbed / "nowhere", shell="2>&1 | true; exit ${PIPESTATUS[0]}")
    assert (both.code in (1, 2), both.err) == (True, b"")


def test_help_that_cannot_be_written_is_told() -> None:
    for arguments, unbuffered in ((("--help",), "1"), (("extract", "--help"), None), (("--version",), "1")):
        ended = well(run(*arguments, shell=f"> {FULL}", PYTHONUNBUFFERED=unbuffered))
        assert ended.code == 74
        assert b"stdout: cannot be written" in ended.err


def test_an_error_that_cannot_be_written_still_has_its_exit_code(tmp_path: Path) -> None:
    for shell in (f"2> {FULL}", "2>&-", f"> {FULL} 2>&1"):
        assert run("inspect", tmp_path, shell=shell).code == 2


@pytest.mark.parametrize("columns", ["1", "40"])
def test_a_narrow_terminal_shows_all_the_same(columns: str, undisturbed: Path, cropped: Path) -> None:
    """On a real terminal, where tables and bars are drawn as wide as it is."""
    for command in (("inspect", undisturbed), ("check", cropped), ("extract", "--help")):
        ours, theirs = pty.openpty()
        done = subprocess.Popen(
            [sys.executable, "-m", "flowkit.cli", *map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "COLUMNS": columns,
                "TERM": "dumb",
            },
        )
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # so ends a terminal whose last writer has gone
            pass
        os.close(ours)
        assert done.wait() == 0, shown.decode()
        assert b"Traceback" not in shown
        assert b"\x1b[3" not in shown


@pytest.mark.parametrize("command", ["extract", "train"])
def test_a_working_folder_that_is_gone_is_told(command: str, cropped: Path, undisturbed: Path, tmp_path: Path) -> None:
    program, arguments = COMMANDS[command]
    gone = tmp_path / "gone"
    gone.mkdir()
    leave = ("bash", "-c", f'cd "{gone}" && rmdir "{gone}" && exec "$@"', "bash")
    ended = well(run(*arguments(cropped, undisturbed, tmp_path / "out"), program=program, before=leave))
    assert (ended.code, ended.out) == (3, b"")
    assert ended.err.decode() == (
        f"Error: {program}: the working folder is gone (No such file or directory). Change to another one: cd\n"
    )


STRANGER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""Behind it, a command runs as a user of whom /etc/passwd knows nothing, as in a container; it owns what the tests own."""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*STRANGER, "true"], check=False, capture_output=True).returncode != 0,
    reason="no user namespaces here",
)
@pytest.mark.slow
def test_a_user_whom_nobody_knows_can_do_everything(cropped: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Without a home, or with one that cannot be written."""
    ended = well(run("extract", cropped, "--out", tmp_path, *SMALL, before=STRANGER, HOME=None))
    assert ended.code == 0, ended.err.decode()
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)
    assert well(run("doctor", before=STRANGER, HOME="/proc/nowhere")).code == 0
