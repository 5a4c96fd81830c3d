"""Synthetic recordings: what their table says is what is seen, and they are the same every time."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from conftest import flowkit
from flowkit.errors import ConfigError, Terminated
from flowkit.execution.progress import Silent
from flowkit.execution.stop import Stop
from flowkit.synthetic.dataset import write_video
from flowkit.synthetic.recording_script import APART_S, Event, draw_script
from flowkit.synthetic.recordings import FACIAL, Recording, RecordingConfig, record, recordings

SMALL = RecordingConfig(subjects=1, seconds=40, width=96, height=96, fps=30, noise=0, light=0, lamp_deg=0, flat=True)
TINY = RecordingConfig(subjects=2, seconds=2, width=64, height=64, fps=10, format="mkv")


@functools.cache
def recording() -> Recording:
    """Somebody, without noise."""
    return next(recordings(SMALL))


def alone(kind: str) -> Event:
    """An event of a kind during which the face does nothing else."""
    events = [event for event in recording().events if event.kind in FACIAL]
    for event in events:
        others = [other for other in events if other is not event]
        if event.kind == kind and all(other.onset > event.offset or other.offset < event.onset for other in others):
            return event
    raise LookupError(kind)


def moved(t: float) -> float:
    """How far the face is from its rest in frame `t`, cm."""
    one = recording()
    return float(np.linalg.norm(one.moment(t).points - one.subject.person.points, axis=1).max())


@pytest.mark.parametrize("frames", [(0, 60), (100, 101), (340, 20)])
def test_the_true_flow_carries_one_frame_onto_another(frames: tuple[int, int]) -> None:
    one = recording()
    flow, visible = one.flow(*frames)
    first, second = (one.clean(t) for t in frames)
    y, x = np.indices(first.shape, np.float32)
    warped = cv2.remap(second, x + flow[0], y + flow[1], cv2.INTER_CUBIC)
    face = cv2.erode(np.asarray(visible & (np.abs(flow).sum(axis=0) > 0), np.uint8), np.ones((3, 3))) > 0
    assert face.mean() > 0.05
    assert np.percentile(np.abs(warped - first)[face], 95) < 1
    shifted = cv2.remap(second, x + flow[0] + np.float32(0.2), y + flow[1], cv2.INTER_CUBIC)
    assert np.abs(shifted - first)[face].mean() > 1.5 * np.abs(warped - first)[face].mean()


def test_with_the_head_still_only_the_face_moves() -> None:
    one, event = recording(), alone("micro")
    onset, apex = (event.onset * SMALL.fps, event.apex * SMALL.fps)
    flow, _ = one.flow(onset, apex, still=True)
    assert np.hypot(*flow).max() == pytest.approx(event.peak_px, rel=0.15)
    assert np.hypot(*one.flow(onset - 4, onset, still=True)[0]).max() == 0
    assert np.hypot(*one.flow(onset - 4, onset)[0]).max() > 0.01


@pytest.mark.parametrize("kind", ["micro", "macro", "blink"])
def test_events_lie_where_the_face_moves(kind: str) -> None:
    event = alone(kind)
    onset, apex, offset = (seconds * SMALL.fps for seconds in (event.onset, event.apex, event.offset))
    during = [moved(t) for t in np.linspace(onset, offset, 20)[1:-1]]
    assert moved(onset) == moved(offset) == 0
    assert min(during) > 0
    assert moved(apex) >= max(during)


def test_the_head_moves_all_the_time_and_further_in_a_turn() -> None:
    one = recording()
    turn = next(event for event in one.events if event.kind == "turn")
    calm = [
        t for t in range(SMALL.frames) if all(e.kind != "turn" or not e.onset < t / 30 < e.offset for e in one.events)
    ]
    poses = np.array([one.pose(t) for t in calm]) - one.subject.rest
    assert (poses.std(axis=0) > 0).all()
    assert np.abs(poses[:, 0]).max() <= SMALL.turn_deg / 8
    there = one.pose(turn.apex * 30) - one.pose(turn.onset * 30)
    assert np.abs(there[:3]).max() > 1
    flow, _ = one.flow(turn.onset * 30, turn.apex * 30)
    assert np.hypot(*flow).max() == pytest.approx(turn.peak_px, rel=0.6)


def test_light_changes_and_stays() -> None:
    one = next(recordings(dataclasses.replace(SMALL, seconds=60, light=0.05)))
    event = next(event for event in one.events if event.kind == "light")
    before, after = (one.moment(30 * t).light[0] for t in (event.onset, event.offset))
    slow = one.script.light.at(event.offset)[0] - one.script.light.at(event.onset)[0]
    assert after - before == pytest.approx(event.path.values[-1, 0] + slow)
    assert event.path.values[-1, 0] != 0


@pytest.mark.parametrize("seconds", [2, 9, 120])
def test_events_keep_apart_inside_the_recording(seconds: float) -> None:
    for seed in range(12):
        config = RecordingConfig(seconds=seconds, seed=seed)
        events = draw_script("s01", config).events
        expressions = [event for event in events if event.kind in ("micro", "macro")]
        assert sum(event.kind == "micro" for event in events) == max(1, round(seconds / 8))
        assert sum(event.kind == "macro" for event in events) == round(seconds / 15)
        assert all(0 < event.onset < event.apex <= event.offset < seconds for event in events)
        assert all(event.offset - event.onset <= 0.5 for event in events if event.kind == "micro")
        assert all(0.5 <= event.offset - event.onset <= 4 for event in events if event.kind == "macro")
        assert all(b.onset - a.offset >= APART_S - 1e-9 for a, b in itertools.pairwise(expressions))
        for talk, macro in itertools.product(events, expressions):
            if talk.kind == "talking" and macro.kind == "macro":
                assert talk.offset <= macro.onset + 1e-9 or talk.onset >= macro.offset - 1e-9
        blinks = [event.onset for event in events if event.kind == "blink"]
        assert all(2 <= later - earlier <= 8 for earlier, later in itertools.pairwise(blinks))


def test_speech_has_three_to_six_syllables_a_second() -> None:
    talks = [event for seed in range(5) for event in draw_script("s01", RecordingConfig(seed=seed)).events]
    talks = [event for event in talks if event.kind == "talking"]
    assert talks
    for talk in talks:
        assert {unit for unit, _ in talk.keys} == {17, 20, 24, 25, 26}
        halves = np.diff(talk.path.times)
        assert (halves >= 0.5 / 6 - 1e-9).all()
        assert (halves <= 0.5 / 3 + 1e-9).all()
        assert halves.std() > 0


def test_the_seed_decides_whatever_the_frame_rate() -> None:
    def facts(config: RecordingConfig) -> list[tuple[str, str, float, float]]:
        return [(e.kind, e.label, e.onset, e.offset) for e in draw_script("s02", config).events]

    assert facts(SMALL) == facts(dataclasses.replace(SMALL, fps=200, subjects=7))
    assert facts(SMALL) != facts(dataclasses.replace(SMALL, seed=1))


def test_a_set_holds_videos_and_what_happens_in_them(tmp_path: Path) -> None:
    events = record(tmp_path / "out", TINY)
    with events.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["recording"] for row in rows} == {"s01", "s02"}
    assert {"micro"} <= {row["kind"] for row in rows}
    assert all(0 <= int(row["onset"]) <= int(row["apex"]) <= int(row["offset"]) < 20 for row in rows)
    with av.open(str(tmp_path / "out" / "s02.mkv")) as video:
        frames = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    expected = list(recordings(TINY))[1]
    assert len(frames) == TINY.frames == 20
    np.testing.assert_array_equal(frames[7], expected.render(7))


@pytest.mark.parametrize("form", ["mp4", "mkv"])
def test_a_video_has_the_same_bytes_every_time(tmp_path: Path, form: str) -> None:
    config = dataclasses.replace(SMALL, seconds=3.0, noise=1.0, format=form)
    (one,) = recordings(config)
    frames = [one.render(t) for t in range(config.frames)]
    videos = set()
    for run in range(4):
        path = tmp_path / f"{run}.{form}"
        write_video(path, frames, config)
        videos.add(path.read_bytes())
    assert len(videos) == 1


class StopsAfterOne(Silent):
    """Has the run stopped after its first recording."""

    def __init__(self) -> None:
        self.stop = Stop("synth")

    def advance(self, done: int, failed: int) -> None:
        self.stop.request(Terminated)


def test_a_run_that_is_stopped_leaves_no_half_video_and_is_resumed(tmp_path: Path) -> None:
    out, reporter = tmp_path / "out", StopsAfterOne()
    with pytest.raises(Terminated, match=r"has no events\.csv"):
        record(out, TINY, reporter=reporter, stop=reporter.stop)
    assert sorted(path.name for path in out.iterdir()) == ["README.txt", "s01.mkv"]
    first = (out / "s01.mkv").stat()
    with pytest.raises(ConfigError, match="begun with"):
        record(out, dataclasses.replace(TINY, seed=1))
    record(out, TINY)
    assert (out / "s01.mkv").stat() == first
    record(tmp_path / "again", TINY)
    for name in ("s01.mkv", "s02.mkv", "events.csv", "manifest.csv", "README.txt"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(ConfigError, match="empty folder"):
        record(out, TINY)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seconds": 1}, "seconds must be from 2"),
        ({"fps": 5}, "fps must be from 10"),
        ({"format": "png"}, "format must be mp4 or mkv"),
        ({"turn_deg": 40}, "turn_deg must be"),
        ({"classes": ("joy",)}, "classes must be"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RecordingConfig(**given)  # type: ignore[arg-type]


def test_the_command_writes_recordings_and_refuses_what_is_for_clips(tmp_path: Path) -> None:
    small = (
        "--level",
        "recordings",
        "--seconds",
        "2",
        "--subjects",
        "1",
        "--width",
        "64",
        "--height",
        "64",
        "--fps",
        "10",
    )
    done = flowkit("synth", "--out", tmp_path / "out", *small)
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "out" / "events.csv"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.txt",
        "events.csv",
        "manifest.csv",
        "s01.mp4",
    ]
    done = flowkit("synth", "--out", tmp_path / "other", *small, "--clips", "2")
    assert done.code == 2
    assert "--clips: not an option of --level recordings" in done.err
    assert not (tmp_path / "other").exists()
