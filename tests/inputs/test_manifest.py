"""The manifest: all problems of form at once, each with its line; policies turn a row into three frame numbers."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from pathlib import Path

import pytest

from flowkit.errors import ClipError, FailureCode, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.key_frames import key_frames
from flowkit.inputs.manifest import MAX_TEXT, REQUIRED, path_problem, read_manifest
from flowkit.listing import MAX_PROBLEMS

HEADER = ",".join(REQUIRED)
GOOD = {
    "clip_id": "c1",
    "path": "s01/c1",
    "onset": "46",
    "apex": "59",
    "offset": "86",
    "subject": "s01",
    "dataset": "casme2",
    "label": "joy",
}


def row(**cells: str) -> str:
    return ",".join((GOOD | cells).values())


def manifest(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "clips.csv"
    path.write_text("\n".join((header, *rows, "")), encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    return str(caught.value).splitlines()


def test_rows_become_clips_sorted_by_id(tmp_path: Path):
    path = manifest(tmp_path, row(clip_id="b"), row(clip_id="a", apex="", offset=""))
    first, second = read_manifest(path)
    assert second == Clip("b", "s01/c1", 46, 59, 86, "s01", "casme2", "joy", line=2, fps=second.fps)
    assert math.isnan(second.fps)
    assert (first.clip_id, first.apex, first.offset, first.line) == ("a", None, None, 3)


def test_optional_and_further_columns_are_carried(tmp_path: Path):
    path = manifest(tmp_path, row() + ",4+7,200,ABCDEF,x", header=HEADER + ",au,fps,source_hash,Zone")
    (clip,) = read_manifest(path)
    assert (clip.fps, clip.source_hash) == (200.0, "abcdef")
    assert clip.extra == (("Zone", "x"), ("au", "4+7"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace(",", ", "),
        lambda text: text.replace("s01/c1", '"s01/c1"'),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.rstrip("\n"),
    ],
)
def test_spellings_of_csv_mean_the_same(tmp_path: Path, change):
    plain = read_manifest(manifest(tmp_path, row()))
    path = tmp_path / "other.csv"
    path.write_bytes(change((tmp_path / "clips.csv").read_text()).encode())
    assert [clip.row_hash() for clip in read_manifest(path)] == [clip.row_hash() for clip in plain]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"clip_id": " "}, "clip_id must not be empty"),
        ({"path": ""}, "path must not be empty"),
        ({"subject": ""}, "subject must not be empty"),
        ({"dataset": ""}, "dataset must not be empty"),
        ({"onset": ""}, "onset must be a whole number from 0; got ''"),
        ({"onset": "-1"}, "onset must be a whole number from 0; got '-1'"),
        ({"apex": "/"}, "apex must be a whole number from 0; got '/'"),
        ({"apex": "59.5"}, "apex must be a whole number"),
        ({"offset": "=D2+1"}, "offset must be a whole number"),
        ({"offset": "1e3"}, "offset must be a whole number"),
        ({"offset": "1234567890"}, "offset must be a whole number"),
        ({"offset": "٤٦"}, "offset must be a whole number"),
        ({"label": "x" * (MAX_TEXT + 1)}, f"label must be at most {MAX_TEXT} bytes"),
        ({"label": "é" * (MAX_TEXT // 2 + 1)}, f"label must be at most {MAX_TEXT} bytes"),
        ({"clip_id": "a\0b"}, "clip_id must be at most"),
        ({"clip_id": "a\x1b[2Jb"}, "clip_id must be at most"),
        ({"subject": "a\x85b"}, "subject must be at most"),
        ({"label": '"two\nlines"'}, "label must be at most"),
        ({"path": "/data/c1"}, r"path must be relative .* \(absolute\)"),
        ({"label": "a,b"}, "as many fields as the header"),
    ],
)
def test_each_problem_of_a_row_is_named_with_its_line(tmp_path: Path, cells: dict[str, str], message: str):
    found = problems(manifest(tmp_path, row(clip_id="first"), row(**cells)))
    line = 4 if "\n" in "".join(cells.values()) else 3  # the record ends there
    assert len(found) == 1
    assert found[0].startswith(f"clips.csv:{line}: ")
    assert re.search(message, found[0])


@pytest.mark.parametrize("fps", ["0", "-25", "nan", "inf", "fast", "1e9"])
def test_frame_rate_must_be_positive_and_finite(tmp_path: Path, fps: str):
    (found,) = problems(manifest(tmp_path, row() + f",{fps}", header=HEADER + ",fps"))
    assert f"fps must be a positive number; got '{fps}'" in found


def test_short_row_is_named(tmp_path: Path):
    (found,) = problems(manifest(tmp_path, "c1,s01/c1,1,2,3"))
    assert found.startswith("clips.csv:2: row must have as many fields as the header")


def test_all_problems_come_at_once_and_the_rest_is_counted(tmp_path: Path):
    two = problems(manifest(tmp_path, row(onset="x", apex="y"), row(clip_id="", path="..")))
    assert [line.split(": ")[0] for line in two] == ["clips.csv:2"] * 2 + ["clips.csv:3"] * 2
    many = problems(manifest(tmp_path, *(row(clip_id=f"c{n}", onset="x") for n in range(MAX_PROBLEMS + 7))))
    assert len(many) == MAX_PROBLEMS + 1
    assert many[-1] == "... and 7 more."


def test_duplicate_ids_name_both_lines(tmp_path: Path):
    found = problems(manifest(tmp_path, row(), row(clip_id="other"), row(), row(clip_id=" c1 ")))
    assert len(found) == 2
    assert "clips.csv:4: clip_id must be unique; got 'c1', which stands in line 2 too." in found[0]
    assert "clips.csv:5: " in found[1]
    assert "line 2" in found[1]


def test_ids_that_look_the_same_are_duplicates(tmp_path: Path):
    (found,) = problems(manifest(tmp_path, row(clip_id="\u00e9"), row(clip_id="e\u0301")))
    assert "which stands in line 2 too" in found


def test_paths_keep_the_bytes_of_the_disk(tmp_path: Path):
    (clip,) = read_manifest(manifest(tmp_path, row(path="e\u0301/c1", subject="e\u0301")))
    assert clip.path == "e\u0301/c1"
    assert clip.subject == "\u00e9"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("clip_id,path,onset,apex,offset,subject,dataset", "Add: label."),
        ("", "header must name"),
        (HEADER.replace(",", ";"), "with commas between its fields"),
        (HEADER.replace(",", "\t"), "with commas between its fields"),
        (HEADER.replace("clip_id", "Clip ID"), "Rename Clip ID to clip_id"),
        (HEADER + ",au,au", "column names must be unique; got au twice"),
        (HEADER + ",,", "column names must not be empty"),
        (HEADER + ",a\0b", "column names must be at most"),
    ],
)
def test_header_problems_stop_before_the_rows(tmp_path: Path, header: str, message: str):
    (found,) = problems(manifest(tmp_path, row(onset="x"), header=header))
    assert found.startswith("clips.csv:1: ")
    assert message in found


@pytest.mark.parametrize("rows", [(), ("",)])
def test_manifest_without_clips_is_refused(tmp_path: Path, rows: tuple[str, ...]):
    assert "must name at least one clip" in problems(manifest(tmp_path, *rows))[0]


def test_empty_file_lacks_its_header(tmp_path: Path):
    (tmp_path / "clips.csv").touch()
    assert "header must name" in problems(tmp_path / "clips.csv")[0]


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 20_002), ("utf-16", 1)])
def test_other_encodings_are_refused_with_their_line(tmp_path: Path, encoding: str, line: int):
    path = tmp_path / "clips.csv"
    rows = [row(clip_id=f"c{number}") for number in range(20_000)]
    path.write_bytes("\n".join([HEADER, *rows, row(label="dégoût")]).encode(encoding))
    (found,) = problems(path)
    assert found.startswith(f"clips.csv:{line}: manifest must be UTF-8")


def test_broken_quotes_are_named_after_the_problems_before_them(tmp_path: Path):
    found = problems(manifest(tmp_path, row(onset="x"), row(clip_id="b", label='"open'), row(clip_id="c")))
    assert found[0].startswith("clips.csv:2: onset")
    assert found[1].startswith("clips.csv:3: row must be CSV")


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_manifest_that_cannot_be_opened_is_named(tmp_path: Path, name: str):
    assert "manifest must be a readable CSV file" in problems(tmp_path / name)[0]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("~/clips", "absolute"),
        ("..", "leads upwards"),
        ("a/../../b", "leads upwards"),
        ("a\\b", "backslash"),
        ("C:/clips/1", "a URL or a protocol"),
        ("http://host/a.mp4", "a URL or a protocol"),
        ("sub/http://host/a.mp4", "a URL or a protocol"),
        ("pipe:cat", "a URL or a protocol"),
        ("concat:a.mp4|b.mp4", "a URL or a protocol"),
        ("img%02d.png", "a number pattern"),
        ("s01/%d.png", "a number pattern"),
        ("a\0b", "a NUL character"),
        ("s01/EP02 01f/..hidden", ""),
        ("s01/100%/c.1", ""),
        ("子/clip ü.mp4", ""),
        (".", ""),
    ],
)
def test_paths_name_something_under_the_root_or_are_refused(path: str, reason: str):
    assert path_problem(path) == reason


def test_row_hash_covers_everything_but_the_place(tmp_path: Path):
    (clip,) = read_manifest(manifest(tmp_path, row()))
    assert dataclasses.replace(clip, line=99).row_hash() == clip.row_hash()
    changes = {
        "clip_id": "x",
        "path": "x",
        "onset": 1,
        "apex": None,
        "offset": 99,
        "subject": "x",
        "dataset": "x",
        "label": "x",
        "fps": 1.0,
        "source_hash": "x",
        "extra": (("a", "b"),),
    }
    assert {*changes, "line"} == {field.name for field in dataclasses.fields(Clip)}
    hashes = {dataclasses.replace(clip, **{name: value}).row_hash() for name, value in changes.items()}
    assert len(hashes | {clip.row_hash()}) == len(changes) + 1


AWKWARD = (
    "8.0",
    " 7 ",
    "08",
    ".0",
    "8.0.0",
    "\u0664",
    "-1",
    "",
    "e\u0301",
    "\u00e9",
    "\u3000x",
    "a b",
    "x\u200b",
    '"q, 1"',
    "/a",
    "~",
    "a/../b",
    "a..b",
    "a:b",
    "1" * 10,
)


@pytest.mark.parametrize("header", [HEADER, "fps,label,Zone," + HEADER.replace(",label", "") + ",au,source_hash"])
@pytest.mark.parametrize("cell", AWKWARD)
def test_the_short_way_and_the_careful_one_agree_on_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, cell: str
):
    """Each awkward text in each column in turn: as clips, or as the same words."""
    columns = header.split(",")
    rows = []
    for number, awkward in enumerate(columns):
        cells = {**dict.fromkeys(columns, "ABC"), "fps": "200", **GOOD, "clip_id": f"c{number}", awkward: cell}
        rows.append(",".join(cells[name] for name in columns))
    path = manifest(tmp_path, *rows, header=header)

    def outcome() -> list[object] | str:
        try:
            return [(clip.row_hash(), clip.line) for clip in read_manifest(path)]
        except ManifestError as error:
            return str(error)

    quick = outcome()
    monkeypatch.setattr("flowkit.inputs.manifest._is_plain", lambda text: False)
    assert outcome() == quick


def test_lines_are_counted_over_quoted_line_breaks(tmp_path: Path):
    header = HEADER + ',"two\nlines"'
    (found,) = problems(manifest(tmp_path, row() + ",x", header=header))
    assert "column names must be" in found
    path = manifest(tmp_path, row(label='"a\nb"'), row(onset="x"), "", row(onset="y"))
    assert [text.split(": ")[0] for text in problems(path)] == ["clips.csv:3", "clips.csv:4", "clips.csv:6"]


def test_texts_that_repeat_are_kept_once(tmp_path: Path):
    first, second = read_manifest(manifest(tmp_path, row(), row(clip_id="c2")))
    assert first.subject is second.subject
    assert first.label is second.label


def test_many_rows_take_seconds_not_minutes(tmp_path: Path):
    rows = [row(clip_id=f"casme2_sub01_EP{number:06d}", path=f"sub01/EP{number:06d}") for number in range(100_000)]
    path = manifest(tmp_path, *rows)
    start = time.process_time()
    assert len(read_manifest(path)) == 100_000
    assert time.process_time() - start < 10  # 0.7 s on a busy core


def given(onset: int, apex: int | None, offset: int | None) -> Clip:
    return Clip("c1", "p", onset, apex, offset, "s", "d", "joy", line=7)


@pytest.mark.parametrize(
    ("numbers", "policies", "expected"),
    [
        ((1, 5, 9), {}, (1, 5, 9, "annotated", (True, True))),
        ((1, 1, 9), {}, (1, 1, 9, "annotated", (False, True))),
        ((1, 9, 9), {}, (1, 9, 9, "annotated", (True, False))),
        ((4, 4, 4), {}, (4, 4, 4, "annotated", (False, False))),
        ((1, None, 10), {"missing_apex": "midpoint"}, (1, 5, 10, "midpoint", (True, True))),
        ((1, None, 2), {"missing_apex": "midpoint"}, (1, 1, 2, "midpoint", (False, True))),
        ((1, None, 9), {"missing_apex": "offset"}, (1, 9, 9, "offset", (True, False))),
        ((1, 5, 9), {"missing_apex": "midpoint"}, (1, 5, 9, "annotated", (True, True))),
        ((1, 5, None), {"missing_offset": "invalid"}, (1, 5, None, "annotated", (True, False))),
        ((1, 1, None), {"missing_offset": "invalid"}, (1, 1, None, "annotated", (False, False))),
    ],
)
def test_policies_decide_the_key_frames(numbers, policies, expected):
    key = key_frames(given(*numbers), **policies)
    assert (key.onset, key.apex, key.offset, key.apex_source, key.phase_valid) == expected


@pytest.mark.parametrize(
    ("numbers", "policies", "code"),
    [
        ((1, None, 9), {}, FailureCode.APEX_MISSING),
        ((1, 5, None), {}, FailureCode.OFFSET_MISSING),
        ((1, None, None), {"missing_apex": "midpoint", "missing_offset": "invalid"}, FailureCode.APEX_MISSING),
        ((5, 4, 9), {}, FailureCode.ANNOTATION_RANGE),
        ((5, 10, 9), {}, FailureCode.ANNOTATION_RANGE),
        ((9, 5, 1), {}, FailureCode.ANNOTATION_RANGE),
        ((9, None, 1), {"missing_apex": "midpoint"}, FailureCode.ANNOTATION_RANGE),
        ((9, None, 1), {"missing_apex": "offset"}, FailureCode.ANNOTATION_RANGE),
        ((5, 4, None), {"missing_offset": "invalid"}, FailureCode.ANNOTATION_RANGE),
        ((1, 1, 9), {"strict_phases": True}, FailureCode.PHASE_INVALID),
        ((1, 9, 9), {"strict_phases": True}, FailureCode.PHASE_INVALID),
        ((1, 5, None), {"missing_offset": "invalid", "strict_phases": True}, FailureCode.PHASE_INVALID),
    ],
)
def test_impossible_annotations_fail_that_clip_alone(numbers, policies, code: FailureCode):
    with pytest.raises(ClipError) as caught:
        key_frames(given(*numbers), **policies)
    assert caught.value.code == code
    assert caught.value.message.startswith("line 7 (c1): ")


def test_what_spreadsheets_write_is_understood(tmp_path: Path) -> None:
    """Whole numbers as 8.0 beside empty cells, and rows of commas at the end."""
    path = tmp_path / "clips.csv"
    path.write_text(f"{HEADER}\na,a,8.0,,20.0,s,d,x\n,,,,,,,\n")
    (clip,) = read_manifest(path)
    assert (clip.onset, clip.apex, clip.offset) == (8, None, 20)
