"""Copies that a laboratory may have: what could be read as something else is told apart, or named."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from test_long_videos import SAMM_ROWS, samm_long
from test_real_sheets import FULL, by_name, renumber, said, smic_e, smic_row

from flowkit.datasets import read_dataset, read_megc2019
from flowkit.datasets.base import layout
from flowkit.datasets.sets.megc2019 import read_list
from flowkit.datasets.sets.smic import name_of
from flowkit.errors import ConfigError, ManifestError

C_HEADER = ("sub", "count", "onset", "offset", "au", "emotion")
A_HEADER = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")


def test_the_first_video_of_a_person_is_not_the_folder_of_subject_1(tmp_path: Path) -> None:
    made_up.workbook(
        tmp_path / "CAS(ME)3_part_C_ME.xlsx",
        {"Sheet1": [C_HEADER, (1, 5, 10, 20, "4", "negative"), (30, 1, 30, 40, "4", "negative")]},
    )
    made_up.frames(tmp_path / "part_C/30/1/color", range(1, 50), "{}.jpg")
    reading = read_dataset("casme3-c", tmp_path)
    assert set(by_name(reading)) == {"casme3-c/30/1/30"}
    assert reading.reasons == {"no folder of frames": 1}


def test_a_macro_expression_never_takes_the_emotion_of_a_micro_expression(tmp_path: Path) -> None:
    rows = [
        ("spNO.1", "b", 175, 180, 190, "4", "Micro-expression", 7),
        ("spNO.1", "b", 175, 200, 260, "4", "Macro-expression", 7),
    ]
    made_up.workbook(tmp_path / "CAS(ME)3_part_A_v2.xlsx", {"Sheet1": [FULL, *rows]})
    made_up.workbook(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        {"label": [A_HEADER, ("spNO.1", "b", 175, 180, 190, "4", 7, "disgust")]},
    )
    made_up.frames(tmp_path / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    labels = {name: clip.label for name, clip in by_name(read_dataset("casme3-a-lv", tmp_path)).items()}
    assert labels == {"casme3-a-lv/spNO.1/b/175-190": "disgust", "casme3-a-lv/spNO.1/b/175-260": "unlabelled"}


def test_one_interval_of_two_kinds_is_a_contradiction(tmp_path: Path) -> None:
    rows = [*SAMM_ROWS, (6, "006_1_5", 5, 100, 110, 130, 31, "Macro", "4+7", "")]
    root = samm_long(tmp_path)
    made_up.workbook(root / "SAMM_LongVideos_V3_Release.xlsx", {"Release": rows})
    reading = read_dataset("samm-lv", root)
    assert reading.reasons == {"the same images as another clip, but another interval, person, label, kind or apex": 2}


def test_a_further_expression_has_only_the_label_of_its_row(tmp_path: Path) -> None:
    rows = [
        smic_row(3, "s3_ne_01", (100, 120, 300, 330), (90, 400), "negative"),
        smic_row(3, "s3_po_02", (300, 330), (290, 350), "positive"),
    ]
    clips = by_name(read_dataset("smic-hs", smic_e(tmp_path, rows)))
    assert {name: clip.label for name, clip in clips.items()} == {
        "smic-hs/s03/s03_ne_01": "negative",
        "smic-hs/s03/s03_po_02": "positive",
    }


def test_a_row_of_an_unknown_kind_is_counted(tmp_path: Path) -> None:
    root = samm_long(tmp_path)
    rows = [("Prose",), *SAMM_ROWS, (6, "006_1_5", 5, 150, 152, 155, 5, "Mirco - 1/2", "1", "")]
    made_up.workbook(root / "SAMM_LongVideos_V3_Release.xlsx", {"Release": rows})
    reading = read_dataset("samm-lv", root)
    assert "1 rows are not of macro- and micro-expressions and are passed over: Mirco - 1/2 (1)." in said(reading)


def test_renumbered_crops_beside_long_clips_of_smic_e(tmp_path: Path) -> None:
    roots = {"casme2": made_up.casme2(tmp_path / "c", "Cropped"), "samm": made_up.samm(tmp_path / "s")}
    rows = [smic_row(1, "s1_ne_01", (130, 150), (100, 200), "negative")]
    root = smic_e(tmp_path / "m", rows)
    for path in sorted((root / "HS_long/SMIC-HS-E/s01/s1_ne_01").iterdir())[:99]:
        path.unlink()
    renumber(roots["casme2"], 1)
    reading = read_megc2019({**roots, "smic-hs": root}, renumbered=True)
    clip = next(clip for clip in reading.clips if clip.dataset == "smic-hs")
    assert (clip.onset, clip.offset) == (130, 150)


@pytest.mark.parametrize(
    "folder",
    [
        "HS/s1/micro/negative/s1-ne-01",
        "HS/subject_1/micro/Negative/s1_ne_01",
        "HS/01/micro/negative/S01_NE_01",
        "HS/s1/micro/negative/s1_ne_1",
    ],
)
def test_folders_of_smic_are_compared_as_all_others_are(tmp_path: Path, folder: str) -> None:
    made_up.frames(tmp_path / folder, range(5, 9), "image{}.bmp")
    reading = read_dataset("smic-hs", tmp_path)
    assert [(clip.clip_id, clip.label, clip.path) for clip in reading.clips] == [
        ("smic-hs/s01/s01_ne_01", "negative", folder)
    ]


def test_folders_of_smic_that_are_no_clips_are_named(tmp_path: Path) -> None:
    made_up.smic(tmp_path)
    made_up.frames(tmp_path / "HS/s1/micro/negative/take two", range(3), "image{}.bmp")
    noted = said(read_dataset("smic-hs", tmp_path))
    assert (
        "1 folders are not placed and named as clips are, and are passed over: HS/s1/micro/negative/take two." in noted
    )


@pytest.mark.parametrize(
    "folder",
    [
        "HS/2013/micro/negative/s01_ne_02",
        "HS/s1/micro/negative/s2_ne_01",
        "HS/s1/micro/Surprised/s1_sur_01",
        "HS/s1/micro/surprise/s1_sur_01/frames",
        "HS/s1/micro/s1_sur_01",
        "HS/s1/micro/negative/s1_ne_01_cropped",
    ],
)
def test_what_is_no_clip_of_smic_is_named(tmp_path: Path, folder: str) -> None:
    made_up.smic(tmp_path)
    made_up.frames(tmp_path / folder, range(5), "image{}.bmp")
    reading = read_dataset("smic-hs", tmp_path)
    assert len(reading.clips) == 4
    assert f"1 folders are not placed and named as clips are, and are passed over: {folder}." in said(reading)


def test_names_of_smic_are_one_however_they_are_written() -> None:
    assert [name_of(text) for text in ("s11_po_12", "subject1", "SUB_1", "S1-ne-1", "take 2")] == [
        *("s11_po_12", "s01", "s01", "s01_ne_01", "take 2")
    ]


def test_an_odd_number_in_smic_e_is_named(tmp_path: Path) -> None:
    rows = [(1, "s1_ne_01", None, 10, 20, "--5", 9, 0, 0, None, 5, 90, 1, 1, 1, 1, "negative")]
    reading = read_dataset("smic-hs", smic_e(tmp_path, rows))
    assert reading.reasons == {"onset is no frame number": 1}


def test_two_workbooks_to_join_stop_nothing(tmp_path: Path) -> None:
    root = samm_long(tmp_path / "set")
    for n in (1, 2):
        made_up.samm(root / f"micro{n}")
    reading = read_dataset("samm-lv", root)
    assert reading.counts("label") == {"unlabelled": 4}
    assert "the workbook of SAMM, for the emotions must be one file; got micro1/" in said(reading)
    assert "None is read: move all except one out of ROOT." in said(reading)


@pytest.mark.parametrize(("name", "file"), [("casme2", "coding.xlsx"), ("samm", "SAMM_full.xlsx")])
def test_a_common_name_is_no_sign_of_another_set(tmp_path: Path, name: str, file: str) -> None:
    made_up.frames(tmp_path / "006/006_1_2", [1])
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(ManifestError, match=rf"got {file}. Check the folder, or name the file with --workbook"):
        read_dataset(name, tmp_path)


def test_frames_may_be_named_from_the_file_system_s_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped", "CASME2-RAW")
    monkeypatch.chdir(tmp_path)
    for follow in (False, True):
        reading = read_dataset("casme2", "set", frames=root / "Cropped", follow_symlinks=follow)
        assert reading.layouts == {"Cropped": 8}


CSV = "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion,remarks\n01,EP02_01f,46,59,86,12,{},{}\n"


def text_copy(root: Path, content: bytes) -> Path:
    made_up.casme2(root, "Cropped")
    (root / "CASME2-coding-20140508.xlsx").unlink()
    (root / "CASME2-coding-20140508.csv").write_bytes(content)
    return root


def test_rare_chinese_signs_are_read_and_unknown_bytes_are_noted(tmp_path: Path) -> None:
    rare = CSV.format("\u9ad8\u5174\u5f97\u5f88\u6240\u4ee5\u7b11\u4e86\u4e0d\u505c\u9555", "x").encode("gbk")
    reading = read_dataset("casme2", text_copy(tmp_path / "a", rare))
    assert reading.clips[0].label.endswith("\u9555")
    assert "is read as GBK" in said(reading)
    latin = CSV.format("happiness", "M\u00fcller").encode("latin-1")
    reading = read_dataset("casme2", text_copy(tmp_path / "b", latin))
    assert reading.clips[0].label == "happiness"
    assert "is not UTF-8 and is read as an unknown encoding" in said(reading)


def test_a_bad_quote_is_named_and_not_a_header_that_is_there(tmp_path: Path) -> None:
    content = CSV.format('"happi"ness', "a;b").encode()
    with pytest.raises(ManifestError, match=r"file must be CSV; got .*expected after"):
        read_dataset("casme2", text_copy(tmp_path, content))


def test_a_link_to_itself_costs_nothing_else(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    for place in (root / "self", root / "Cropped/sub01/self"):
        place.symlink_to(place)
    for follow in (False, True):
        assert len(read_dataset("casme2", root, follow_symlinks=follow).clips) == 8


def test_the_advice_to_follow_links_is_not_given_twice(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "up").symlink_to(root)
    (root / "Cropped/sub17").rename(root / "Cropped/away")
    reading = read_dataset("casme2", root, follow_symlinks=True)
    assert "1 links to folders, which are not followed. They lead in a circle." in said(reading)


def test_only_clips_of_the_manifest_need_the_nearest_frame(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    folder = root / "Cropped/sub01/EP02_01f"
    (folder / "reg_img59.jpg").unlink()
    (folder / "reg_img46.jpg").unlink()
    (folder / "reg_img46.jpg").symlink_to(tmp_path / "nowhere")
    reading = read_dataset("casme2", root, nearest=True)
    assert (reading.nearest, reading.reasons) == ((), {"links to files that are not there": 1})


@pytest.mark.parametrize("given", [{"estimates": True}, {"corrections": "mine.csv"}])
def test_options_that_contradict_each_other_are_refused(tmp_path: Path, given: dict[str, object]) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    with pytest.raises(ConfigError, match=r"--no-fixes: must come without --estimates and --corrections"):
        read_dataset("casme2", root, fixes=False, **given)


def test_a_list_may_not_contradict_itself_but_may_be_written_otherwise(tmp_path: Path) -> None:
    form = layout("megc2019")
    path = tmp_path / "list.csv"
    path.write_text("casme2,sub01,EP02_01f,1\ncasme2,1,ep02_01F,1\n", encoding="utf-8")
    assert len(read_list(path, form)) == 1
    path.write_text("casme2,sub01,EP02_01f,1\ncasme2,1,EP02_01f,0\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"list.csv:2: clip must have one label; got negative after positive"):
        read_list(path, form)


# --- renumbered images, links, and single frames


def test_renumbered_images_are_of_one_clip_only(tmp_path: Path) -> None:
    root = smic_e(tmp_path, [smic_row(3, "s3_ne_01", (100, 120, 140, 160), (90, 400), "negative")])
    folder = root / "HS_long/SMIC-HS-E/s03/s3_ne_01"
    for path in folder.iterdir():
        path.unlink()
    made_up.frames(folder, range(1, 22), "{}.jpg")
    with pytest.raises(
        ManifestError, match=r"2 x the same images as another clip, but another interval, person, label, kind or apex"
    ):
        read_dataset("smic-hs", root, renumbered=True)


def test_the_camera_s_own_columns_win(tmp_path: Path) -> None:
    header = (
        "Subject",
        "Filename",
        "OnsetF VIS",
        "OffsetF VIS",
        "OnsetF",
        "OffsetF",
        "OnsetF NIR",
        "OffsetF NIR",
        "Emotion",
    )
    row = (11, "s11_ne_01", 130, 140, 230, 240, 30, 40, "negative")
    reading = read_dataset("smic-nir", smic_e(tmp_path, [row], header, "NIR"))
    assert [(clip.onset, clip.offset) for clip in reading.clips] == [(30, 40)]


def test_two_distributions_are_a_question_even_without_a_clip_in_both(tmp_path: Path) -> None:
    root = smic_e(tmp_path, [smic_row(3, "s3_ne_01", (100, 120), (90, 400), "negative")])
    made_up.frames(root / "SMIC_all_raw/HS/s1/micro/negative/s1_ne_02", range(50, 70), "image{:06d}.bmp")
    with pytest.raises(ManifestError, match=r"got several: HS_long/SMIC-HS-E \(1 clips\), SMIC_all_raw/HS \(1 clips\)"):
        read_dataset("smic-hs", root)
    assert read_dataset("smic-hs", root, frames="SMIC_all_raw").layouts == {"SMIC_all_raw/HS": 1}


def test_a_workbook_beside_raw_folders_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    root = made_up.smic(tmp_path, "NIR")
    header = ("Subject", "Filename", "OnsetF NIR", "ApexF NIR", "OffsetF NIR", "Emotion")
    made_up.workbook(
        root / "NIR/SMIC-NIR-E_annotation.xlsx", {"NIR": [header, (1, "s1_ne_01", 12345, 12350, 12360, "negative")]}
    )
    reading = read_dataset("smic-nir", root)
    assert "the workbook is not read: the folders tell labels and intervals. --workbook reads it." in said(reading)
    named = read_dataset("smic-nir", root, workbook=root / "NIR/SMIC-NIR-E_annotation.xlsx")
    assert [(clip.onset, clip.apex, clip.offset) for clip in named.clips] == [(12345, 12350, 12360)]


@pytest.mark.parametrize(("first", "left"), [(0, 0), (1, 1)])
def test_without_an_offset_renumbered_images_cannot_be_checked(tmp_path: Path, first: int, left: int) -> None:
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "Emotion")
    made_up.workbook(
        tmp_path / "training_full_with_AU.xlsx", {"S": [header, (1, "a", 0, 10, "fear"), (1, "b", 0, 10, "fear")]}
    )
    made_up.frames(tmp_path / "f/a", range(31), "{:05d}.png")
    made_up.frames(tmp_path / "f/b", range(first, first + 31), "{:05d}.png")
    reading = read_dataset("dfme", tmp_path, renumbered=True)
    assert reading.left_out == left
    assert set(reading.reasons) <= {"no offset by which renumbered images could be checked"}


def test_a_set_that_tells_by_itself_what_its_numbers_count_needs_no_flag(tmp_path: Path) -> None:
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")
    rows = [(3, "S03-01-002", 2, 9, 12, "12", "fear"), (3, "S03-01-003", 471, 480, 500, "12", "fear")]
    made_up.workbook(tmp_path / "MMEW_Micro_Exp.xlsx", {"Sheet1": [header, *rows]})
    for name in ("S03-01-002", "S03-01-003"):
        made_up.frames(tmp_path / "Micro_Expression/fear" / name, range(1, 31), "{}.jpg")
    for flag in (False, True):
        reading = read_dataset("mmew", tmp_path, renumbered=flag)
        assert [(clip.onset, clip.apex, clip.offset) for clip in reading.clips] == [(2, 9, 12), (1, 10, 30)]


def test_nearest_does_not_hide_that_crops_were_renumbered(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    renumber(root, 1)
    with pytest.raises(ManifestError, match=r"if they were renumbered, pass --renumbered"):
        read_dataset("casme2", root, nearest=True)


def test_nearest_needs_some_frame_of_the_clip(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    folder = root / "Cropped/sub01/EP02_01f"
    for path in folder.iterdir():
        path.unlink()
    made_up.frames(folder, range(200, 260))
    assert read_dataset("casme2", root, nearest=True).reasons == {"key frames that are not there": 1}


def test_one_frame_in_which_no_apex_can_be_found_is_left_out(tmp_path: Path) -> None:
    root = made_up.smic(tmp_path)
    made_up.frames(root / "HS/s2/micro/positive/s2_po_01", [7], "image{}.bmp")
    assert read_dataset("smic-hs", root).reasons == {"a single frame, in which no apex can be found": 1}


def test_links_to_nowhere_count_wherever_check_reads(tmp_path: Path) -> None:
    root = made_up.smic(tmp_path)
    path = root / "HS/s9/micro/surprise/s9_sur_01/image000510.bmp"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert read_dataset("smic-hs", root).reasons == {"links to files that are not there": 1}


@pytest.mark.parametrize("empty", ["-", "#N/A", "/"])
def test_empty_pairs_of_smic_e_have_many_signs(tmp_path: Path, empty: str) -> None:
    row = (3, "s3_ne_01", None, 100, 120, empty, empty, 0, 0, None, 90, 400, 1, 1, 1, 1, "negative")
    reading = read_dataset("smic-hs", smic_e(tmp_path, [row]))
    assert (len(reading.clips), reading.left_out) == (1, 0)


# --- what spreadsheets and file systems leave behind


def test_what_macos_adds_to_archives_is_no_second_copy(tmp_path: Path) -> None:
    root = made_up.smic(tmp_path)
    made_up.frames(root / "__MACOSX/HS/s1/micro/negative/s1_ne_01", range(12345, 12365), "._image{:06d}.bmp")
    assert len(read_dataset("smic-hs", root).clips) == 4


def test_a_table_of_corrections_knows_the_names_of_a_set(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    head = "dataset,subject,clip,onset,field,old,new,when,source,note\n"
    mine = tmp_path / "mine.csv"
    mine.write_text(head + "CASME II,sub01,EP02_01f,,label,Happiness,surprise,,me,\n", encoding="utf-8")
    reading = read_dataset("casme2", root, corrections=mine)
    assert by_name(reading)["casme2/sub01/EP02_01f"].label == "surprise"
    mine.write_text(head + "samm,006,006_1_2,,label,Anger,Fear,,me,\n", encoding="utf-8")
    assert "has no correction of casme2, and takes the place of the bundled ones." in said(
        read_dataset("casme2", root, corrections=mine)
    )


def test_a_workbook_under_another_name_is_named(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "CASME2-coding-20140508.xlsx").rename(root / "CASME2-coding-20140508.csv")
    with pytest.raises(
        ManifestError, match=r"file must be text; got a workbook under that name. Rename it to .xlsx or .xls."
    ) as caught:
        read_dataset("casme2", root)
    assert str(caught.value).isprintable()


def test_a_workbook_that_is_a_broken_link_says_so(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "CASME2-coding-20140508.xlsx").unlink()
    (root / "CASME2-coding-20140508.xlsx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"It is a link: get its file \(git annex get, dvc pull\)"):
        read_dataset("casme2", root)


def test_one_person_has_one_name(tmp_path: Path) -> None:
    rows = [("spNO.1", "b", 175, 180, 190, "4", 7, "disgust"), ("spno.1", "b", 200, 210, 220, "4", 7, "fear")]
    made_up.workbook(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"label": [A_HEADER, *rows]})
    made_up.frames(tmp_path / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    reading = read_dataset("casme3-a", tmp_path)
    assert {clip.subject for clip in reading.clips} == {"spNO.1"}
    assert "1 rows spell a subject otherwise than others do; one counts: spno.1 beside spNO.1" in said(reading)


def test_a_row_without_a_subject_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*made_up.CASME2_ROWS, (None, "EP99", None, 10, 20, 40, None, "14", "fear")]
    root = made_up.casme2(tmp_path, "Cropped")
    made_up.workbook(root / "CASME2-coding-20140508.xlsx", {"Sheet1": [made_up.CASME2_HEADER, *rows]})
    assert read_dataset("casme2", root).reasons == {"no subject": 1}


@pytest.mark.parametrize("label", ["", "-", "/", "\u2014", "N/A", "nan", None])
def test_no_label_is_one_word_in_every_set(tmp_path: Path, label: str | None) -> None:
    rows = [(*row[:8], label) for row in made_up.CASME2_ROWS]
    reading = read_dataset("casme2", made_up.casme2(tmp_path, "Cropped", rows=rows))
    assert reading.counts("label") == {"unlabelled": 8}


@pytest.mark.parametrize("label", ["no", "none", "unknown", "x"])
def test_a_word_is_a_label(tmp_path: Path, label: str) -> None:
    rows = [(*row[:8], label) for row in made_up.CASME2_ROWS]
    assert read_dataset("casme2", made_up.casme2(tmp_path, "Cropped", rows=rows)).counts("label") == {label: 8}


def test_a_clip_of_which_there_is_only_a_video_is_told_so(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "Cropped/sub17/EP05_09").rename(tmp_path / "away")
    (root / "EP05_09.avi").write_bytes(b"")
    assert "There is a video, EP05_09.avi: convert it into a folder of images." in said(
        read_dataset("casme2", root), "left out"
    )


def test_a_workbook_of_three_sheets_cannot_be_one_text_file(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "set/rawpic/s15/15_0401girlcrashing", range(3))
    (tmp_path / "x.csv").write_text("1,anger1_1,5,6,7,4,negative,micro-expression,anger\n" * 3, encoding="utf-8")
    with pytest.raises(ManifestError, match=r"must be a workbook with the sheet naming rule1; got a text file"):
        read_dataset("casme-sq", tmp_path / "set", workbook=tmp_path / "x.csv")


def test_corrections_of_one_clip_s_numbers_go_together(tmp_path: Path) -> None:
    made_up.workbook(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        {"label": [A_HEADER, ("spNO.216", "e", 0, 0, 20, "4", 7, "others")]},
    )
    made_up.frames(tmp_path / "Part_A/frame/spNO.216_e_0", range(1, 22), "{}.jpg")
    clip = by_name(read_dataset("casme3-a", tmp_path, renumbered=True))["casme3-a/spNO.216/e/0"]
    assert (clip.onset, clip.apex, clip.offset) == (1, 1, 21)


def test_a_list_of_the_authors_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    made_up.workbook(
        tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        {"label": [A_HEADER, ("spNO.1", "b", 175, 180, 190, "4", 7, "fear")]},
    )
    made_up.frames(tmp_path / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    damaged = tmp_path / "error_info_damaged_image_partA.txt"
    damaged.write_text("spNO.1 b 180.jpg  the image cannot open\n", encoding="utf-16")
    with pytest.raises(ManifestError, match=r"1 x damaged key frames"):
        read_dataset("casme3-a", tmp_path)
    damaged.unlink()
    damaged.symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        ManifestError, match=r"list must be readable; got No such file or directory. Get the file, or remove it"
    ):
        read_dataset("casme3-a", tmp_path)


# --- who is who


DFME = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion")


def dfme(root: Path, rows: list[tuple[made_up.Value, ...]], *folders: str) -> Path:
    made_up.workbook(root / "training_full_with_AU.xlsx", {"S": [DFME, *rows]})
    for folder in folders:
        made_up.frames(root / folder, range(31), "{:05d}.png")
    return root


def test_two_people_may_have_a_clip_of_one_name(tmp_path: Path) -> None:
    root = dfme(tmp_path, [(1, "a", 0, 10, 30, "fear"), (2, "a", 0, 12, 28, "anger")], "f/1/a", "f/2/a")
    assert {clip.subject: clip.path for clip in read_dataset("dfme", root).clips} == {"1": "f/1/a", "2": "f/2/a"}


def test_one_clip_of_two_people_is_a_contradiction(tmp_path: Path) -> None:
    rows = [(1, "a", 0, 10, 30, "fear"), (2, "a", 0, 10, 30, "fear"), (1, "b", 0, 10, 30, "fear")]
    reading = read_dataset("dfme", dfme(tmp_path, rows, "f/a", "f/b"))
    assert [clip.clip_id for clip in reading.clips] == ["dfme/1/b"]
    assert set(reading.reasons.values()) == {2}


def test_prefixes_of_a_subject_make_no_other_person(tmp_path: Path) -> None:
    header = ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset")
    rows = [(name, f"c{n}", "Positive", 1, 3, 9) for n, name in enumerate(("1", "s01", "sub_1", "S10"))]
    made_up.workbook(tmp_path / "4DME_Labelling_Micro.xlsx", {"Sheet1": [header, *rows]})
    for n, folder in enumerate(("01", "01", "01", "10")):
        made_up.frames(tmp_path / "gray" / folder / f"c{n}", range(1, 10))
    assert set(read_dataset("4dme", tmp_path).counts("subject")) == {"4dme/1", "4dme/S10"}


def test_a_star_in_a_name_is_no_pattern(tmp_path: Path) -> None:
    root = dfme(tmp_path, [(1, "a*", 0, 10, 30, "fear"), (1, "b", 0, 10, 30, "fear")], "f/abc", "f/b")
    reading = read_dataset("dfme", root)
    assert [clip.clip_id for clip in reading.clips] == ["dfme/1/b"]
    assert reading.reasons == {"no folder of frames": 1}


def test_person_1_has_no_frames_in_the_first_video_of_another(tmp_path: Path) -> None:
    rows = [(1, 5, 10, 20, "4", "negative"), (2, 1, 10, 20, "4", "negative")]
    made_up.workbook(tmp_path / "CAS(ME)3_part_C_ME.xlsx", {"Sheet1": [C_HEADER, *rows]})
    for folder in ("part_C/30/1/color", "part_C/02/color"):
        made_up.frames(tmp_path / folder, range(1, 50), "{}.jpg")
    assert [clip.path for clip in read_dataset("casme3-c", tmp_path).clips] == ["part_C/02/color"]


def test_emotions_of_expressions_with_one_onset_are_told_apart(tmp_path: Path) -> None:
    rows = [("spNO.1", "b", 175, 180, 190, "4", 7, "disgust"), ("spNO.1", "b", 175, 178, 183, "4", 7, "fear")]
    full = [(*row[:6], "Micro-expression", row[6]) for row in rows]
    full.append(("spNO.1", "b", 175, 179, 185, "4", "Micro-expression", 7))
    made_up.workbook(tmp_path / "CAS(ME)3_part_A_v2.xlsx", {"Sheet1": [FULL, *full]})
    made_up.workbook(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"label": [A_HEADER, *rows]})
    made_up.frames(tmp_path / "part_A/spNO.1/b/color", range(1, 301), "{}.jpg")
    labels = [clip.label for clip in read_dataset("casme3-a-lv", tmp_path).clips]
    assert labels == ["disgust", "fear", "unlabelled"]


# --- nearest frames and corrections


def test_a_clip_with_brackets_in_its_name_needs_the_nearest_frame_too(tmp_path: Path) -> None:
    root = dfme(tmp_path, [(1, "a (1)", 0, 10, 30, "fear")], "f/a (1)")
    (root / "f/a (1)/00010.png").unlink()
    assert read_dataset("dfme", root, nearest=True).nearest == ("dfme/1/a (1)",)


@pytest.mark.parametrize(
    ("numbers", "apex", "reason"),
    [
        ((*range(1, 40), *range(90, 99)), 59, "key frames that are not there"),
        ((*range(1, 40), *range(90, 99)), "/", "key frames that are not there"),
        ((46, 87), "/", "no image behind the onset, in which an apex could be found"),
        ((45, 60, 60, 90), 61, "several images with one number"),
    ],
)
def test_nothing_is_near_where_check_would_fail(
    tmp_path: Path, numbers: tuple[int, ...], apex: made_up.Value, reason: str
) -> None:
    rows = [
        ("17", "EP05_09", None, 10, 20, 40, None, "14", "fear"),
        ("01", "EP01", None, 46, apex, 86, None, "1", "fear"),
    ]
    root = made_up.casme2(tmp_path, rows=rows)
    made_up.frames(root / "sub17/EP05_09", range(10, 41))
    for n, number in enumerate(numbers):
        made_up.frames(root / "sub01/EP01", [number], f"v{chr(97 + n % 26)}_{{}}.jpg")
    assert read_dataset("casme2", root, nearest=True).reasons == {reason: 1}


def test_a_folder_with_a_gap_was_not_renumbered(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    folder = root / "Cropped/sub01/EP02_01f"
    (folder / "reg_img59.jpg").unlink()
    made_up.frames(folder, [45], "reg_img{}.jpg")  # 41 images by chance
    reading = read_dataset("casme2", root, renumbered=True)
    assert reading.reasons == {"key frames that are not there": 1}
    assert "--renumbered" not in said(reading, "left out")
    assert by_name(read_dataset("casme2", root, nearest=True))["casme2/sub01/EP02_01f"].onset == 46


@pytest.mark.parametrize("new", ["abc", "+140", "", "12.5"])
def test_a_correction_to_what_is_no_frame_is_refused_in_the_table(tmp_path: Path, new: str) -> None:
    mine = tmp_path / "mine.csv"
    head = "dataset,subject,clip,onset,field,old,new,when,source,note\n"
    mine.write_text(f"{head}casme2,sub01,EP02_01f,,offset,86,{new},,me,\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"mine.csv:2: new must be a frame number; got"):
        read_dataset("casme2", made_up.casme2(tmp_path / "set", "Cropped"), corrections=mine)


def test_corrections_never_put_numbers_out_of_order_and_know_a_clip_by_any_spelling(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    head = "dataset,subject,clip,onset,field,old,new,when,source,note\n"
    rows = "casme2,1,EP02_01f,046,apex,59,85,,me,\ncasme2,1,EP02_01f,046,offset,86,80,,me,\ncasme2,s1,EP03_02,,apex,139,140,,me,\n"
    mine.write_text(head + rows, encoding="utf-8")
    reading = read_dataset("casme2", made_up.casme2(tmp_path / "set", "Cropped"), corrections=mine)
    clip = by_name(reading)["casme2/sub01/EP02_01f"]
    assert (clip.apex, clip.offset) == (59, 86)
    assert "it would be out of order: onset 46, apex 85, offset 80" in said(reading, "refused")
    assert by_name(reading)["casme2/sub01/EP03_02"].apex == 140
