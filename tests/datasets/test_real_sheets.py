"""What real annotation files showed, each fault as a kind, on small files of the same form: wrong data, dead ends, odd cells."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import made_up
import pytest
from test_mmew import HEADER as MMEW

from flowkit.datasets import Reading, find_dataset, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import frame_number, frame_numbers

Rows = Sequence[Sequence[made_up.Value]]


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def said(reading: Reading, kind: str = "note") -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


def casme2(root: Path, **changed: dict[int, made_up.Value]) -> Path:
    """A cropped CASME II in which cells of rows, by the clip's name, have other values."""
    rows = [
        tuple(changed.get(str(row[1]), {}).get(n, cell) for n, cell in enumerate(row)) for row in made_up.CASME2_ROWS
    ]
    made_up.casme2(root, "Cropped")
    made_up.workbook(root / "CASME2-coding-20140508.xlsx", {"Sheet1": [made_up.CASME2_HEADER, *rows]})
    return root


# --- the same frames twice


SMIC_HEADER = (
    *("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F", None, "FirstF"),
    *("LastF", "TotalMF1", "TotalMF2", "TotalMF3", "TotalVL", "Emotion"),
)


def smic_e(root: Path, rows: Rows, header: Sequence[str | None] = SMIC_HEADER, variant: str = "HS") -> Path:
    """SMIC-E with these rows, frames 1 to 900 for each."""
    place = root / f"{variant}_long"
    made_up.workbook(place / f"SMIC-{variant}-E_annotation.xlsx", {variant: [header, *rows]})
    for row in rows:
        folder = place / f"SMIC-{variant}-E" / f"s{int(str(row[0])):02d}" / str(row[1])
        made_up.frames(folder, range(1, 901), "image{:06d}.jpg")
    return root


def smic_row(
    subject: int, clip: str, pairs: Sequence[int], span: tuple[int, int], emotion: str
) -> Sequence[made_up.Value]:
    cells = [*pairs, *[0] * (6 - len(pairs))]
    return (subject, clip, None, *cells, None, *span, 1, 1, 1, 1, emotion)


def test_a_third_pair_that_is_another_clip_counts_once(tmp_path: Path) -> None:
    rows = [
        smic_row(3, "s3_ne_01", (100, 120, 140, 160, 300, 330), (90, 400), "negative"),
        smic_row(3, "s3_ne_02", (300, 330), (290, 350), "negative"),
    ]
    reading = read_dataset("smic-hs", smic_e(tmp_path, rows))
    assert set(by_name(reading)) == {"smic-hs/s03/s03_ne_01", "smic-hs/s03/s03_ne_01/2", "smic-hs/s03/s03_ne_02"}
    assert (
        "1 clips have the frames of another clip and count once, as that: smic-hs/s03/s03_ne_01/3 (smic-hs/s03/s03_ne_02)."
        in (said(reading))
    )
    assert reading.left_out == 0


def test_numbers_of_another_subject_are_other_frames(tmp_path: Path) -> None:
    rows = [smic_row(n, f"s{n}_ne_01", (100, 120), (90, 400), "negative") for n in (3, 4)]
    assert len(read_dataset("smic-hs", smic_e(tmp_path, rows)).clips) == 2


@pytest.mark.parametrize(
    ("pair", "span"),
    [
        ((88, 90), (90, 400)),
        ((89, 90), (90, 400)),
        ((380, 401), (90, 400)),
        ((200, 190), (90, 400)),
        ((0, 90), (90, 400)),
    ],
    ids=["before", "offset is FirstF", "after", "negative", "half empty"],
)
def test_what_a_formula_makes_of_empty_cells_is_no_expression(
    tmp_path: Path, pair: tuple[int, int], span: tuple[int, int]
) -> None:
    rows = [smic_row(1, "s1_po_01", (100, 120, 140, 160, *pair), span, "positive")]
    reading = read_dataset("smic-hs", smic_e(tmp_path, rows))
    assert set(by_name(reading)) == {"smic-hs/s01/s01_po_01", "smic-hs/s01/s01_po_01/2"}
    assert "1 pairs of further onsets and offsets are what formulas make of empty cells, and no expressions" in said(
        reading
    )
    assert reading.left_out == 0


def test_frames_of_one_folder_with_two_labels_are_refused_whatever_the_set(tmp_path: Path) -> None:
    root = casme3(
        tmp_path, [("spNO.1", "b", 175, 180, 190, "4", 7, "disgust"), ("spNO.1", "B", 175, 180, 190, "4", 7, "fear")]
    )
    made_up.frames(tmp_path / "part_A/spNO.9/a/color", range(1, 20), "{}.jpg")
    with pytest.raises(ManifestError, match=r"1 x rows that contradict each other"):
        read_dataset("casme3-a", root)
    rows = [
        ("17", "EP05_09", None, 10, 20, 40, None, "14", "fear"),
        ("17", "EP05_10", None, 10, 20, 40, None, "14", "disgust"),
    ]
    made_up.casme2(tmp_path / "c2", "Cropped", rows=[*made_up.CASME2_ROWS[:2], *rows])
    reading = read_dataset("casme2", tmp_path / "c2")
    assert len(reading.clips) == 4  # two folders: two clips
    part_c = [
        ("30", 1, 10, 20, "4", "negative"),
        ("30", 2, 10, 20, "4", "positive"),
        ("30", 3, 50, 60, "4", "negative"),
    ]
    header = ("sub", "count", "onset", "offset", "au", "emotion")
    made_up.workbook(tmp_path / "C/CAS(ME)3_part_C_ME.xlsx", {"Sheet1": [header, *part_c]})
    made_up.frames(tmp_path / "C/30/a/color", range(1, 100), "{}.jpg")
    reading = read_dataset("casme3-c", tmp_path / "C")
    assert reading.reasons == {"the same images as another clip, but another interval, person, label, kind or apex": 2}
    assert "Sheet1 row 2 (10 to 20, 30, negative, apex None) and" in said(reading, "left out")
    assert len(reading.clips) == 1


def test_two_links_to_one_folder_are_one_source(tmp_path: Path) -> None:
    rows = [("01", f"EP0{n}", None, 10, 20, 40, None, "14", "fear") for n in (1, 2)]
    root = made_up.casme2(tmp_path / "set", rows=rows)
    made_up.frames(tmp_path / "pool", range(10, 41))
    for n in (1, 2):
        (root / "sub01").mkdir(exist_ok=True)
        (root / f"sub01/EP0{n}").symlink_to(tmp_path / "pool")
    reading = read_dataset("casme2", root, follow_symlinks=True)
    assert set(by_name(reading)) == {"casme2/sub01/EP01"}
    assert "count once, as that: casme2/sub01/EP02 (casme2/sub01/EP01)." in said(reading)


# --- labels


def test_a_label_that_contradicts_the_clip_s_name_is_reported(tmp_path: Path) -> None:
    rows = [
        smic_row(2, "s2_sur_01", (100, 120), (90, 400), "negative"),
        smic_row(2, "s2_po_01", (200, 220), (190, 400), "positive"),
    ]
    reading = read_dataset("smic-hs", smic_e(tmp_path, rows))
    assert "HS row 2: the label is negative, but the clip's name says surprise. The label is kept." in said(reading)
    assert said(reading).count("the clip's name says") == 1
    made_up.frames(tmp_path / "raw/HS/s2/micro/negative/s2_sur_01", range(9), "image{}.bmp")
    assert "the clip's name says surprise" in said(read_dataset("smic-hs", tmp_path / "raw"))


@pytest.mark.parametrize("variant", ["HS", "VIS", "NIR"])
def test_the_label_that_the_lists_contradict_is_corrected(tmp_path: Path, variant: str) -> None:
    rows = [smic_row(18, "s18_sur_03", (100, 120), (90, 400), "negative")]
    name = f"smic-{variant.lower()}"
    reading = read_dataset(name, smic_e(tmp_path, rows, variant=variant))
    assert by_name(reading)[f"{name}/s18/s18_sur_03"].label == "surprise"
    assert "label negative -> surprise. the official list of MEGC2019" in said(reading, "applied")
    assert "the clip's name says" not in said(reading)
    kept = read_dataset(name, tmp_path, fixes=False)
    assert by_name(kept)[f"{name}/s18/s18_sur_03"].label == "negative"
    assert "the clip's name says surprise" in said(kept)


# --- columns


def test_columns_that_are_not_read_are_listed(tmp_path: Path) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path))
    assert "MICRO_ONLY: columns that are not read: Inducement Code, Duration, Micro, Notes." in said(reading)


def test_the_classes_of_2019_are_the_workbook_s_own(tmp_path: Path) -> None:
    header = (*made_up.CASME2_HEADER, "Objective Classes")
    rows = [(*row, number) for number, row in enumerate(made_up.CASME2_ROWS, start=1)]
    made_up.casme2(tmp_path, "Cropped")
    (tmp_path / "CASME2-coding-20140508.xlsx").unlink()
    made_up.workbook(tmp_path / "CASME2-coding-20190701.xlsx", {"Sheet1": [header, *rows]})
    reading = read_dataset("casme2", tmp_path)
    assert dict(by_name(reading)["casme2/sub01/EP02_01f"].extra)["objective_class"] == "1"
    made_up.objective_classes(tmp_path)
    both = read_dataset("casme2", tmp_path)
    assert dict(by_name(both)["casme2/sub01/EP02_01f"].extra)["objective_class"] == "1"
    assert "7 rows have another objective class in the workbook of classes, which is of another edition" in said(
        both
    )  # V is 5


def test_classes_of_another_workbook_are_never_joined_without_a_word(tmp_path: Path) -> None:
    made_up.objective_classes(tmp_path)
    noted = said(read_dataset("casme2", made_up.casme2(tmp_path, "Cropped")))
    assert "objective_class is from the workbook of objective classes; other editions have other classes." in noted


def test_every_clip_has_its_own_rate_and_units(tmp_path: Path) -> None:
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion", "AU", "Fps")
    rows = [
        ("1", "a", 0, 4, 9, "fear", "4+7", 500),
        ("2", "b", 0, 4, 9, "fear", "1", "300 fps"),
        ("3", "c", 0, 4, 9, "fear", "1", "?"),
    ]
    made_up.workbook(tmp_path / "training_full_with_AU.xlsx", {"Sheet1": [header, *rows]})
    for row in rows:
        made_up.frames(tmp_path / "frames" / str(row[1]), range(10), "{:05d}.png")
    reading = read_dataset("dfme", tmp_path)
    clips = by_name(reading)
    assert (clips["dfme/1/a"].fps, clips["dfme/2/b"].fps) == (500, 300)
    assert dict(clips["dfme/1/a"].extra)["action_units"] == "4+7"
    assert "1 clips have a frame rate that is no number; that of the set counts, if it has one: dfme/3/c (?)." in said(
        reading
    )


def test_the_three_sheets_of_dfme_are_a_question(tmp_path: Path) -> None:
    for name in ("training_full_with_AU", "testA_full_with_AU", "testB_full_with_AU"):
        made_up.workbook(
            tmp_path / f"{name}.xlsx", {"Sheet1": [("Subject", "Filename", "OnsetFrame", "ApexFrame"), (1, "a", 0, 1)]}
        )
    made_up.frames(tmp_path / "a", range(3), "{:05d}.png")
    with pytest.raises(
        ManifestError, match=r"must be one file; got 3: testA_full_with_AU.xlsx, .*Name the one to read with --workbook"
    ):
        read_dataset("dfme", tmp_path)
    assert len(read_dataset("dfme", tmp_path, workbook=tmp_path / "testA_full_with_AU.xlsx").clips) == 1


@pytest.mark.parametrize("spelling", ["{}", "{} NIR"])
def test_an_apex_that_somebody_added_to_smic_is_read(tmp_path: Path, spelling: str) -> None:
    header = ("Subject", "Filename", *(spelling.format(name) for name in ("OnsetF", "ApexF", "OffsetF")), "Emotion")
    root = smic_e(tmp_path, [(11, "s11_ne_01", 30, 34, 40, "negative")], header, "NIR")
    clip = by_name(read_dataset("smic-nir", root))["smic-nir/s11/s11_ne_01"]
    assert (clip.onset, clip.apex, clip.offset) == (30, 34, 40)


def casme3(
    root: Path,
    rows: Rows,
    header: Sequence[str] = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"),
) -> Path:
    made_up.workbook(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"label": [header, *rows]})
    made_up.frames(root / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    return root


FULL = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Expression type", "Objective class")


def full_sheet(path: Path) -> Path:
    """The sheet of macro- and micro-expressions, without emotions; one of its onsets and one of its offsets are others."""
    rows = [
        ("spNO.1", "b", 175, 180, 190, "4", "Micro-expression", 7),
        ("spNO.1", "B", 219, 224, 230, "1+2", "Micro-expression", 2),
        ("spNO.1", "b", 250, 255, 262, "1+2", "Micro-expression", 2),
        ("spNO.1", "b", 100, 120, 160, "12", "Macro-expression", 1),
    ]
    return made_up.workbook(path, {"Sheet1": [FULL, *rows], "eye blink": [("Subject", "Onset"), ("spNO.1", 3)]})


def test_a_sheet_without_emotions_takes_those_of_the_other_workbook(tmp_path: Path) -> None:
    rows = [("spNO.1", "b", 175, 180, 190, "4", 7, "disgust"), ("spNO.1", "b", 220, 224, 230, "1+2", 2, "surprise")]
    full = full_sheet(tmp_path / "CAS(ME)3_part_A_v2.xlsx")
    reading = read_dataset("casme3-a", casme3(tmp_path / "set", rows), workbook=full)
    assert {name: clip.label for name, clip in by_name(reading).items()} == {
        "casme3-a/spNO.1/b/175": "disgust",
        "casme3-a/spNO.1/b/219": "surprise",
        "casme3-a/spNO.1/b/250": "unlabelled",
    }
    assert "1 micro-expressions are not in that workbook and are unlabelled." in said(reading)


def test_a_sheet_without_emotions_alone_gives_advice_that_leads_somewhere(tmp_path: Path) -> None:
    root = casme3(tmp_path / "set", [])
    (root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx").unlink()
    full = full_sheet(tmp_path / "CAS(ME)3_part_A_v2.xlsx")
    reading = read_dataset("casme3-a", root, workbook=full)
    assert reading.counts("label") == {"unlabelled": 3}
    assert "Put cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx under ROOT, or pass --label-from objective_class." in said(
        reading
    )
    assert read_dataset("casme3-a", root, workbook=full, label_from="objective_class").counts("label") == {
        "2": 2,
        "7": 1,
    }


# --- labels from another column


def test_a_column_becomes_the_label(tmp_path: Path) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path), label_from="objective_class")
    assert (
        reading.counts("label") == {"7": 3, "2": 2, "3": 1, "1": 1, "4": 1, "5": 1}
        or sum(reading.counts("label").values()) == 8
    )
    clip = by_name(reading)["samm/006/006_1_2"]
    assert (clip.label, dict(clip.extra)["own_label"], dict(clip.extra)["objective_class"]) == ("3", "Anger", "3")
    assert "label of samm" not in said(reading)


def test_without_a_column_of_labels_the_message_names_the_way_out(tmp_path: Path) -> None:
    rows = [(*row[:8],) for row in made_up.CASME2_ROWS]
    header = (*made_up.CASME2_HEADER[:8], "Objective Classes")
    made_up.casme2(tmp_path, "Cropped")
    made_up.workbook(
        tmp_path / "CASME2-coding-20140508.xlsx",
        {"Sheet1": [header, *[(*row, n % 7 + 1) for n, row in enumerate(rows)]]},
    )
    with pytest.raises(ManifestError, match=r"It lacks Estimated Emotion.*pass --label-from objective_class"):
        read_dataset("casme2", tmp_path)
    assert len(read_dataset("casme2", tmp_path, label_from="objective_class").clips) == 8


def test_a_column_that_is_not_there_or_empty_is_refused_with_those_that_are(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    with pytest.raises(
        ManifestError,
        match=r"--label-from: must be a column of this set that is filled in: action_units; got 'objective_class'",
    ):
        read_dataset("casme2", root, label_from="objective_class")


def test_clips_without_that_column_are_unlabelled_and_named(tmp_path: Path) -> None:
    rows = [(*row[:7], None if row[1] == "009_3_1" else row[7]) for row in made_up.SAMM_ROWS]
    reading = read_dataset("samm", made_up.samm(tmp_path, rows=rows), label_from="objective_class")
    assert by_name(reading)["samm/009/009_3_1"].label == "unlabelled"
    assert "1 clips have no objective_class and are unlabelled: samm/009/009_3_1." in said(reading)


# --- estimates


def test_estimates_are_offered_and_taken_only_if_asked_for(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    offered, taken = read_dataset("casme2", root), read_dataset("casme2", root, estimates=True)
    for clip, own, estimate in (("sub05/EP09_05f", 69, 81), ("sub05/EP16_04f", 190, 166)):
        assert by_name(offered)[f"casme2/{clip}"].apex == own
        assert f"casme2/{clip}: apex {own} -> {estimate} with --estimates. MEB" in said(offered, "offered")
        assert by_name(taken)[f"casme2/{clip}"].apex == estimate
        assert dict(by_name(taken)[f"casme2/{clip}"].extra)["estimated"] == "apex"
    assert [clip.clip_id for clip in offered.clips if dict(clip.extra)["estimated"]] == ["casme2/sub04/EP12_01f"]
    assert dict(by_name(taken)["casme2/sub01/EP02_01f"].extra)["estimated"] == ""
    assert "3 clips have estimates, named in the column estimated" in said(taken)


def test_an_apex_that_was_corrected_already_is_left_alone(tmp_path: Path) -> None:
    root = casme2(tmp_path, EP16_04f={4: 150})
    reading = read_dataset("casme2", root, estimates=True)
    assert by_name(reading)["casme2/sub05/EP16_04f"].apex == 150
    assert "the file has '150', not '190'" in said(reading, "refused")


def mmew(root: Path, numbers: tuple[int, int, int], frames: Sequence[int]) -> Path:
    """An MMEW of the first clip that has estimates, apex 40 and offset 75."""
    made_up.workbook(
        root / "MMEW_Micro_Exp.xlsx", {"Sheet1": [MMEW, ("S04", "S04-01-001", *numbers, "12", "happiness", "")]}
    )
    made_up.frames(root / "Micro_Expression/happiness/S04-01-001", frames, "{}.jpg")
    return root


def test_estimates_of_mmew_come_in_pairs_by_key(tmp_path: Path) -> None:
    reading = read_dataset("mmew", mmew(tmp_path, (1, 30, 90), range(1, 91)))
    assert by_name(reading)["mmew/S04/S04-01-001"].apex == 30
    assert said(reading, "offered").count("with --estimates") == 2
    clip = by_name(read_dataset("mmew", tmp_path, estimates=True))["mmew/S04/S04-01-001"]
    assert (clip.apex, clip.offset, dict(clip.extra)["estimated"]) == (40, 75, "offset+apex")


def test_an_estimate_takes_the_place_of_an_impossible_number(tmp_path: Path) -> None:
    reading = read_dataset("mmew", mmew(tmp_path, (1, 30, 90), range(1, 76)))
    clip = by_name(reading)["mmew/S04/S04-01-001"]
    assert (clip.apex, clip.offset, dict(clip.extra)["estimated"]) == (40, 75, "offset+apex")
    assert said(reading, "applied").count("S04-01-001") == 2


def test_estimates_that_fit_no_frame_or_order_are_left_alone(tmp_path: Path) -> None:
    short = read_dataset("mmew", mmew(tmp_path / "short", (1, 20, 60), range(1, 61)), estimates=True)
    assert by_name(short)["mmew/S04/S04-01-001"].offset == 60
    assert "has no frame 75" in said(short, "refused")
    assert "apex * -> 40: it goes with another number of the clip." in said(short, "refused")
    kept = read_dataset("mmew", mmew(tmp_path / "recording", (471, 500, 560), range(471, 560)), nearest=True)
    assert (by_name(kept)["mmew/S04/S04-01-001"].offset, kept.nearest) == (560, ("mmew/S04/S04-01-001",))


# --- renumbered crops


def renumber(root: Path, start: int) -> None:
    """Renumber the images of each clip."""
    for folder in {path.parent for path in root.rglob("*.jpg")}:
        for number, path in enumerate(
            sorted(folder.glob("*.jpg"), key=lambda path: frame_number(path.name) or 0), start
        ):
            path.rename(folder / f"new{number:03d}.jpg")


@pytest.mark.parametrize("start", [0, 1])
def test_renumbered_crops_are_mapped_for_every_set(tmp_path: Path, start: int) -> None:
    for name, make in (("casme2", lambda root: made_up.casme2(root, "Cropped")), ("samm", made_up.samm)):
        root = tmp_path / name
        make(root)
        before = by_name(read_dataset(name, root))
        renumber(root, start)
        with pytest.raises(ManifestError, match=r"if they were renumbered, pass --renumbered"):
            read_dataset(name, root)
        reading = read_dataset(name, root, renumbered=True)
        assert reading.left_out == 0
        for clip_id, clip in by_name(reading).items():
            was = before[clip_id]
            assert clip.onset == start
            assert clip.offset == start + (was.offset or 0) - was.onset
            assert clip.apex == (None if was.apex is None else start + was.apex - was.onset)
        assert "clips count frames of a recording, moved so that the onset is the first file" in said(reading)


def test_a_folder_of_another_length_is_not_mapped(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    renumber(root, 1)
    (root / "Cropped/sub01/EP02_01f/new003.jpg").unlink()
    reading = read_dataset("casme2", root, renumbered=True)
    assert reading.reasons == {"not as many images as frames from onset to offset": 1}
    assert "must have 41 images, one for each frame from 46 to 86; got 40" in said(reading, "left out")


def test_ends_that_the_files_decide_need_no_mapping(tmp_path: Path) -> None:
    root = made_up.smic(tmp_path)
    (root / "HS/s3/micro/surprise/s3_sur_01/image17581045.bmp").unlink()
    assert read_dataset("smic-hs", root, renumbered=True).clips == read_dataset("smic-hs", root).clips


def test_crops_with_their_own_numbers_stay_as_they_are(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    assert read_dataset("casme2", root, renumbered=True).clips == read_dataset("casme2", root).clips


# --- cells


@pytest.mark.parametrize(
    "none",
    ["/", "\\", "-", "\u2013", "\u2014", "--", "null", "NULL", "-1.0", "N/A", "none", 0, "0", "\uff0d", "", None],
)
def test_what_stands_for_no_apex_is_none(tmp_path: Path, none: made_up.Value) -> None:
    reading = read_dataset("casme2", casme2(tmp_path, EP02_01f={4: none}))
    assert by_name(reading)["casme2/sub01/EP02_01f"].apex is None
    assert reading.left_out == 0


def test_a_0_that_counts_as_none_is_said(tmp_path: Path) -> None:
    reading = read_dataset("casme2", casme2(tmp_path, EP02_01f={4: 0}, EP03_02={5: 0}))
    assert (
        "1 clips have a 0 before their onset for an apex or offset, which counts as none: casme2/sub01/EP02_01f."
        in said(reading)
    )
    assert reading.reasons == {"no offset": 1}


@pytest.mark.parametrize("odd", ["59?", "59-61", "ca. 59", "fifty"])
def test_what_is_not_plain_is_the_cause_by_name(tmp_path: Path, odd: str) -> None:
    reading = read_dataset("casme2", casme2(tmp_path, EP02_01f={4: odd}))
    assert reading.reasons == {"apex is no frame number": 1}
    assert f"Sheet1 row 2: apex must be a frame number; got {odd!r}" in said(reading, "left out")


def test_wide_digits_are_digits(tmp_path: Path) -> None:
    assert (
        by_name(read_dataset("casme2", casme2(tmp_path, EP02_01f={4: "\uff15\uff19"})))["casme2/sub01/EP02_01f"].apex
        == 59
    )


CSV_HEADER = (
    "Subject",
    "Filename",
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    "Action Units",
    "Estimated Emotion",
    "\u5907\u6ce8",
)


def csv_text(separator: str, subject: Callable[[str], str] = str) -> str:
    lines = [
        CSV_HEADER,
        *((subject(str(r[0])), *r[1:2], *r[3:6], r[7], r[8], "\u6ca1\u6709") for r in made_up.CASME2_ROWS),
    ]
    return "\n".join(separator.join(map(str, line)) for line in lines)


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gbk"])
def test_text_files_of_every_program_give_the_same_clips(tmp_path: Path, separator: str, encoding: str) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    wanted = read_dataset("casme2", root).clips
    (root / "CASME2-coding-20140508.xlsx").unlink()
    (root / "CASME2-coding-20140508.csv").write_bytes(csv_text(separator).encode(encoding))
    reading = read_dataset("casme2", root)
    assert reading.clips == wanted
    assert "columns that are not read: \u5907\u6ce8" in said(reading)
    name = "GBK" if encoding == "gbk" else "UTF-16"
    assert (f"is not UTF-8 and is read as {name}" in said(reading)) == (not encoding.startswith("utf-8"))


def test_subjects_that_pandas_wrote_as_fractions_are_whole(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    wanted = read_dataset("casme2", root).clips
    (root / "CASME2-coding-20140508.xlsx").unlink()
    (root / "CASME2-coding-20140508.csv").write_text(csv_text(",", lambda text: f"{int(text)}.0"), encoding="utf-8")
    assert read_dataset("casme2", root).clips == wanted


def test_commas_within_cells_do_not_hide_the_semicolon(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    wanted = read_dataset("casme2", root).clips
    (root / "CASME2-coding-20140508.xlsx").unlink()
    text = csv_text(";").replace("\u6ca1\u6709", "a,b,c,d,e,f,g,h")
    (root / "CASME2-coding-20140508.csv").write_text(text, encoding="utf-8")
    assert read_dataset("casme2", root).clips == wanted


def test_bytes_of_no_known_encoding_are_the_cause_by_row_where_they_count(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "CASME2-coding-20140508.xlsx").unlink()
    path = root / "CASME2-coding-20140508.csv"
    latin = csv_text(",").replace("\u6ca1\u6709", "M\u00fcller").replace("\u5907\u6ce8", "remarks")
    path.write_bytes(latin.encode("latin-1"))
    assert len(read_dataset("casme2", root).clips) == 8  # nobody reads that column
    path.write_bytes(latin.replace("happiness", "fr\u00f6hlich").encode("latin-1"))
    with pytest.raises(ManifestError, match=r"got bytes of another encoding in row 2, label. Save it as CSV UTF-8"):
        read_dataset("casme2", root)


# --- links


def linked_copy(source: Path, target: Path, *, folders: bool) -> Path:
    """A copy whose clips are links to folders, or whose images are links, as git-annex, DVC and `cp -s` make them."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        is_clip = path.is_dir() and any(path.glob("*.jpg"))
        if is_clip and folders:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
        elif path.is_file() and not (folders and path.suffix == ".jpg"):
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".jpg":
                place.symlink_to(path)
            else:
                place.write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("folders", [True, False], ids=["folders", "images"])
def test_links_are_followed_if_asked_and_named_if_not(tmp_path: Path, folders: bool) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    wanted = read_dataset("casme2", root).clips
    copy = linked_copy(root, tmp_path / "copy", folders=folders)
    with pytest.raises(ManifestError, match=r"--follow-symlinks") as caught:
        read_dataset("casme2", copy)
    assert ("8 links to folders, which are not followed" if folders else "8 x links that lead out of ROOT") in str(
        caught.value
    )
    reading = read_dataset("casme2", copy, follow_symlinks=True)
    assert (reading.clips, reading.follow_symlinks) == (wanted, True)
    assert read_dataset("casme2", copy, follow_symlinks=True, frames="Cropped").clips == wanted


def test_some_links_among_clips_are_named(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    (root / "Cropped/sub01").rename(tmp_path / "elsewhere")
    (root / "Cropped/sub01").symlink_to(tmp_path / "elsewhere")
    reading = read_dataset("casme2", root)
    assert reading.reasons == {"no folder of frames": 2}
    assert "got none; 1 links to folders, which are not followed. Pass --follow-symlinks" in said(reading, "left out")
    assert read_dataset("casme2", root, follow_symlinks=True).left_out == 0


def test_links_within_the_root_need_no_flag_and_broken_ones_are_named(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    folder = root / "Cropped/sub01/EP02_01f"
    (root / "pool").mkdir()
    for path in folder.glob("*.jpg"):
        path.rename(root / "pool" / f"{path.name}.bin")
        path.symlink_to(root / "pool" / f"{path.name}.bin")
    assert read_dataset("casme2", root).left_out == 0
    (root / "pool" / "reg_img59.jpg.bin").unlink()
    reading = read_dataset("casme2", root)
    assert reading.reasons == {"links to files that are not there": 1}
    assert (
        "reg_img59.jpg must be an image; got a link to a file that is not there. Get the file (git annex get"
        in said(reading, "left out")
    )


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    (root / "up").symlink_to(root)
    (root / "Cropped/sub01/loop").symlink_to(root / "Cropped")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    (root / "out").symlink_to(tmp_path / "a")
    assert len(read_dataset("casme2", root, follow_symlinks=True).clips) == 8


# --- frames that are missing, in two places, or of another kind


def test_a_missing_key_frame_keeps_the_clip_if_asked(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "Cropped/sub01/EP02_01f/reg_img59.jpg").unlink()
    assert read_dataset("casme2", root).reasons == {"key frames that are not there": 1}
    reading = read_dataset("casme2", root, nearest=True)
    assert (reading.left_out, reading.nearest, len(reading.clips)) == (0, ("casme2/sub01/EP02_01f",), 8)
    assert by_name(reading)["casme2/sub01/EP02_01f"].apex == 59
    assert "1 clips lack a key frame, and need --nearest in check and extract, too: casme2/sub01/EP02_01f." in said(
        reading
    )


def test_two_layouts_that_fit_are_a_question_whatever_their_form(tmp_path: Path) -> None:
    root = casme3(tmp_path, [("spNO.1", "b", 175, 180, 190, "4", 7, "disgust")])
    made_up.frames(root / "Part_A_ME_clip/frame/spNO.1_b_175", range(175, 191), "{}.jpg")
    with pytest.raises(
        ManifestError, match=r"got several: Part_A_ME_clip \(1 clips\), part_A \(1 clips\).*--frames Part_A_ME_clip"
    ):
        read_dataset("casme3-a", root)
    assert read_dataset("casme3-a", root, frames="part_A").layouts == {"part_A": 1}


def test_two_forms_in_one_folder_are_a_question_too(tmp_path: Path) -> None:
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")
    made_up.workbook(
        tmp_path / "MMEW_Micro_Exp.xlsx", {"Sheet1": [header, ("S03", "S03-01-002", 1, 4, 9, "12", "happiness")]}
    )
    for layout in ("Micro_Expression/happiness/S03-01-002", "Micro_Expression/S03/happiness/S03-01-002"):
        made_up.frames(tmp_path / layout, range(1, 10), "{}.jpg")
    with pytest.raises(
        ManifestError, match=r"got several: .*Micro_Expression/S03/happiness/S03-01-002 and Micro_Expression/happiness"
    ):
        read_dataset("mmew", tmp_path)


@pytest.mark.parametrize("folder", ["01", "1", "S01", "s1", "sub1", "subject_01", "Sub01"])
def test_subjects_folders_have_many_names(tmp_path: Path, folder: str) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "Cropped/sub01").rename(root / "Cropped/x")
    (root / "Cropped/x").rename(root / "Cropped" / folder)
    reading = read_dataset("casme2", root)
    assert by_name(reading)["casme2/sub01/EP02_01f"].path == f"Cropped/{folder}/EP02_01f"


def test_videos_in_place_of_frames_are_named_with_what_to_do(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path)
    place = root / "CASME2_compressed/sub01"
    place.mkdir(parents=True)
    (place / "EP02_01f.avi").write_bytes(b"")
    with pytest.raises(ManifestError) as caught:
        read_dataset("casme2", root)
    assert "got no folder of numbered images; 1 videos, such as CASME2_compressed/sub01/EP02_01f.avi" in str(
        caught.value
    )
    assert f"'ffmpeg -i {place}/EP02_01f.avi -start_number 1 FOLDER/img%d.png'" in str(caught.value)


def test_an_old_workbook_is_named_with_what_to_do(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "sub01/EP02_01f", [1])
    (tmp_path / "CASME2-coding-20140508.xls").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"got an old .xls file. Save it as .xlsx in a spreadsheet program"):
        read_dataset("casme2", tmp_path)
    (tmp_path / "CASME2-coding-20140508.xls").rename(tmp_path / "mine.xls")
    with pytest.raises(ManifestError, match=r"got mine.xls. .* An .xls file is never read: save it as .xlsx."):
        read_dataset("casme2", tmp_path)


@pytest.mark.parametrize(
    ("asked", "file", "meant"),
    [
        ("samm", "SAMM_LongVideos_V3_Release.xlsx", "samm-lv"),
        ("samm", "SAMM_LongVideos_V1_Release.xls", "samm-lv"),
        ("casme2", "CAS(ME)^2code_final(Updated).xlsx", "casme-sq"),
        ("casme-sq", "CASME2-coding-20190701.xlsx", "casme2"),
        ("casme3-c", "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", "casme3-a"),
        ("mmew", "CAS(ME)3_part_A_v2.xlsx", "casme3-a-lv"),
    ],
)
def test_the_annotation_of_another_set_is_recognised(tmp_path: Path, asked: str, file: str, meant: str) -> None:
    made_up.frames(tmp_path / "006_1", [1])
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(ManifestError, match=rf"got that of another set, .*flowkit manifest {meant}\)"):
        read_dataset(asked, tmp_path)


def test_the_frames_of_the_long_videos_are_recognised(tmp_path: Path) -> None:
    made_up.samm(tmp_path)
    (tmp_path / "SAMM").rename(tmp_path.parent / f"{tmp_path.name}_away")
    made_up.frames(tmp_path / "SAMM_longvideos/006_1", range(5), "006_1_{:04d}.jpg")
    with pytest.raises(
        ManifestError, match=r"got those of another set, such as SAMM_longvideos/006_1. Write: flowkit manifest samm-lv"
    ):
        read_dataset("samm", tmp_path)


# --- small


@pytest.mark.parametrize("name", ["casme3", "CAS(ME)^3", "casme-3"])
def test_a_name_of_several_parts_suggests_them_all(name: str) -> None:
    with pytest.raises(ManifestError, match=r"Did you mean casme3-a or casme3-a-lv or casme3-c\?"):
        find_dataset(name)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("img46_224x224.jpg", 46),
        ("46-64X64.png", 46),
        ("reg_img46 (112x112).jpg", 46),
        ("face224x224_46.jpg", 46),
        ("0x46.jpg", 46),
    ],
)
def test_the_size_of_a_picture_is_no_frame_number(name: str, number: int) -> None:
    assert frame_number(name) == number
    assert frame_numbers([name]) == [number]


def test_labels_that_differ_in_capitals_are_one_in_counts(tmp_path: Path) -> None:
    reading = read_dataset("casme2", casme2(tmp_path, EP12_01f={8: "Disgust"}))
    counts = {label.casefold(): number for label, number in reading.counts("label").items()}
    assert (counts["disgust"], sum(counts.values()), len(counts)) == (2, 8, len(reading.counts("label")))


def test_a_seven_column_list_is_the_official_one(tmp_path: Path) -> None:
    from flowkit.datasets.base import layout
    from flowkit.datasets.sets.megc2019 import read_list

    rows = [("casme2", "sub01", "EP02_01f", "1"), ("samm", "006", "006_1_2", "0"), ("smic", "s01", "s01_ne_01", "0")]
    four, seven, odd = (tmp_path / name for name in ("four.csv", "seven.csv", "odd.csv"))
    for path, header, separator in (
        (four, (), ","),
        (seven, ("dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"), ","),
        (odd, ("label", "sub", "clip", "dataset"), ";"),
    ):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=separator)
            lines = [(row[3], row[1], row[2], row[0]) if path == odd else row for row in rows]
            writer.writerows([*([header] if header else []), *((*row, *[""] * (len(header) - 4)) for row in lines)])
    form = layout("megc2019")
    assert read_list(four, form) == read_list(seven, form) == read_list(odd, form)
    assert len(read_list(four, form)) == 3
