"""`flowkit manifest videos`: own recordings become rows whose three frames are found, and whose label says that nobody gave one."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import av
import made_up
import pytest
from PIL import Image

from conftest import flowkit
from flowkit.datasets.own_recordings import find_recordings, list_videos
from flowkit.errors import ManifestError
from flowkit.inputs.manifest import read_manifest
from flowkit.labels.class_maps import UNLABELLED
from flowkit.synthetic.recordings import RecordingConfig, record


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person as a video and as images, a wall, and something that is no recording."""
    folder = tmp_path_factory.mktemp("own")
    config = RecordingConfig(subjects=1, seconds=9.0, width=160, height=160, noise=1.0, seed=3, format="mkv")
    video = record(folder / "synth", config).with_name("s01.mkv")
    root = folder / "recordings"
    (root / "anna").mkdir(parents=True)
    video.rename(root / "anna" / "first take.mkv")
    (root / "ben").mkdir()
    with av.open(str(root / "anna" / "first take.mkv")) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            Image.fromarray(frame.to_ndarray(format="gray")).save(root / "ben" / f"{number}.png")
    made_up.frames(root / "wall", range(1, 30), "{}.png", empty=False)
    (root / "notes.txt").write_text("not a recording")
    return root


def test_every_recording_is_a_row_without_a_label(recordings: Path) -> None:
    clips, events = list_videos(recordings)
    assert [clip.clip_id for clip in clips] == ["videos/anna/first take.mkv", "videos/ben", "videos/wall"]
    assert [clip.subject for clip in clips] == ["anna", "ben", "wall"]
    assert {(clip.dataset, clip.label, clip.apex, clip.offset) for clip in clips} == {
        ("videos", UNLABELLED, None, None)
    }
    assert clips[0].onset == 0
    assert clips[2].onset == 1
    assert events == []


def test_the_surest_expression_of_each_is_found(recordings: Path, tmp_path: Path) -> None:
    before, out = made_up.tree(recordings), tmp_path / "own.csv"
    done = flowkit("manifest", "videos", recordings, "--out", out)
    assert done.code == 1  # a wall has no face
    video, folder, wall = read_manifest(out)
    for clip in (video, folder):
        assert clip.apex is not None
        assert clip.offset is not None
        assert clip.onset + 1 < clip.apex < clip.offset
        extra = dict(clip.extra)
        assert (extra["apex_source"], extra["spot_problem"]) == ("spotted", "")
        assert 0.4 <= float(extra["apex_confidence"]) <= 1
    assert [one - 1 for one in (folder.onset, folder.apex, folder.offset)] == [video.onset, video.apex, video.offset]
    extras = [{name: value for name, value in clip.extra if not name.endswith("_s")} for clip in (folder, video)]
    assert extras[0] == extras[1]  # the same pixels, and the images count from 1
    assert (wall.apex, dict(wall.extra)["apex_source"]) == (None, "")
    assert dict(wall.extra)["spot_problem"].startswith("FACE_NOT_FOUND: wall: recording must show a face; got none")
    check = shlex.split(done.out.splitlines()[-2])
    checked = flowkit(*check[1:])
    assert checked.code == 1
    assert "nothing was spotted in this recording: FACE_NOT_FOUND" in checked.out
    assert "Fill it in" not in checked.out
    assert made_up.tree(recordings) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv"], "what was kept for resuming is gone"


def test_what_does_not_belong_to_it_is_refused(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.csv"
    for arguments in (("--classes", "raw"), ("--workbook", "a.xlsx"), ("--root", "casme2=x")):
        done = flowkit("manifest", "videos", recordings, "--out", out, *arguments)
        assert (done.code, "a folder alone must follow" in done.err) == (2, True)
    inside = flowkit("manifest", "videos", recordings, "--out", recordings / "own.csv")
    assert (inside.code, "must lie outside the data set" in inside.err) == (2, True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ManifestError,
        match=r"must hold videos \(.mp4, .m4v, .mov, .3gp, .avi, .mkv, .webm, .gif\) or folders of numbered images",
    ):
        list_videos(tmp_path / "empty")


def test_json_has_every_interval_and_the_next_commands(recordings: Path, tmp_path: Path) -> None:
    done = flowkit("manifest", "videos", recordings / "anna", "--out", tmp_path / "own.csv", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    (recording,) = found["recordings"]
    assert (recording["path"], recording["frames"]) == ("first take.mkv", 270)
    assert any(one["kind"] in ("micro", "macro") for one in recording["intervals"])
    assert found["next"][1].startswith("flowkit extract ")


def test_the_rate_of_images_can_be_given_and_is_for_videos_alone(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "ben").symlink_to(recordings / "ben")
    out = tmp_path / "own.csv"
    done = flowkit("manifest", "videos", tmp_path / "root", "--out", out, "--fps", "60", "--follow-symlinks")
    assert (done.code, read_manifest(out)[0].fps) == (0, 60)
    refused = flowkit("manifest", "casme2", recordings, "--out", tmp_path / "other.csv", "--fps", "60")
    assert (refused.code, "--fps is for videos alone" in refused.err) == (2, True)


def test_images_whose_numbers_are_too_large_are_named(recordings: Path, tmp_path: Path) -> None:
    made_up.frames(tmp_path / "times", range(1_700_000_000, 1_700_000_005), "{}.png")
    with pytest.raises(ManifestError, match=r"times: images must have frame numbers of at most 999,999,999"):
        list_videos(tmp_path)
    with pytest.raises(ManifestError, match=r"times: images must have frame numbers of at most 999,999,999"):
        find_recordings([tmp_path / "times"])
    shutil.copy(recordings / "anna" / "first take.mkv", tmp_path / "good.mkv")
    clips, events = list_videos(tmp_path)
    assert [clip.path for clip in clips] == ["good.mkv"]
    assert [(event.kind, event.clip) for event in events] == [("left out", "times")]


def test_videos_that_are_not_read_are_named(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.wmv").write_bytes(b"...")
    with pytest.raises(ManifestError, match=r"one.wmv: .wmv is not read. Convert it: ffmpeg"):
        list_videos(tmp_path / "clips")
    (tmp_path / "clips" / "anna.mp4").symlink_to(recordings / "anna" / "first take.mkv")
    clips, events = list_videos(tmp_path / "clips")
    assert [clip.path for clip in clips] == ["anna.mp4"]
    assert [(event.kind, event.clip) for event in events] == [("left out", "one.wmv")]


def test_linked_folders_are_listed_if_asked_and_named_if_not(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "anna").symlink_to(recordings / "anna")
    said = "a link to a folder is not followed. Pass --follow-symlinks"
    with pytest.raises(ManifestError, match=f"got none. .*: {said}"):
        list_videos(tmp_path)
    shutil.copy(recordings / "anna" / "first take.mkv", tmp_path / "good.mkv")
    _, (event,) = list_videos(tmp_path)
    assert event.message.startswith(said)
    clips, _ = list_videos(tmp_path, follow_symlinks=True)
    assert [clip.clip_id for clip in clips] == ["videos/anna/first take.mkv", "videos/good.mkv"]
