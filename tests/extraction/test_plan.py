"""The plan: what is done stays done, what is planned stays planned."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from flowkit.errors import ManifestError, ShardCorrupt
from flowkit.extraction.plan import Plan, Task, make_plan
from flowkit.inputs.clip import Clip
from flowkit.storage.commit import Record
from flowkit.storage.generations import Generation, publish_generation, read_generations


def clips(*names: str) -> list[Clip]:
    return [Clip(name, f"frames/{name}", 1, 5, 9, "s01", "made-up", "smile") for name in sorted(names)]


def committed(task: Task, failed: tuple[str, ...] = ()) -> Record:
    entry = {clip.clip_id: {"clip_id": clip.clip_id, "row": clip.row_hash()} for clip in task.clips}
    content = {
        "key": task.key,
        "clips": [entry[name] for name in entry if name not in failed],
        "failures": [entry[name] for name in entry if name in failed],
    }
    return Record(task.index, Path("x.json"), content)


def plan(rows: list[Clip], records: list[Record], generations: list[Generation], retry_failed: bool = False) -> Plan:
    return make_plan(rows, records, generations, fingerprint="f", shard_clips=2, retry_failed=retry_failed)


def names(found: Plan) -> list[tuple[int, list[str]]]:
    return [(task.index, [clip.clip_id for clip in task.clips]) for task in found.pending]


def new(found: Plan) -> Generation:
    assert found.new is not None
    return found.new


def test_a_first_plan_cuts_the_sorted_clips_into_tasks() -> None:
    assert names(plan(clips("b", "a", "e", "d", "c"), [], [])) == [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["e"])]


def test_a_killed_run_goes_on_with_the_same_tasks_and_keys() -> None:
    rows = clips("a", "b", "c", "d", "e")
    first = plan(rows, [], [])
    again = plan(rows, [committed(first.pending[1])], [new(first)])
    assert again.new is None
    assert list(again.pending) == [first.pending[0], first.pending[2]]
    assert again.ok == {"c", "d"}


def test_clips_that_come_later_form_tasks_numbered_after() -> None:
    first = plan(clips("b", "d"), [], [])
    later = plan(clips("a", "b", "c", "d"), [committed(first.pending[0])], [new(first)])
    assert names(later) == [(1, ["a", "c"])]


def test_failed_clips_wait_until_asked_for_or_corrected() -> None:
    rows = clips("a", "b")
    first = plan(rows, [], [])
    records = [committed(first.pending[0], failed=("a",))]
    assert names(plan(rows, records, [new(first)])) == []
    assert plan(rows, records, [new(first)]).failed == {"a"}
    assert names(plan(rows, records, [new(first)], retry_failed=True)) == [(1, ["a"])]
    corrected = [dataclasses.replace(rows[0], apex=6), rows[1]]
    assert names(plan(corrected, records, [new(first)])) == [(1, ["a"])]


def test_a_retry_that_was_killed_goes_on_without_being_asked_again() -> None:
    rows = clips("a", "b")
    first = plan(rows, [], [])
    records = [committed(first.pending[0], failed=("a",))]
    retry = plan(rows, records, [new(first)], retry_failed=True)
    assert names(plan(rows, records, [new(first), new(retry)])) == [(1, ["a"])]
    assert names(plan(rows, records, [new(first), new(retry)], retry_failed=True)) == [(1, ["a"])]


def test_a_committed_clip_whose_row_changed_is_refused() -> None:
    rows = clips("a", "b")
    first = plan(rows, [], [])
    changed = [dataclasses.replace(rows[0], apex=6), rows[1]]
    with pytest.raises(ManifestError, match="other contents in a"):
        plan(changed, [committed(first.pending[0])], [new(first)])


def test_a_planned_clip_that_left_the_manifest_frees_its_neighbours() -> None:
    first = plan(clips("a", "b", "c"), [], [])
    assert names(plan(clips("b", "c"), [], [new(first)])) == [(1, ["c"]), (2, ["b"])]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_clip_is_pending_or_settled_exactly_once(seed: int) -> None:
    """A random history of kills, retries, additions, corrections and removals."""
    draw = random.Random(seed)
    rows = {clip.clip_id: clip for clip in clips("a", "b", "c", "d")}
    records: list[Record] = []
    generations: list[Generation] = []
    done: set[str] = set()
    for step in range(30):
        current = plan(sorted(rows.values(), key=lambda c: c.clip_id), records, generations, draw.random() < 0.3)
        pending = [clip.clip_id for task in current.pending for clip in task.clips]
        assert sorted([*pending, *current.ok, *current.failed]) == sorted(rows)
        assert not done & set(pending)
        if current.new is not None:
            generations.append(current.new)
        for task in draw.sample(current.pending, draw.randint(0, len(current.pending))):
            failed = tuple(clip.clip_id for clip in task.clips if draw.random() < 0.3)
            records.append(committed(task, failed))
            done |= {clip.clip_id for clip in task.clips} - set(failed)
        name = f"clip{step}"
        rows[name] = clips(name)[0]
        victim = draw.choice(sorted(rows))
        if victim not in done:
            rows[victim] = dataclasses.replace(rows[victim], label=f"label{step}")
        if draw.random() < 0.2:
            rows.pop(draw.choice(sorted(rows)))
    assert len({record.task for record in records}) == len(records)


def test_a_generation_is_published_once_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    mine, theirs = new(plan(clips("a", "b", "c"), [], [])), new(plan(clips("x"), [], []))
    assert publish_generation(tmp_path, mine)
    assert not publish_generation(tmp_path, theirs)
    assert read_generations(tmp_path) == [mine]


def test_a_damaged_plan_is_an_error_and_no_guess(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    publish_generation(tmp_path, new(plan(clips("a"), [], [])))
    path = tmp_path / "plan" / "000000.json"
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    with pytest.raises(ShardCorrupt, match="generation 0"):
        read_generations(tmp_path)


@pytest.mark.parametrize("loss", ["no plan", "other settings"])
def test_records_that_do_not_belong_to_the_plan_are_refused(loss: str) -> None:
    """Without its plan nobody knows which task was which: the next one would take an old record for its own."""
    first = plan(clips("a", "b"), [], [])
    records = [committed(first.pending[0])]
    generations = [] if loss == "no plan" else [new(first)]
    with pytest.raises(ShardCorrupt, match="must belong to the plan and the settings"):
        make_plan(
            clips("a", "b", "c"), records, generations, fingerprint="f" if loss == "no plan" else "g", shard_clips=2
        )
