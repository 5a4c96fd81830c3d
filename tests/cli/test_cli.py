"""The command line around extract: help, synth, inspect, verify, report, doctor, check; results on stdout only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import flowkit
from flowkit.cli.spotting import spot_intervals_command, spot_score_command
from flowkit.spotting.run import SpotOptions
from flowkit.spotting.scores import IOU

COMMANDS = (
    *(
        "demo",
        "manifest",
        "extract",
        "check",
        "spot",
        "spot-intervals",
        "spot-score",
        "inspect",
        "verify",
        "report",
        "import",
        "export",
        "synth",
        "bench",
        "doctor",
        "settings",
    ),
)


def test_help_names_every_command_in_the_order_of_use() -> None:
    done = flowkit("--help")
    assert done.code == 0
    table = done.out.split("Commands:\n")[1].split("\nExample:\n")[0]
    listed = [line.split()[0] for line in table.splitlines()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_is_for(command: str) -> None:
    done = flowkit(command, "--help")
    assert (done.code, done.err) == (0, "")
    usage, text = done.out.split("\n\n", maxsplit=1)
    assert usage.startswith("Usage:")
    assert len(text.split()) > 8
    assert "--help" in text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("extract", "nowhere.csv", "--out", "out"), 2, "manifest must be a readable CSV file"),
        (("extract", "nowhere.csv"), 2, "Missing option '--out'"),
        (("check", "nowhere.csv"), 2, "manifest must be a readable CSV file"),
        (("spot", "nowhere.csv", "--out", "out.csv"), 2, "manifest must be a readable CSV file"),
        (("spot", "nowhere.csv"), 2, "Missing option '--out'"),
        (("spot-intervals", "nowhere.mp4", "--out", "out.csv"), 2, "must be a video, or a folder; got nothing there"),
        (("spot-intervals", "nowhere.mp4"), 2, "Missing option '--out'"),
        (("spot-score", "nowhere.csv", "nowhere.csv"), 2, "manifest must be a readable CSV file"),
        (("inspect", "nowhere"), 2, "got no run.json"),
        (("verify", "nowhere"), 2, "got no run.json"),
        (("report", "nowhere"), 2, "got no run.json"),
        (("export", "nowhere", "--format", "npz", "--out", "x"), 2, "got no run.json"),
        (("export", "nowhere", "--format", "tiff", "--out", "x"), 2, "'tiff' is not one of"),
        (("synth", "--out", "x", "--classes", "boredom"), 2, "boredom"),
        (("invent",), 2, "No such command"),
    ],
)
def test_wrong_usage_is_said_on_stderr(arguments: tuple[str, ...], code: int, says: str) -> None:
    done = flowkit(*arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert "Traceback" not in done.err


def test_inspect_tells_the_same_to_people_and_programs(undisturbed: Path) -> None:
    people, programs = flowkit("inspect", undisturbed), flowkit("inspect", undisturbed, "--json")
    found = json.loads(programs.out)
    assert (people.code, programs.code) == (0, 0)
    assert (found["ok"], found["shards"], found["failed"]) == (12, 3, 0)
    assert found["fingerprint"] in people.out


def test_verify_finds_one_flipped_bit_and_nothing_else(undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    assert flowkit("verify", out).code == 0
    victim = sorted(out.rglob("*.h5"))[1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = flowkit("verify", out, "--json")
    assert done.code == 1
    (problem,) = json.loads(done.out)["problems"]
    assert victim.name in problem
    report = flowkit("report", out)
    assert report.code == 1
    assert victim.name in (out / "report.html").read_text()


def test_verify_makes_the_derived_files_again(undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    expected = (out / "index.npz").read_bytes()
    for name in ("index.npz", "failures.csv"):
        (out / name).unlink()
    assert flowkit("verify", out).code == 0
    assert (out / "index.npz").read_bytes() == expected
    assert (out / "failures.csv").read_text().startswith("clip_id,code,message")


def test_synth_writes_what_check_accepts(tmp_path: Path) -> None:
    out = tmp_path / "clips"
    done = flowkit("synth", "--out", out, "--subjects", "1", "--classes", "happiness,anger", "--key-frames-only")
    assert done.out.strip() == str(out / "manifest.csv")
    check = flowkit("check", out / "manifest.csv", "--json")
    assert check.code == 0, check.out
    assert json.loads(check.out)["problems"] == []
    again = flowkit("synth", "--out", out)
    assert again.code in (2, 3)
    assert "must be an empty folder" in again.err


def test_doctor_approves_of_the_machine_that_runs_this() -> None:
    done = flowkit("doctor", "--json")
    assert done.code == 0, done.out
    assert {row["status"] for row in json.loads(done.out)} <= {"ok", "warning"}


def test_defaults_of_the_spotting_commands_are_those_of_the_library() -> None:
    found, scored = (
        {one.name: one.default for one in command.params} for command in (spot_intervals_command, spot_score_command)
    )
    assert found["least_confidence"] == SpotOptions().least_confidence
    assert scored["iou"] == IOU
