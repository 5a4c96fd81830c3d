"""`flowkit manifest videos`: own recordings become rows whose three frames are found, and whose label says that nobody gave one."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import made_up
import pytest

from conftest import flowkit
from flowkit.datasets.own_recordings import list_videos
from flowkit.errors import ManifestError
from flowkit.inputs.manifest import read_manifest
from flowkit.labels.class_maps import UNLABELLED
from flowkit.synthetic.dataset import SynthConfig, synthesise


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of an expression between still frames, one of no face, and something that is none."""
    folder = tmp_path_factory.mktemp("own")
    for form in ("mkv", "png"):
        config = SynthConfig(
            motion="bumps",
            subjects=1,
            classes=("surprise",),
            format=form,
            rest_frames=12,
            phase_frames=(8, 12),
            peak_px=(2.0, 2.5),
            seed=4,
        )
        synthesise(folder / form, config)
    root = folder / "recordings"
    (root / "anna").mkdir(parents=True)
    next((folder / "mkv").rglob("*.mkv")).rename(root / "anna" / "first take.mkv")
    next(path for path in (folder / "png" / "frames").rglob("*") if any(path.glob("*.png"))).rename(root / "ben")
    made_up.frames(root / "wall", range(1, 9), "{}.png", empty=False)
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


def test_the_strongest_movement_of_each_is_found(recordings: Path, tmp_path: Path) -> None:
    before, out = made_up.tree(recordings), tmp_path / "own.csv"
    done = flowkit("manifest", "videos", recordings, "--out", out)
    assert done.code == 1  # a wall has no face
    assert "3 clips: 0 had an apex, 2 spotted, 1 failed." in done.out
    video, folder, wall = read_manifest(out)
    for clip in (video, folder):
        assert clip.apex is not None
        assert clip.offset is not None
        assert clip.onset < clip.apex < clip.offset
        assert dict(clip.extra)["apex_source"] == "spotted"
        assert 0 < float(dict(clip.extra)["apex_confidence"]) <= 1
    assert video.onset - 0 == pytest.approx(12, abs=8)  # the still frames before the movement
    assert wall.apex is None
    check = shlex.split(done.out.splitlines()[-2])
    assert flowkit(*check[1:]).code == 1  # the wall's row, still empty
    assert made_up.tree(recordings) == before


def test_what_does_not_belong_to_it_is_refused(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.csv"
    for arguments in (("--classes", "raw"), ("--workbook", "a.xlsx"), ("--root", "casme2=x")):
        done = flowkit("manifest", "videos", recordings, "--out", out, *arguments)
        assert (done.code, "a folder alone must follow" in done.err) == (2, True)
    inside = flowkit("manifest", "videos", recordings, "--out", recordings / "own.csv")
    assert (inside.code, "must lie outside the data set" in inside.err) == (2, True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ManifestError, match=r"must hold videos \(.mp4, .avi, .mov, .mkv\) or folders of numbered images"
    ):
        list_videos(tmp_path / "empty")


def test_json_has_the_curves_and_the_next_commands(recordings: Path, tmp_path: Path) -> None:
    done = flowkit("manifest", "videos", recordings / "anna", "--out", tmp_path / "own.csv", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    ((name, spotted),) = found["spotted"].items()
    assert name == "videos/first take.mkv"
    assert len(spotted["frames"]) == len(spotted["curve"])
    assert found["next"][1].startswith("flowkit extract ")


def test_linked_folders_are_listed_if_asked_and_named_if_not(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "anna").symlink_to(recordings / "anna")
    with pytest.raises(
        ManifestError, match=r"got none; 1 links to folders, which are not followed. Pass --follow-symlinks"
    ):
        list_videos(tmp_path)
    clips, _ = list_videos(tmp_path, follow_symlinks=True)
    assert [clip.clip_id for clip in clips] == ["videos/anna/first take.mkv"]
