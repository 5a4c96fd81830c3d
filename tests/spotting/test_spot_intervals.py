"""`flowkit spot-intervals` and `spot-score` as a user calls them: what is found, resumed, refused and said."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import shutil
import signal
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from conftest import flowkit, start
from flowkit.inputs import recording_frames
from flowkit.inputs.manifest import read_manifest
from flowkit.spotting.course import Course
from flowkit.storage.folder import ShardFolder
from flowkit.synthetic.recordings import RecordingConfig, record, recordings

Frames = list[npt.NDArray[np.uint8]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video of 24 s, its true expressions and events."""
    config = RecordingConfig(subjects=1, seconds=24.0, width=200, height=200, noise=1.0, seed=11)
    return record(tmp_path_factory.mktemp("recording") / "set", config).parent


@pytest.fixture(scope="module")
def found(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is found in it."""
    out = tmp_path_factory.mktemp("found") / "found.csv"
    done = flowkit("spot-intervals", recording / "s01.mp4", "--out", out)
    assert done.code == 0, done.err
    return out


def decoded(video: Path, pixels: str = "rgb24") -> Frames:
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format=pixels) for frame in container.decode(video=0)]


def write(path: Path, frames: Frames, fps: int = 30, pixels: str = "yuv420p") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray" if frame.ndim == 2 else "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def person(recording: Path) -> Frames:
    """Three seconds of a face."""
    return decoded(recording / "s01.mp4")[:90]


def searched(*sources: Path, out: Path, more: tuple[str, ...] = ()) -> tuple[int, list[dict[str, object]], str]:
    done = flowkit("spot-intervals", *sources, "--out", out, "--json", *more)
    return done.code, json.loads(done.out)["recordings"], done.err


def test_most_expressions_are_found_and_few_others(recording: Path, found: Path) -> None:
    done = flowkit("spot-score", recording / "manifest.csv", found, "--json")
    scores = json.loads(done.out)["kinds"]
    assert scores["all"]["true"] == 5
    assert scores["all"]["hits"] >= 3
    assert scores["micro"]["found"] - scores["micro"]["hits"] <= 1


def test_blinks_are_told_and_are_no_expressions(recording: Path, found: Path) -> None:
    with (recording / "events.csv").open(newline="") as file:
        true = [int(row["apex"]) for row in csv.DictReader(file) if row["kind"] == "blink"]
    (one,) = json.loads(found.with_suffix(".json").read_text())["recordings"]
    apexes = [interval["apex"] for interval in one["intervals"] if interval["kind"] == "blink"]
    assert all(min(abs(apex - one) for one in apexes) <= 2 for apex in true)
    assert len(apexes) <= len(true) + 1


def test_the_curve_is_as_long_as_the_recording_and_rises_where_something_moves(found: Path) -> None:
    (one,) = json.loads(found.with_suffix(".json").read_text())["recordings"]
    curve, every = one["curve"]["motion_px"], one["curve"]["frames_per_value"]
    assert (len(curve), every, one["frames"], one["used_frames"]) == (720, 1, 720, 720)
    at_apexes = [curve[interval["apex"]] for interval in one["intervals"] if interval["kind"] != "blink"]
    assert np.median(at_apexes) > np.median(curve)


def test_extract_takes_what_was_found(recording: Path, found: Path, tmp_path: Path) -> None:
    done = flowkit("extract", found, "--root", recording, "--out", tmp_path / "out", "--size", "96")
    assert done.code == 0, done.err
    (shard,) = ShardFolder.open(tmp_path / "out").shards()
    clips = read_manifest(found)
    assert [(one["onset"], one["apex"], one["offset"]) for one in shard.samples()] == [
        (clip.onset, clip.apex, clip.offset) for clip in clips
    ]
    assert {one["apex_source"] for one in shard.samples()} == {"spotted"}
    assert json.loads(next(iter(shard.samples()))["extra"])["kind"] in ("micro", "macro")


def test_images_give_what_their_video_gives(recording: Path, tmp_path: Path) -> None:
    """The video says when its frames are to the millisecond, the images to the frame."""
    frames = decoded(recording / "s01.mp4", "gray")[:240]
    write(tmp_path / "video.mkv", frames, pixels="gray")
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:04d}.png", compress_level=1)
    found = []
    for source in (tmp_path / "images", tmp_path / "video.mkv"):
        _, (one,), _ = searched(source, out=tmp_path / "found.csv", more=("--fps", "30", "--overwrite"))
        found.append((one["frames"], one["used_frames"], one["intervals"]))
    assert found[0] == found[1]
    assert len(found[0][2]) >= 2


def test_any_number_of_workers_and_any_interruption_give_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    """Four recordings, so that there is something to interrupt."""
    root = tmp_path / "videos"
    root.mkdir()
    for number in range(4):
        write(root / f"{number}.mkv", decoded(recording / "s01.mp4")[120 * number :][:200])
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert flowkit("spot-intervals", root, "--out", one, "--workers", "1").code == 0
    running = start("spot-intervals", root, "--out", two, "--workers", "2")
    parts = tmp_path / "two.csv.parts"
    while not list(parts.glob("*.npz")):
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode == 130
    assert "what was committed stays. Run the same command again to go on." in said
    assert not two.exists()
    kept = len(list(parts.glob("*.npz")))
    (parts / "000000-000000.npz").write_bytes(b"damaged")
    again = flowkit("spot-intervals", root, "--out", two, "--workers", "2")
    assert again.code == 0, again.err
    assert f"Resuming: {kept - 1} of 4 parts were read before." in again.err or kept == 1
    assert two.read_bytes() == one.read_bytes()
    assert two.with_suffix(".json").read_bytes() == one.with_suffix(".json").read_bytes()
    assert not parts.exists()


def test_parts_of_another_search_are_not_taken(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    (tmp_path / "found.csv.parts").mkdir()
    (tmp_path / "found.csv.parts" / "plan.txt").write_text("flowkit spot-intervals\n{}")
    done = flowkit("spot-intervals", recording / "s01.mp4", "--out", out)
    assert (done.code, "a search that was stopped lies there, of other recordings" in done.err) == (2, True)
    assert flowkit("spot-intervals", recording / "s01.mp4", "--out", out, "--overwrite").code == 0


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_none_of_ours_is_never_removed(recording: Path, tmp_path: Path, kind: str) -> None:
    parts, mine = tmp_path / "found.csv.parts", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    if kind == "folder":
        mine.rename(parts)
    elif kind == "file":
        parts.write_text("precious")
    else:
        parts.symlink_to(mine)
    done = flowkit("spot-intervals", recording / "s01.mp4", "--out", tmp_path / "found.csv", "--overwrite")
    assert (done.code, "got something else of that name" in done.err) == (2, True), done.err
    kept = {"folder": parts / "thesis.txt", "file": parts, "link": mine / "thesis.txt"}[kind]
    assert kept.read_text() == "precious"


def test_a_recording_cut_into_parts_gives_nearly_the_same(
    recording: Path, found: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part has anchors of its own, and they meet in one frame."""
    from flowkit.config import AlignConfig, FrameConfig
    from flowkit.face.align import Aligner
    from flowkit.spotting.face_track import FaceTrack

    config = FrameConfig()
    courses = []
    for frames in (4000, 200):
        monkeypatch.setattr(recording_frames, "PART_FRAMES", frames)
        survey = recording_frames.survey("s01.mp4", recording, config)
        whole = Course.of(survey.fps)
        with Aligner(AlignConfig()) as aligner:
            for part in survey.parts:
                track = FaceTrack(aligner, "s01.mp4", survey.fps)
                course = track.course(recording_frames.frames_of(survey, part, recording, config))
                assert course.problems == ()
                whole = whole.followed_by(course)
        courses.append(whole)
    one, several = courses
    assert (len(one), len(several), several.frames["run"].max()) == (720, 720, 0)
    steps = [np.diff(course.frames["units"], axis=0) for course in courses]
    assert np.median(np.abs(steps[0] - steps[1])) < 0.02


def test_a_face_that_comes_and_goes_is_said_with_times(person: Frames, tmp_path: Path) -> None:
    wall = [np.full_like(person[0], 90)] * 60
    video = write(tmp_path / "comes.mkv", [*person, *wall, *person])
    code, (one,), said = searched(video, out=tmp_path / "found.csv")
    assert code == 0
    (span,) = one["unused"]
    assert (span["first"], span["first_s"]) == (90, 3.0)
    assert 149 <= span["last"] <= 152, "a face is looked for ten times a second"
    assert span["last_s"] == pytest.approx(span["last"] / 30, abs=0.01)
    assert one["used_frames"] == 240 - (span["last"] - 89)
    assert all(i["offset"] < 90 or i["onset"] >= 150 for i in one["intervals"])
    curve = json.loads((tmp_path / "found.json").read_text())["recordings"][0]["curve"]["motion_px"]
    assert [place for place, value in enumerate(curve) if value is None] == list(range(90, span["last"] + 1))
    assert "Error" not in said


def test_cuts_and_several_faces_are_said(person: Frames, tmp_path: Path) -> None:
    other = [np.ascontiguousarray(pixels[:, ::-1]) for pixels in person]
    beside = [np.concatenate(pair, axis=1) for pair in zip(person, other, strict=True)]
    alone = [np.concatenate([pixels, np.full_like(pixels, 60)], axis=1) for pixels in person]
    upside = [np.concatenate([np.full_like(pixels, 200), pixels], axis=1) for pixels in person]
    video = write(tmp_path / "cuts.mkv", [*alone, *upside, *beside])
    code, (one,), _ = searched(video, out=tmp_path / "found.csv")
    assert code == 0
    assert 90 in [cut["frame"] for cut in one["cuts"]]
    assert one["cuts"][0]["s"] == pytest.approx(one["cuts"][0]["frame"] / 30, abs=0.01)
    (span,) = one["several_faces"]
    assert 180 <= span["first"] <= 185
    assert span["last"] == 269
    assert {"several faces: the largest at first, then the one nearest to it, is followed"} <= set(one["notes"])


def test_something_before_the_face_hides_it_for_that_long(person: Frames, tmp_path: Path) -> None:
    hidden = [pixels.copy() for pixels in person]
    for pixels in hidden[40:50]:
        pixels[60:150, 70:130] = 128
    code, (one,), _ = searched(write(tmp_path / "hand.mkv", hidden), out=tmp_path / "found.csv")
    assert code == 0
    (span,) = one["unused"]
    assert abs(span["first"] - 40) <= 1
    assert abs(span["last"] - 49) <= 3
    assert span["why"] == "the face could not be followed: something hides it, or it moved too fast"


@pytest.mark.parametrize("yaw", [50.0, 75.0])
def test_a_face_that_is_turned_away_is_said(tmp_path: Path, yaw: float) -> None:
    (video,) = recordings(RecordingConfig(subjects=1, seconds=2.0, width=200, height=200, turn_deg=0.0, seed=5))
    turned = dataclasses.replace(video.subject, pose=np.array([yaw, 0.0, 0.0]))
    profile = dataclasses.replace(video, subject=turned)
    frames = [np.repeat(profile.render(t)[..., None], 3, axis=2) for t in range(20)]
    code, (one,), _ = searched(write(tmp_path / "profile.mkv", frames), out=tmp_path / "found.csv")
    assert code == 1
    assert one["problems"][0]["code"] == "FACE_NOT_FOUND"
    assert {span["why"] for span in one["unused"]} <= {"the face is turned away too far", "no face was found"}


@pytest.mark.parametrize("count", [1, 5, 14])
def test_too_short_a_recording_says_so(person: Frames, tmp_path: Path, count: int) -> None:
    code, (one,), said = searched(write(tmp_path / "short.mkv", person[:count]), out=tmp_path / "found.csv")
    assert code == 1
    (problem,) = one["problems"]
    assert (problem["code"], f"15 frames; got {count}" in problem["message"]) == ("APEX_MISSING", True)
    assert "must last at least half a second" in said
    assert read_manifest(tmp_path / "found.csv", allow_empty=True) == []


def test_what_cannot_be_searched_is_named_and_the_rest_is_searched(recording: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    shutil.copy(recording / "s01.mp4", root / "good.mp4")
    (root / "text.mp4").write_text("no video, whatever it is called")
    (root / "old.wmv").write_bytes(b"...")
    write(root / "wall.mkv", [np.full((120, 160, 3), 90, np.uint8)] * 40)
    code, recordings, said = searched(root, out=tmp_path / "found.csv")
    assert code == 1
    problems = {str(one["path"]): [problem["code"] for problem in one["problems"]] for one in recordings}  # type: ignore[attr-defined]
    assert problems == {"good.mp4": [], "text.mp4": ["VIDEO_FORMAT_REFUSED"], "wall.mkv": ["FACE_NOT_FOUND"]}
    assert "left out: old.wmv: .wmv is not read. Convert it" in said
    assert {clip.path for clip in read_manifest(tmp_path / "found.csv")} == {"good.mp4"}


def test_damage_amid_a_video_is_said_with_frame_and_time(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Path(shutil.copy(recording / "s01.mp4", tmp_path / "damaged.mp4"))
    with av.open(str(video)) as container:
        places = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    content = bytearray(video.read_bytes())
    content[places[400] : places[404]] = bytes(places[404] - places[400])
    video.write_bytes(content)
    code, (one,), said = searched(video, out=tmp_path / "found.csv")
    assert code == 1
    (problem,) = one["problems"]
    assert problem["code"] == "VIDEO_UNREADABLE"
    assert "got damage at frame" in problem["message"]
    (span,) = one["unused"]
    assert 350 <= span["first"] <= 405
    assert (span["last"], span["why"]) == (719, "the frame cannot be read")
    assert one["frames"] == 720
    assert "VIDEO_UNREADABLE" in said


def test_wrong_options_and_places_are_refused_before_anything_is_read(recording: Path, tmp_path: Path) -> None:
    video, out = recording / "s01.mp4", tmp_path / "found.csv"
    (tmp_path / "there.csv").write_text("precious")
    (tmp_path / "json.json").write_text("precious")
    for arguments, says in (
        ((video, "--out", out, "--fps", "0"), "fps must be from 1 to 10000; got 0"),
        ((video, "--out", out, "--least-confidence", "0"), "least_confidence must lie above 0"),
        ((video, "--out", out, "--workers", "-1"), "workers must be from 0 to 1024"),
        ((video, "--out", tmp_path), "must name a file; got a folder"),
        ((video, "--out", tmp_path / "found.json"), "must name a manifest, a .csv file"),
        ((video, "--out", video, "--overwrite"), "must name a manifest, a .csv file; got .mp4"),
        ((video, "--out", tmp_path / "there.csv"), "must not exist yet"),
        ((video, "--out", tmp_path / "json.csv"), "json.json: --out must not exist yet"),
        ((video, "--out", tmp_path / "no" / "found.csv"), "must lie in a folder that exists"),
        ((tmp_path / "nowhere.mp4", "--out", out), "got nothing there"),
        ((tmp_path, "--out", out), "folder must hold videos"),
        ((video, "--out", out, "--root", tmp_path), "recording must lie under --root"),
        ((video, "--out", ""), "must name a file"),
    ):
        done = flowkit("spot-intervals", *arguments)
        assert (done.code, says in done.err) == (2, True), done.err
    assert (tmp_path / "there.csv").read_text() == "precious"
    assert not list(tmp_path.glob("*.parts"))


def test_scores_are_printed_for_people(recording: Path, found: Path) -> None:
    done = flowkit("spot-score", recording / "manifest.csv", found)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == ["micro", "macro", "all"]
    assert "STRS: both tables must have micro-expressions with labels; got none in one of them." in done.out
    refused = flowkit("spot-score", recording / "manifest.csv", found, "--iou", "0")
    assert (refused.code, "--iou: must lie above 0" in refused.err) == (2, True)


@pytest.mark.parametrize("fps", ["0", "-5", "inf"])
def test_what_is_no_rate_is_refused(recording: Path, found: Path, fps: str) -> None:
    done = flowkit("spot-score", recording / "manifest.csv", found, "--fps", fps)
    assert (done.code, "fps must be from 1 to 10000" in done.err) == (2, True)


def test_frames_that_count_from_1_are_extracted_as_they_were_searched(
    recording: Path, found: Path, tmp_path: Path
) -> None:
    done = flowkit("spot-intervals", recording / "s01.mp4", "--out", tmp_path / "one.csv", "--index-base", "1")
    assert done.code == 0
    here, there = read_manifest(tmp_path / "one.csv"), read_manifest(found)
    assert sorted(clip.onset - 1 for clip in here) == sorted(clip.onset for clip in there)
    assert done.out.rstrip().endswith("--index-base 1")


def test_names_that_no_manifest_can_hold_are_left_out_before_anything_is_read(person: Frames, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    write(root / "good name, with comma.mkv", person[:40])
    shutil.copy(root / "good name, with comma.mkv", root / "tab\there.mkv")
    shutil.copy(root / "good name, with comma.mkv", os.fsencode(root) + b"/bad\xff.mkv")
    code, recordings, said = searched(root, out=tmp_path / "found.csv")
    assert code == 1
    assert [one["path"] for one in recordings] == ["good name, with comma.mkv"]
    assert said.count("path must be plain") == 2


@pytest.mark.parametrize(
    ("fps", "missing", "cuts"), [(8, 1, 0), (8, 2, 1), (30, 6, 0), (30, 7, 1), (60, 13, 0), (60, 14, 1)]
)
def test_frames_that_were_dropped_are_no_pause(
    person: Frames, tmp_path: Path, fps: int, missing: int, cuts: int
) -> None:
    """A pause lasts a quarter of a second, to the nearest frame, and three frames, or more."""
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(person[:40]):
        if not 20 < number <= 20 + missing:
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number:04d}.png", compress_level=1)
    _, (one,), _ = searched(tmp_path / "images", out=tmp_path / "found.csv", more=("--fps", str(fps)))
    assert [cut["frame"] for cut in one["cuts"]] == [21 + missing] * cuts


def test_a_pause_is_no_movement_and_no_change_of_rate(person: Frames, tmp_path: Path) -> None:
    """A recorder that was paused: time stamps leap by a minute."""
    video = tmp_path / "pause.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width = person[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(person):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 30) + 60000 * (number >= 45), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    code, (one,), _ = searched(video, out=tmp_path / "found.csv")
    assert code == 0
    assert [cut["frame"] for cut in one["cuts"]] == [45]
    assert one["fps"] == pytest.approx(30, rel=0.05)
    assert all(i["offset"] < 45 or i["onset"] >= 45 for i in one["intervals"])


def test_a_still_picture_shows_nothing(person: Frames, tmp_path: Path) -> None:
    video = tmp_path / "still.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        stream.height, stream.width = person[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(150):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(person[0], "rgb24")))
        container.mux(stream.encode())
    code, (one,), said = searched(video, out=tmp_path / "found.csv")
    assert (code, one["intervals"]) == (0, [])
    assert "Warning" not in said


def test_images_that_cannot_be_read_are_named(person: Frames, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(person[:60]):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:03d}.png")
    (tmp_path / "images" / "030.png").write_bytes(b"no picture")
    code, (one,), _ = searched(tmp_path / "images", out=tmp_path / "found.csv", more=("--fps", "30"))
    assert code == 1
    (problem,) = one["problems"]
    assert (problem["code"], "images/030.png" in problem["message"]) == ("IMAGE_UNREADABLE", True)
    assert one["unused"][0]["first"] == 30


def test_tables_of_other_videos_are_refused(recording: Path, found: Path, tmp_path: Path) -> None:
    text = found.read_text().replace(",s01.mp4,", ",other.mp4,")
    (tmp_path / "other.csv").write_text(text)
    done = flowkit("spot-score", recording / "manifest.csv", tmp_path / "other.csv")
    assert (done.code, "both tables must name the same videos" in done.err) == (2, True)


def test_strengths_go_on_over_a_new_anchor(recording: Path) -> None:
    """No frame steps further than a face moves within it, though the anchor changes every three seconds."""
    from flowkit.config import AlignConfig, FrameConfig
    from flowkit.face.align import Aligner
    from flowkit.spotting.face_track import FaceTrack

    config = FrameConfig()
    survey = recording_frames.survey("s01.mp4", recording, config)
    with Aligner(AlignConfig()) as aligner:
        track = FaceTrack(aligner, "s01.mp4", survey.fps)
        course = track.course(
            itertools.islice(recording_frames.frames_of(survey, survey.parts[0], recording, config), 300)
        )
    assert course.frames["run"].tolist() == [0] * 300
    steps = np.abs(np.diff(course.frames["units"], axis=0)).max(axis=1)
    assert np.quantile(steps, 0.99) < 0.4
