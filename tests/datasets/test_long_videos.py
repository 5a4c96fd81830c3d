"""Long videos of SAMM, CAS(ME)^2 and CAS(ME)^3: macro- and micro-expressions as intervals, told apart by a column."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from test_casme_sq import casme_sq
from test_real_sheets import full_sheet

from flowkit.datasets import Reading, read_dataset
from flowkit.inputs.clip import Clip

SAMM_ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    # subject, file name, inducement code, onset, apex, offset, duration, type, action units, notes
    (6, "006_1_1", 5, 10, 20, 60, 51, "Macro", "12", ""),
    (6, "006_1_2", 5, 100, 110, 130, 31, "Micro - 1/2", "4+7", ""),
    (6, "006_1_3", 5, 140, 150, 0, 0, "Macro", "4", "does not end"),
    ("007", "007_3_1", 5, 5, -1, 25, 21, "Micro - 1/2", "1", ""),
)


def samm_long(root: Path, prose: int = 10) -> Path:
    """SAMM Long Videos of two videos: prose above, no header."""
    lines = [(f"Prose {number}: please cite",) for number in range(prose)]
    made_up.workbook(root / "SAMM_LongVideos_V3_Release.xlsx", {"Release": [*lines, *SAMM_ROWS]})
    for video in ("006_1", "007_3"):
        made_up.frames(root / "SAMM_longvideos" / video, range(1, 161), f"{video}_{{:04d}}.jpg", empty=False)
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def said(reading: Reading, kind: str = "note") -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("prose", [0, 10])
def test_samm_long_videos_are_intervals_of_videos(tmp_path: Path, prose: int) -> None:
    reading = read_dataset("samm-lv", samm_long(tmp_path, prose))
    found = {
        name: (clip.onset, clip.apex, clip.offset, clip.path, dict(clip.extra)["kind"])
        for name, clip in by_name(reading).items()
    }
    assert found == {
        "samm-lv/006/006_1_1/10-60": (10, 20, 60, "SAMM_longvideos/006_1", "macro"),
        "samm-lv/006/006_1_2/100-130": (100, 110, 130, "SAMM_longvideos/006_1", "micro"),
        "samm-lv/006/006_1_3/140-0": (140, 150, 150, "SAMM_longvideos/006_1", "macro"),
        "samm-lv/007/007_3_1/5-25": (5, None, 25, "SAMM_longvideos/007_3", "micro"),
    }
    assert reading.counts("label") == {"unlabelled": 4}
    assert "1 clips have no offset and end with their apex: samm-lv/006/006_1_3/140-0." in said(reading)
    assert "the workbook of SAMM (Micro_FACS_Codes) is not there: no clip has an emotion." in said(reading)
    assert made_up.checked(reading, tmp_path).problems == ()


def test_emotions_of_micro_expressions_come_from_the_workbook_of_samm(tmp_path: Path) -> None:
    made_up.samm(tmp_path / "micro")
    reading = read_dataset("samm-lv", samm_long(tmp_path))
    labels = {name: clip.label for name, clip in by_name(reading).items()}
    assert labels["samm-lv/006/006_1_2/100-130"] == "Anger"
    assert labels["samm-lv/006/006_1_1/10-60"] == "unlabelled"


def test_cas_me_2_with_its_macro_expressions(tmp_path: Path) -> None:
    reading = read_dataset("casme-sq-lv", casme_sq(tmp_path))
    kinds = {name: dict(clip.extra)["kind"] for name, clip in by_name(reading).items()}
    assert kinds == {
        "casme-sq-lv/s15/anger1_1/57-72": "macro",
        "casme-sq-lv/s15/anger1_2/107-117": "micro",
        "casme-sq-lv/s15/disgust1_1/10-0": "micro",
        "casme-sq-lv/s16/happy4_1/20-30": "micro",
    }
    assert "passed over" not in said(reading)
    assert all("kind" not in dict(clip.extra) for clip in read_dataset("casme-sq", tmp_path).clips)


def test_cas_me_3_with_its_macro_expressions(tmp_path: Path) -> None:
    full_sheet(tmp_path / "CAS(ME)3_part_A_v2.xlsx")
    made_up.frames(tmp_path / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
    made_up.workbook(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        {"label": [header, ("spNO.1", "b", 175, 180, 190, "4", 7, "disgust")]},
    )
    reading = read_dataset("casme3-a-lv", tmp_path)
    found = {name: (clip.label, dict(clip.extra)["kind"]) for name, clip in by_name(reading).items()}
    assert found["casme3-a-lv/spNO.1/b/175-190"] == ("disgust", "micro")
    assert found["casme3-a-lv/spNO.1/b/100-160"] == ("unlabelled", "macro")
    assert len(found) == 4


def test_a_short_expression_that_begins_with_a_long_one_is_another(tmp_path: Path) -> None:
    root = samm_long(tmp_path)
    rows = [*SAMM_ROWS, (6, "006_1_4", 5, 10, 14, 25, 16, "Micro - 1/2", "1", "")]
    made_up.workbook(root / "SAMM_LongVideos_V3_Release.xlsx", {"Release": rows})
    assert len(read_dataset("samm-lv", root).clips) == 5
