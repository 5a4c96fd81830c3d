"""`flowkit manifest`: what it writes, says, refuses, and that it never touches a data set."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import made_up
import pytest
from click.testing import CliRunner

from conftest import Done, flowkit
from flowkit.cli import main
from flowkit.datasets import COMPOSITE, DATASETS
from flowkit.inputs.manifest import read_manifest


@pytest.fixture
def casme2(tmp_path: Path) -> Path:
    return made_up.casme2(tmp_path / "CASME II", "Cropped", empty=False)


def manifest(*arguments: str | Path) -> Done:
    """Run the command in this process: a new one for each of so many would take a minute."""
    done = CliRunner().invoke(main, ["manifest", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def test_help_lists_every_data_set() -> None:
    listed = manifest("--help").out.split("DATASET is one of")[1].split("Known errors")[0]
    assert all(name in listed for name in (*DATASETS, COMPOSITE))


def test_it_writes_what_check_passes_and_says_what_comes_next(tmp_path: Path, casme2: Path) -> None:
    out = tmp_path / "casme2.csv"
    done = manifest("casme2", casme2, "--out", out)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == str(out)
    assert lines[1] == "CASME II: 8 clips of 6 subjects, 0 left out, 0 without an apex; frames in Cropped"
    assert any(line.split() == ["casme2", "disgust", "2"] for line in lines)
    assert "Applied: casme2/sub04/EP12_01f: apex / -> 279." in done.err
    check, extract = (shlex.split(line) for line in lines[-2:])
    assert extract == ["flowkit", "extract", str(out), "--root", str(casme2), "--out", str(tmp_path / "casme2_flow")]
    passed = flowkit(*check[1:])
    assert (passed.code, passed.err) == (0, "")
    assert len(read_manifest(out)) == 8


def test_a_set_without_apex_passes_check_with_the_flag_that_is_printed(tmp_path: Path) -> None:
    root, out = made_up.smic(tmp_path / "SMIC", empty=False), tmp_path / "smic.csv"
    done = manifest("smic-hs", root, "--out", out)
    check, extract = (shlex.split(line) for line in done.out.splitlines()[-2:])
    assert extract[-2:] == ["--missing-apex", "spot"]
    assert flowkit(*check[1:]).code == 0
    assert flowkit("check", out, "--root", root).code == 1


def test_another_name_of_a_set_means_the_set(tmp_path: Path, casme2: Path) -> None:
    assert manifest("CASME_II", casme2, "--out", tmp_path / "a.csv").code == 0


def test_json_tells_programs_the_same(tmp_path: Path, casme2: Path) -> None:
    done = manifest("casme2", casme2, "--out", tmp_path / "a.csv", "--json", "--classes", "casme2-5")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (found["dataset"], found["clips"], found["left_out"], found["without_apex"]) == ("casme2", 8, 0, 0)
    assert found["labels"]["disgust"] == 2
    assert found["subjects"]["casme2/sub05"] == 2
    assert found["classes"]["counts"]["casme2"]["disgust"] == 2
    assert found["classes"]["left_out"]["casme2"] == {"fear": 1, "sadness": 1}
    assert {event["kind"] for event in found["events"]} == {"applied", "offered", "note"}
    assert found["next"][1].startswith("flowkit extract ")


def test_classes_are_shown_before_anything_is_computed(tmp_path: Path, casme2: Path) -> None:
    done = manifest("casme2", casme2, "--out", tmp_path / "a.csv", "--classes", "3-class")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["casme2", "negative", "3"] in rows
    assert ["casme2", "(left", "out:", "fear)", "1"] in rows


def test_no_fixes_leaves_errors_and_says_what_cannot_be_used(tmp_path: Path, casme2: Path) -> None:
    out = tmp_path / "a.csv"
    done = manifest("casme2", casme2, "--out", out, "--no-fixes")
    assert done.code == 1
    assert "7 clips of 5 subjects, 1 left out, 1 without an apex" in done.out
    assert done.err.startswith(
        "Left out: casme2/sub16/EP01_08: CASME2-coding-20140508.xlsx: Sheet1 row 8: offset must be"
    )
    assert done.out.rstrip().endswith("--missing-apex spot")
    assert flowkit("check", out, "--root", casme2, "--missing-apex", "spot").code == 0


def test_nothing_is_ever_written_into_a_data_set(tmp_path: Path, casme2: Path) -> None:
    before = made_up.tree(casme2)
    (tmp_path / "way").symlink_to(casme2)
    manifest("casme2", casme2, "--out", tmp_path / "a.csv")
    for out in (casme2 / "a.csv", casme2 / "Cropped" / "a.csv", tmp_path / "way" / "a.csv"):
        done = manifest("casme2", casme2, "--out", out)
        assert (done.code, done.out) == (2, "")
        assert "--out: file must lie outside the data set" in done.err
    assert made_up.tree(casme2) == before


def test_a_file_that_is_there_stays_unless_it_may_go(tmp_path: Path, casme2: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    assert "--out must not exist yet" in manifest("casme2", casme2, "--out", out).err
    assert out.read_text() == "mine"
    assert manifest("casme2", casme2, "--out", out, "--overwrite").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CASME II", "a.csv"]  # no temporary file is left


def test_a_set_that_cannot_be_read_leaves_nothing(tmp_path: Path, casme2: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for arguments, says in (
        (("casme", casme2), "DATASET: must be one of casme2, samm, samm-lv, smic-hs"),
        (("samm", casme2), "must hold the annotation of SAMM"),
        (("casme2", tmp_path / "nowhere"), "ROOT must be the folder of the data set; got No such file or directory"),
        (("casme2", casme2 / "Cropped"), "got no spreadsheet"),
        (("casme2", casme2, "--frames", "nowhere"), "--frames: must be a folder in"),
        (("casme2", casme2, "--frames", ".."), "--frames: must be a folder in"),
        (("casme2", casme2, "--frames", "a", "--frames", "b"), "--frames: must be given once; got a, b"),
        (("casme2", casme2, "--workbook", tmp_path / "no.xlsx"), "annotation file must be readable"),
        (("casme2", casme2, "--classes", "4-class"), "grouping must be one of"),
        (("casme2", casme2, "--list", "x.csv"), "--list: must come with megc2019"),
        (("casme2",), "the data set's folder must follow its name"),
        (("casme2", "--root", f"casme2={casme2}"), "the data set's folder must follow its name"),
        (("megc2019", casme2), "folders must come as --root SET=DIR"),
        (("megc2019", "--root", "casme2"), "--root: must look like casme2=..."),
        (
            ("megc2019", "--root", f"casme2={casme2}"),
            "got none for samm, smic-hs. Add --root samm=DIR --root smic-hs=DIR",
        ),
        (("megc2019", "--root", f"mmew={casme2}"), "data set must be one of casme2, samm, smic-hs; got 'mmew'"),
    ):
        done = manifest(*arguments, "--out", tmp_path / "a.csv")
        assert (done.code, done.out) == (2, ""), arguments
        assert done.err.startswith("Error: "), arguments
        assert says in done.err, arguments
        assert "Traceback" not in done.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "says"),
    [(".", "must name a file"), ("no/a.csv", "must lie in a folder that exists")],
    ids=["folder", "nowhere"],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path, out: str, says: str) -> None:
    done = manifest("casme2", tmp_path / "nowhere", "--out", tmp_path / out)
    assert done.code == 2
    assert says in done.err


def test_many_events_are_cut_for_people_and_whole_for_programs(tmp_path: Path, casme2: Path) -> None:
    rows = [*made_up.CASME2_ROWS, *(("20", f"EP{number}", None, 1, 2, 3, None, "1", "fear") for number in range(30))]
    header = made_up.CASME2_HEADER
    made_up.workbook(casme2 / "CASME2-coding-20140508.xlsx", {"Sheet1": [header, *rows]})
    people = manifest("casme2", casme2, "--out", tmp_path / "a.csv")
    programs = manifest("casme2", casme2, "--out", tmp_path / "b.csv", "--json")
    assert (people.code, programs.code) == (1, 1)
    assert people.err.count("\n") == 22  # with the estimates
    assert "--json has them all" in people.err
    assert sum(event["kind"] == "left out" for event in json.loads(programs.out)["events"]) == 30


def test_a_grouping_that_knows_no_label_never_stops_the_manifest(tmp_path: Path, casme2: Path) -> None:
    out = tmp_path / "a.csv"
    done = manifest("casme2", casme2, "--out", out, "--classes", "objective-5")
    assert (done.code, len(read_manifest(out))) == (0, 8)
    assert ["casme2", "(not", "known:", "disgust)", "2"] in [line.split() for line in done.out.splitlines()]
    found = json.loads(
        manifest("casme2", casme2, "--out", out, "--overwrite", "--classes", "objective-5", "--json").out
    )
    assert found["classes"]["unknown"]["casme2"]["disgust"] == 2


def test_objective_classes_become_the_labels_that_their_grouping_needs(tmp_path: Path) -> None:
    root, out = made_up.samm(tmp_path / "SAMM"), tmp_path / "a.csv"
    done = manifest("samm", root, "--out", out, "--label-from", "objective_class", "--classes", "objective-5")
    assert done.code == 0
    assert ["samm", "II", "2"] in [line.split() for line in done.out.splitlines()]
    assert {clip.label for clip in read_manifest(out)} == {"1", "2", "3", "4", "5", "7"}


def test_a_missing_key_frame_is_counted_and_the_commands_carry_the_flag(tmp_path: Path, casme2: Path) -> None:
    (casme2 / "Cropped/sub01/EP02_01f/reg_img59.jpg").unlink()
    out = tmp_path / "a.csv"
    done = manifest("casme2", casme2, "--out", out, "--nearest")
    assert done.code == 0
    assert (
        "0 left out, 0 without an apex, 1 with the nearest frame for one that is missing; frames in Cropped" in done.out
    )
    check, extract = (shlex.split(line) for line in done.out.splitlines()[-2:])
    assert check[-1] == extract[-1] == "--nearest"
    assert flowkit(*check[1:]).code == 0
    assert flowkit(*check[1:-1]).code == 1
    assert "--nearest" not in manifest("casme2", casme2, "--out", out, "--overwrite").out.splitlines()[-1]


def test_links_are_followed_and_the_commands_carry_the_flag(tmp_path: Path, casme2: Path) -> None:
    (casme2 / "Cropped").rename(tmp_path / "elsewhere")
    (casme2 / "Cropped").symlink_to(tmp_path / "elsewhere")
    out = tmp_path / "a.csv"
    refused = manifest("casme2", casme2, "--out", out)
    assert (refused.code, out.exists()) == (2, False)
    assert "1 links to folders, which are not followed. Pass --follow-symlinks to follow the links" in refused.err
    done = manifest("casme2", casme2, "--out", out, "--follow-symlinks")
    check, extract = (shlex.split(line) for line in done.out.splitlines()[-2:])
    assert check[-1] == extract[-1] == "--follow-symlinks"
    assert flowkit(*check[1:]).code == 0


def test_reasons_are_counted_and_frames_in_the_root_itself_are_named(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    for folder in (root / "Cropped").iterdir():
        folder.rename(root / folder.name)
    (root / "sub17").rename(root / "people")
    done = manifest("casme2", root, "--out", tmp_path / "a.csv")
    assert done.code == 1
    assert f"frames in {root}\n  left out: 1 x no folder of frames\n" in done.out


def test_one_data_set_s_flags_are_refused_where_they_mean_nothing(tmp_path: Path, casme2: Path) -> None:
    sets = [part for name in ("casme2", "samm", "smic-hs") for part in ("--root", f"{name}={casme2}")]
    done = manifest("megc2019", *sets, "--out", tmp_path / "a.csv", "--label-from", "objective_class")
    assert (done.code, done.out) == (2, "")
    assert "clips must have the sets' own labels; got --label-from. Write a manifest for each set" in done.err
    done = manifest("videos", casme2, "--out", tmp_path / "a.csv", "--nearest")
    assert (done.code, done.out) == (2, "")
    assert "videos: a folder alone must follow" in done.err


def test_estimates_are_one_line_for_people(tmp_path: Path, casme2: Path) -> None:
    done = manifest("casme2", casme2, "--out", tmp_path / "a.csv")
    assert (
        "Offered: 2 estimates in place of annotated frames, not taken: casme2/sub05/EP09_05f, casme2/sub05/EP16_04f."
        in done.err
    )
    assert "--estimates takes them." in done.err
    taken = manifest("casme2", casme2, "--out", tmp_path / "b.csv", "--estimates")
    assert taken.err.count("Applied: casme2/sub05/") == 2
    assert "Offered" not in taken.err
