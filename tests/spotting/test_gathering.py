"""What is known of a recording, from courses that come in parts which share a frame."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from face_course import FPS, blink, leave_out, raise_units, still
from flowkit.errors import FailureCode
from flowkit.inputs.recording_frames import Part, Recording
from flowkit.spotting.course import Course, Use
from flowkit.spotting.gathering import SEVERAL, Gathering, Searched, Span
from flowkit.spotting.intervals import BLOCK_S, IntervalSearch


def course(count: int, fps: float = FPS) -> Course:
    """A face at rest."""
    return Course(fps, still(count, fps), np.zeros(0, np.int64))


def broken(count: int, cuts: Sequence[int]) -> Course:
    """A face at rest that is another one from each cut on."""
    whole = dataclasses.replace(course(count), cuts=np.array(cuts))
    whole.frames["run"] = np.searchsorted(cuts, np.arange(count), "right")
    return whole


def with_expression(whole: Course, apex: int) -> Course:
    """The same course with raised brows."""
    raise_units(whole.frames, apex)
    return whole


def unused(whole: Course, begin: int, end: int, use: Use) -> None:
    leave_out(whole.frames, begin, end, use)


def parts(whole: Course, bounds: Sequence[int]) -> list[Course]:
    """Parts that share the frames at some places."""
    places = [0, *bounds, len(whole) - 1]
    return [whole.part(begin, end + 1) for begin, end in itertools.pairwise(places)]


def recording(fps: float = FPS, **other: Any) -> Recording:
    return Recording("s1/a.mp4", fps, 0, (Part(),), 1, 1, **other)


def gathered(courses: Sequence[Course], of: Recording | None = None) -> Searched:
    gathering = Gathering(of or recording())
    for one in courses:
        gathering.add(one)
    return gathering.finish()


def same(one: Searched, other: Searched) -> bool:
    return one.to_dict() == other.to_dict() and np.array_equal(one.curve, other.curve, equal_nan=True)


def test_parts_change_nothing() -> None:
    whole = with_expression(course(600), 200)
    whole = dataclasses.replace(whole, cuts=np.array([300, 450]))
    whole.frames["run"][300:] = 1
    whole.frames["run"][450:] = 2
    unused(whole, 20, 40, Use.NO_FACE)
    unused(whole, 95, 110, Use.HIDDEN)
    whole.frames["faces"][280:320] = 2
    at_once = gathered([whole])
    assert (at_once.frames, at_once.used) == (600, 565)
    assert at_once.seconds == pytest.approx(20.0)
    assert [round(one.apex, -1) for one in at_once.expressions if one.motion_px > 0.2] == [200]
    for bounds in ((31, 300), (100, 101, 102, 500), (299, 301)):
        assert same(at_once, gathered(parts(whole, bounds))), bounds


def test_spans_of_unused_frames_go_on_over_parts() -> None:
    whole = course(300)
    unused(whole, 0, 15, Use.NO_FACE)
    unused(whole, 95, 130, Use.TURNED_AWAY)
    unused(whole, 130, 140, Use.HIDDEN)
    unused(whole, 299, 300, Use.HIDDEN)
    found = gathered(parts(whole, (100, 110, 130, 200)))
    assert found.unused == (
        Span(0, 14, 0.0, 0.467, Use.NO_FACE.meaning),
        Span(95, 129, 3.167, 4.3, Use.TURNED_AWAY.meaning),
        Span(130, 139, 4.333, 4.633, Use.HIDDEN.meaning),
        Span(299, 299, 9.967, 9.967, Use.HIDDEN.meaning),
    )
    assert found.used == 300 - 15 - 35 - 10 - 1


def test_spans_do_not_go_on_over_frames_that_were_used() -> None:
    whole = course(300)
    unused(whole, 90, 100, Use.HIDDEN)
    unused(whole, 101, 120, Use.HIDDEN)
    found = gathered(parts(whole, (100,)))
    assert [(span.first, span.last) for span in found.unused] == [(90, 99), (101, 119)]


def test_spans_do_not_go_on_over_frames_that_are_missing() -> None:
    whole = course(300)
    unused(whole, 90, 200, Use.HIDDEN)
    found = gathered([whole.part(0, 100), whole.part(150, 300)])
    assert [(span.first, span.last) for span in found.unused] == [(90, 99), (150, 199)]
    assert found.frames == 250


def test_several_faces_are_said_with_their_spans_and_once() -> None:
    whole = course(300)
    whole.frames["faces"][90:120] = 2
    whole.frames["faces"][105:110] = 3
    whole.frames["faces"][200:] = 2
    found = gathered(parts(whole, (100, 250)))
    assert [(span.first, span.last, span.why) for span in found.several_faces] == [
        (90, 119, SEVERAL),
        (200, 299, SEVERAL),
    ]
    assert (found.several_faces[0].first_s, found.several_faces[0].last_s) == (3.0, 3.967)
    assert found.notes.count(SEVERAL) == 1
    assert found.unused == ()


def test_cuts_have_their_times_and_are_counted() -> None:
    whole = dataclasses.replace(course(300), cuts=np.array([50, 100, 250]))
    found = gathered(parts(whole, (100,)))
    assert found.cuts == ((50, 1.667), (100, 3.333), (250, 8.333))
    assert [note for note in found.notes if "cuts" in note] == [
        "3 cuts or pauses: what lies between is searched by itself"
    ]


def test_problems_of_parts_are_kept_and_the_rest_is_searched() -> None:
    whole = with_expression(course(600), 400)
    gathering = Gathering(recording())
    damage, change = (
        (str(FailureCode.VIDEO_UNREADABLE), "damage at frame 100"),
        (str(FailureCode.SOURCE_CHANGED), "it changed"),
    )
    gathering.add(dataclasses.replace(whole.part(0, 100), problems=(damage,)))
    gathering.add(Course.of(FPS, problems=[change]))
    gathering.add(dataclasses.replace(whole.part(300, 600), problems=(change,)))
    found = gathering.finish()
    assert found.problems == (
        ("VIDEO_UNREADABLE", "damage at frame 100"),
        ("SOURCE_CHANGED", "it changed"),
    )
    assert found.frames == 400
    assert [round(one.apex, -1) for one in found.expressions if one.motion_px > 0.2] == [400]
    assert all(not one.onset < 300 <= one.offset for one in found.intervals)


def test_frames_of_a_part_that_could_not_be_read_are_unused_and_have_their_place_in_the_curve() -> None:
    whole = course(300)
    numbers = np.arange(300)
    part = Part(numbers, numbers / FPS, numbers)
    gathering = Gathering(recording())
    gathering.add(
        dataclasses.replace(whole.part(0, 100), problems=(("VIDEO_UNREADABLE", "damage at frame 100"),)), part
    )
    found = gathering.finish()
    assert (found.frames, found.used, len(found.curve)) == (300, 100, 300)
    assert np.isnan(found.curve).tolist() == [False] * 100 + [True] * 200
    assert found.unused == (Span(100, 299, 3.333, 9.967, Use.UNREADABLE.meaning),)


def test_fewer_frames_than_the_file_states_are_a_problem() -> None:
    found = gathered([course(250)], recording(stated=300))
    ((code, message),) = found.problems
    assert (code, "must have the 300 frames that it states; got 250" in message) == ("VIDEO_UNREADABLE", True)
    assert gathered([course(299)], recording(stated=300)).problems == ()


def test_a_shorter_video_than_the_file_states_is_a_problem() -> None:
    found = gathered([course(150)], recording(stated_s=10.0))
    ((code, message),) = found.problems
    assert (code, "must last the 10.0 s that it states; got 5.0 s" in message) == ("VIDEO_UNREADABLE", True)
    assert gathered([course(295)], recording(stated_s=10.0)).problems == ()


def test_interlaced_frames_are_noted() -> None:
    whole = dataclasses.replace(course(300), interlaced=120)
    (note,) = [note for note in gathered([whole]).notes if "interlaced" in note]
    assert note.startswith("120 of 300 frames are interlaced")
    assert "ffmpeg -i IN -vf bwdif OUT" in note
    assert not any("interlaced" in note for note in gathered([course(300)]).notes)


def test_notes_of_the_recording_come_first() -> None:
    whole = dataclasses.replace(course(300), cuts=np.array([50]))
    found = gathered([whole], recording(notes=("frames per second are unknown; 30 are assumed",)))
    assert found.notes[0] == "frames per second are unknown; 30 are assumed"
    assert len(found.notes) == 2
    assert gathered([course(300)]).notes == ()


def frame_values(whole: Course) -> npt.NDArray[np.float32]:
    """The value of each frame."""
    search = IntervalSearch(whole.fps)
    return np.concatenate([one.curve for one in (*search.add(whole), *search.finish())])


@pytest.mark.parametrize(("fps", "every"), [(25.0, 1), (30.0, 1), (60.0, 2), (100.0, 3), (200.0, 7)])
def test_the_curve_keeps_the_largest_of_some_frames(fps: float, every: int) -> None:
    whole = course(403, fps)
    for begin in range(0, 403, 9):
        unused(whole, begin, begin + 1, Use.HIDDEN)
    unused(whole, 100, 130, Use.HIDDEN)
    values = frame_values(whole)
    expected = [
        np.nanmax(group) if np.isfinite(group).any() else np.nan
        for group in (values[begin : begin + every] for begin in range(0, 403, every))
    ]
    for bounds in ((), (101, 200), (1, 2, 3, 130)):
        found = gathered(parts(whole, bounds), recording(fps))
        assert found.every == every
        assert np.array_equal(found.curve, np.array(expected, np.float32), equal_nan=True)
    assert np.isnan(expected).any()


def test_groups_of_the_curve_go_on_where_blocks_meet() -> None:
    """Blocks of an odd number of frames, and two frames for each value."""
    fps = 50.35
    assert round(BLOCK_S * fps) % 2
    whole = course(round(230 * fps), fps)
    for begin in range(0, len(whole), 25):
        unused(whole, begin, begin + 1, Use.HIDDEN)
    values = np.nan_to_num(frame_values(whole), nan=-1)
    found = gathered(parts(whole, (1000, 4001, 9999)), recording(fps))
    assert found.every == 2
    whole_groups = len(values) // 2 * 2
    expected = [*values[:whole_groups].reshape(-1, 2).max(axis=1), *values[whole_groups:]]
    assert np.array_equal(np.nan_to_num(found.curve, nan=-1), expected)


def test_without_a_face_in_any_frame_there_is_a_problem_that_says_why() -> None:
    whole = course(300)
    unused(whole, 0, 300, Use.TOO_SMALL)
    found = gathered(parts(whole, (100,)))
    ((code, message),) = found.problems
    assert code == FailureCode.FACE_NOT_FOUND
    assert message.startswith("s1/a.mp4: recording must show a face")
    assert f"300 frames: {Use.TOO_SMALL.meaning}" in message
    assert found.intervals == ()
    assert found.used == 0
    assert np.isnan(found.curve).all()


@pytest.mark.parametrize(("count", "said"), [(14, True), (15, False)])
def test_a_recording_of_less_than_half_a_second_says_so(count: int, said: bool) -> None:
    found = gathered([course(count)])
    assert bool(found.problems) == said
    if said:
        ((code, message),) = found.problems
        assert code == FailureCode.APEX_MISSING
        assert "15 frames; got 14" in message


def test_stretches_that_are_all_too_short_are_a_problem_and_some_a_note() -> None:
    """Every third image, or images that are numbered by time: no change of the face can be told from a cut."""
    (problem,) = gathered([broken(140, range(10, 140, 10))]).problems
    assert problem[0] == "APEX_MISSING"
    assert "for half a second, 15 frames, without a break; got shorter stretches, with 13 cuts" in problem[1]
    some = gathered([broken(140, range(10, 60, 10))])
    assert some.problems == ()
    assert any(note.startswith("50 frames lie in stretches of less than half a second") for note in some.notes)


def test_a_recording_without_frames_says_so() -> None:
    found = gathered([Course.of(FPS, [], [])])
    assert [code for code, _ in found.problems] == [FailureCode.VIDEO_UNREADABLE]
    assert (found.frames, found.seconds, len(found.curve)) == (0, 0.0, 0)


def test_what_cannot_be_read_at_all_says_only_that() -> None:
    gathering = Gathering(recording())
    gathering.add(Course.of(FPS, problems=[("VIDEO_UNREADABLE", "no video")]))
    assert gathering.finish().problems == (("VIDEO_UNREADABLE", "no video"),)


def test_everything_is_plain_values_for_json() -> None:
    whole = dataclasses.replace(with_expression(course(600), 200), cuts=np.array([300]))
    whole.frames["run"][300:] = 1
    unused(whole, 400, 450, Use.NO_FACE)
    whole.frames["faces"][500:] = 2
    found = gathered(parts(whole, (250,)))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (plain["path"], plain["fps"], plain["frames"], plain["used_frames"]) == ("s1/a.mp4", 30.0, 600, 550)
    assert plain["seconds"] == 20.0
    assert plain["cuts"] == [{"frame": 300, "s": 10.0}]
    assert plain["unused"] == [
        {"first": 400, "last": 449, "first_s": 13.333, "last_s": 14.967, "why": Use.NO_FACE.meaning}
    ]
    assert len(plain["several_faces"]) == 1
    assert [one["apex"] for one in plain["intervals"]] == [one.apex for one in found.intervals]
    assert plain["curve"]["frames_per_value"] == 1
    values = plain["curve"]["motion_px"]
    assert [place for place, value in enumerate(values) if value is None] == list(range(400, 450))
    assert values[200] == pytest.approx(found.curve[200], abs=1e-4)


def test_blinks_and_expressions_are_told_apart() -> None:
    whole = with_expression(course(600), 200)
    blink(whole.frames, 400, closing=0.6)
    found = gathered([whole])
    assert [round(one.apex, -1) for one in found.blinks] == [400]
    assert all(one.kind in ("micro", "macro") for one in found.expressions)
    assert sorted(map(id, (*found.expressions, *found.blinks))) == sorted(map(id, found.intervals))


def test_an_uneven_frame_rate_is_noted() -> None:
    whole = course(300)
    whole.frames["seconds"] += 0.1 * (np.arange(300) // 10)
    (note,) = gathered(parts(whole, (150,))).notes
    assert "its frame rate varies: frames are 33 to 133 ms apart" in note
