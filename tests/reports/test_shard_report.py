"""The report is one harmless file that tells the truth about a folder, damaged or not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flowkit
import version_0_1
from conftest import SIZE
from flowkit.errors import ConfigError, FailureCode
from flowkit.execution.progress import Silent
from flowkit.execution.stop import Stop
from flowkit.extraction.shares import Share
from flowkit.reports.parts import MAX_ROWS
from flowkit.reports.shard_contents import spread
from flowkit.reports.shard_quality import NOTES
from flowkit.reports.shard_report import ReportResult, write_report
from flowkit.storage import durable_files
from flowkit.storage.quality import Flag
from shard_builder import LABELS, build_folder
from web_page import Page

HOSTILE = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 clips in 5 shards, 3 failures; read-only by agreement."""
    return build_folder(tmp_path_factory.mktemp("report") / "out", clips=9, failures=3)


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(folder).path)


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def pictures(result: ReportResult) -> int:
    """Panels of clips on the page."""
    images = re.findall(r'<img [^>]*alt="([^"]+)"', result.path.read_text())
    return sum(name != "colour wheel" and not name.startswith("head in ") for name in images)


def heads(result: ReportResult) -> list[str]:
    """Pictures of the head's motion."""
    return re.findall(r'<img [^>]*alt="(head in [^"]+)"', result.path.read_text())


def test_the_counts_are_those_of_the_folder(page: Page) -> None:
    for count, name in ((9, "clips ok"), (3, "clips failed"), (2, "data sets"), (9, "subjects"), (5, "shards")):
        assert f"{count} {name}" in page.text
    assert "1 with an invalid phase" in page.text
    assert ["happiness", "2", "1", "3"] in page.rows
    assert ["all", "5", "4", "9"] in page.rows
    assert ["beta", "s00", "1", "surprise 1"] in page.rows


def test_failures_and_notes_are_counted_and_explained(page: Page) -> None:
    assert ["FACE_NOT_FOUND", "2", FailureCode.FACE_NOT_FOUND.meaning] in page.rows
    assert ["FRAME_MISSING", "1", FailureCode.FRAME_MISSING.meaning] in page.rows
    assert any(row[:2] == ["fail-002", "FACE_NOT_FOUND"] and "got something else" in row[2] for row in page.rows)
    assert ["MANY_FACES", "1", NOTES[Flag.MANY_FACES]] in page.rows
    assert any(row[:2] == ["invalid fall", "1"] for row in page.rows)


def test_quality_figures_leave_invalid_phases_out(page: Page) -> None:
    assert "rise: median 0.10 px, 95th percentile 0.94 px, largest 1.50 px; above 0.3 px: 1 of 9" in page.text
    assert "fall: median 0.05 px, 95th percentile 0.15 px, largest 0.20 px; above 0.3 px: 0 of 8" in page.text
    assert ["onset to offset", "shift", "0.50 px", "0.50 px", "0.50 px"] in page.rows
    assert ["onset to apex", "yaw", "2.40 deg", "4.56 deg", "4.80 deg"] in page.rows  # (0.5 + 0.1) degrees times 0 to 8
    assert ["onset to offset", "pitch", "1.46 deg", "2.49 deg", "2.60 deg"] in page.rows  # without clip 1
    assert ["rise", "separation", "0.20 px", "0.38 px", "0.40 px"] in page.rows


def test_a_folder_of_version_0_1_shows_what_it_has(folder: Path, tmp_path: Path) -> None:
    old = shutil.copytree(folder, tmp_path / "old")
    version_0_1.write_anew(old)
    result = write_report(old)
    page = Page(result.path)
    assert result.corrupt == ()
    assert "rise: median 0.10 px" in page.text
    assert "separation" not in page.text
    assert heads(result) == []
    assert ["schema", "1"] in page.rows


def test_every_setting_version_and_limit_is_stated(page: Page) -> None:
    assert ["tvl1.lambda_", "0.15"] in page.rows
    assert ["align.size", "32"] in page.rows
    assert ["numpy", "2.4.6"] in page.rows
    assert ["backend", "cpu"] in page.rows
    assert "only the abstract and third-party summaries could be read" in page.text
    assert "MM-COF adds rise and fall unregistered, at most a pixel apart" in page.text


def test_the_page_is_one_file_that_asks_for_nothing_else(page: Page) -> None:
    allowed = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+|failures\.csv")
    assert page.addresses
    assert all(allowed.fullmatch(address) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert page.open == []


def test_the_same_folder_gives_the_same_page(folder: Path, tmp_path: Path) -> None:
    first = write_report(folder).path.read_bytes()
    assert write_report(folder).path.read_bytes() == first


def test_what_a_manifest_says_never_becomes_markup(tmp_path: Path) -> None:
    out = build_folder(tmp_path / "out", clips=2, labels=(HOSTILE, '"><img src=x onerror=y>'))
    result = write_report(out)
    page = Page(result.path)
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert [HOSTILE, "1", "0", "1"] in page.rows
    assert "x" not in page.addresses


@pytest.mark.parametrize(("keep_faces", "panels"), [(False, 3), (True, 6)])
def test_faces_are_shown_only_where_the_shards_keep_them(tmp_path: Path, keep_faces: bool, panels: int) -> None:
    result = write_report(build_folder(tmp_path / "out", clips=2, keep_faces=keep_faces))
    assert pictures(result) == 2 * panels
    assert ("treat it as personal data" in Page(result.path).text) == keep_faces


def test_the_motion_of_the_head_that_was_taken_out_is_pictured_where_it_is_known(tmp_path: Path) -> None:
    result = write_report(build_folder(tmp_path / "out", clips=3, failures=0))
    assert heads(result) == [*["head in rise", "head in fall"] * 2, "head in rise"]  # the fall of one clip is invalid
    text = Page(result.path).text
    assert "the motion of the head that was taken out" in text
    # Clip 2: turns of 1 and -0.5 degrees at the apex were undone, 0.2 and -0.4 subtracted.
    assert re.search(r"rise: 0\.\d\d px undone, 0\.\d\d px subtracted; separation 0\.10 px", text)


def test_the_pictured_clips_cover_every_data_set_and_label_first(tmp_path: Path) -> None:
    result = write_report(build_folder(tmp_path / "out", clips=24, failures=0, shard_clips=24), clips=6)
    text = result.path.read_text()
    shown = set(re.findall(r"<p>(\w+) · (\w+)/", text))
    assert shown == {(label, dataset) for label in LABELS for dataset in ("alpha", "beta")}
    assert pictures(result) == 6 * 3


def test_labels_take_turns_each_with_the_subject_shown_least() -> None:
    clips = [
        {"clip_id": f"{subject}-{label}-{take}", "dataset": "alpha", "label": label, "subject": subject}
        for subject in ("s1", "s2", "s3")
        for label in ("anger", "fear")
        for take in range(2)
    ]
    chosen = [clip["clip_id"] for clip in spread(reversed(clips), 4)]
    assert chosen == ["s1-anger-0", "s2-fear-0", "s3-anger-0", "s1-fear-0"]
    assert len(spread(clips, 100)) == len(clips)


def test_a_corrupt_shard_is_named_in_red_and_the_rest_is_shown(folder: Path, tmp_path: Path) -> None:
    out = copy(folder, tmp_path)
    shard = sorted(out.rglob("*.h5"))[1]
    image = bytearray(shard.read_bytes())
    image[len(image) // 2] ^= 1
    shard.write_bytes(image)
    result = write_report(out)
    (message,) = result.corrupt
    assert shard.name in message
    page = Page(result.path)
    assert "1 damaged" in page.text
    assert message in page.text
    assert 'class="alarm"' in result.path.read_text()
    assert pictures(result) == 7 * 3
    assert "1 damaged" not in Page(write_report(folder).path).text


def test_a_shard_that_is_cut_short_is_named_too(folder: Path, tmp_path: Path) -> None:
    out = copy(folder, tmp_path)
    shard = sorted(out.rglob("*.h5"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    (message,) = write_report(out).corrupt
    assert "000000.json" in message


def test_a_folder_without_a_good_clip_has_a_report(tmp_path: Path) -> None:
    result = write_report(build_folder(tmp_path / "out", clips=0, failures=2))
    assert result.corrupt == ()
    assert "0 clips ok" in Page(result.path).text


def test_no_clip_pictured_if_none_is_wanted(folder: Path, tmp_path: Path) -> None:
    assert Page(write_report(copy(folder, tmp_path), clips=0).path).tags.count("img") == 0


def test_a_long_list_of_failures_is_cut_and_counted(tmp_path: Path) -> None:
    page = Page(write_report(build_folder(tmp_path / "out", clips=1, failures=MAX_ROWS + 3, shard_clips=300)).path)
    assert sum(row[0].startswith("fail-") for row in page.rows) == MAX_ROWS
    assert "... and 3 more." in page.text


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold the shards of an extraction"):
        write_report(tmp_path)


def test_every_code_and_note_has_words() -> None:
    assert all(code.meaning.endswith(".") for code in FailureCode)
    assert set(NOTES) == set(Flag)


def test_a_report_leaves_no_temporary_file(folder: Path) -> None:
    write_report(folder)
    assert list(durable_files._temporaries(folder)) == []


def test_an_extraction_from_python_leaves_a_report_as_the_command_does(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    config = flowkit.load_config(None, ["align.method=none", f"align.size={SIZE}", "shard.clips=5"])
    stop = Stop()
    stop.request()
    assert flowkit.extract(cropped, tmp_path / "stopped", config, stop=stop).stopped is not None
    assert not (tmp_path / "stopped" / "report.html").exists()  # it would show a folder that is not done
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / "report.html").unlink()
    flowkit.extract(cropped, out, config, flowkit.RunOptions(share=Share(0, 1)))
    assert not (out / "report.html").exists()  # other shares may not be done
    told = Told()
    flowkit.extract(cropped, out, config, reporter=told)
    assert told.notes[-1] == f"Report: {out / 'report.html'}"
    assert "smile_frown" in (out / "report.html").read_text()
    (out / "report.html").write_bytes(b"older")
    flowkit.extract(cropped, out, config)
    assert (out / "report.html").read_bytes() == b"older"  # nothing was computed since


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_page_is_no_part_of_what_an_import_costs() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from flowkit import RunOptions, extract, load_config\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith('flowkit.reports.')) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
