"""The index says what the records say, or it is not used."""

from __future__ import annotations

import io
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import flowkit
from flowkit.storage import commit, hashed_json
from flowkit.storage.folder import ShardFolder
from flowkit.storage.generations import Generation, publish_generation, read_generations
from flowkit.storage.index import INDEX_FILE, Index, finalise
from flowkit.storage.inspection import inspect
from shard_builder import build_folder

CLIPS = 9
FAILURES = 3


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return build_folder(tmp_path / "out", clips=CLIPS, failures=FAILURES)


def rows(index: Index) -> list[tuple[Any, ...]]:
    """What the index says of each clip."""
    words = {name: [word.decode() for word in getattr(index, f"{name}s")] for name in ("dataset", "subject", "label")}
    named = [[words[name][code] for code in getattr(index, name)] for name in words]
    numbers = (index.task.tolist(), index.position.tolist(), index.phase_valid.tolist(), index.qc.tolist())
    return [*zip(index.clip_ids(), *named, *numbers, strict=True)]


def recorded(out: Path) -> list[tuple[Any, ...]]:
    """The same from the records, one after the other."""
    names = ("clip_id", "dataset", "subject", "label", "task", "position", "phase_valid", "qc")
    return [tuple(clip[name] for name in names) for clip in ShardFolder.open(out).clips()]


def test_the_index_says_what_the_records_say(out: Path) -> None:
    index = Index.load(out, pytest.fail)
    assert rows(index) == recorded(out)
    assert len(rows(index)) == CLIPS
    assert index.failures() == [(f["clip_id"], f["code"]) for f in ShardFolder.open(out).failures()]
    assert len(index.failures()) == FAILURES
    assert (index.planned, index.not_started) == (CLIPS + FAILURES, 0)


def test_the_same_records_give_the_same_bytes(out: Path) -> None:
    before = (out / INDEX_FILE).read_bytes()
    finalise(out)
    assert (out / INDEX_FILE).read_bytes() == before


def test_an_index_of_nothing_is_one(tmp_path: Path) -> None:
    out = build_folder(tmp_path / "out", clips=0, failures=2)
    index = Index.load(out, pytest.fail)
    assert (len(index), index.persons(), index.label_counts(), index.repeated()) == (0, [], {}, [])
    assert len(index.failures()) == 2


def test_leaving_a_person_out_divides_the_clips(out: Path) -> None:
    index, clips = Index.load(out), ShardFolder.open(out).clips()
    assert index.persons() == sorted({(clip["dataset"], clip["subject"]) for clip in clips})
    for dataset, subject in index.persons():
        held_out = index.of_person(dataset, subject)
        theirs = [c["clip_id"] for c in clips if (c["dataset"], c["subject"]) == (dataset, subject)]
        assert index.clip_ids(held_out) == theirs
        assert index.clip_ids(~held_out) == [c["clip_id"] for c in clips if c["clip_id"] not in theirs]
    assert not index.of_person("alpha", "nobody").any()
    assert not index.of_person("nothing", "s00").any()


def test_inspect_says_the_same_with_and_without_an_index(out: Path) -> None:
    with_index = inspect(out, pytest.fail)
    (out / INDEX_FILE).unlink()
    notes: list[str] = []
    assert inspect(out, notes.append) == with_index
    assert "is missing: reading the commit records" in notes[0]
    clips = ShardFolder.open(out).clips()
    assert with_index["labels"] == {
        dataset: dict(sorted(Counter(c["label"] for c in clips if c["dataset"] == dataset).items()))
        for dataset in ("alpha", "beta")
    }
    counts = {name: with_index[name] for name in ("ok", "failed", "planned", "shards", "subjects", "phases_invalid")}
    assert counts == {"ok": 9, "failed": 3, "planned": 12, "shards": 5, "subjects": 9, "phases_invalid": 1}
    assert with_index["qc"] == {"RESIDUAL": 1, "MANY_FACES": 1}
    assert with_index["failure_codes"] == {"FACE_NOT_FOUND": 2, "FRAME_MISSING": 1}
    assert with_index["bytes"] == sum(path.stat().st_size for path in out.rglob("*.h5"))


def test_the_command_is_silent_with_an_index_and_says_when_there_is_none(out: Path) -> None:
    assert flowkit("inspect", out).err == ""
    (out / INDEX_FILE).unlink()
    assert "reading the commit records" in flowkit("inspect", out, "--json").err


def first_record(out: Path) -> Path:
    return min(out.glob("shards/*/*.json"))


def removed(out: Path) -> None:
    first_record(out).unlink()


def replaced(out: Path) -> None:
    """By one of the same length that says something else."""
    path = first_record(out)
    content = hashed_json.decode(path.read_bytes())
    assert content is not None
    content["clips"][0]["label"] = content["clips"][0]["label"][::-1]
    length = path.stat().st_size
    path.write_bytes(hashed_json.encode(content))
    assert path.stat().st_size == length


def torn(out: Path) -> None:
    path = first_record(out)
    path.write_bytes(path.read_bytes()[:-9])


def shard_gone(out: Path) -> None:
    min(out.glob("shards/*/*.h5")).unlink()


def shard_short(out: Path) -> None:
    path = min(out.glob("shards/*/*.h5"))
    path.write_bytes(path.read_bytes()[:-1])


def planned_more(out: Path) -> None:
    (first,) = read_generations(out)
    publish_generation(out, Generation(1, len(first.tasks), ((("later", "0" * 16),),)))


CHANGES = (removed, replaced, torn, shard_gone, shard_short, planned_more)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_index_of_another_state_is_not_used(out: Path, change: Callable[[Path], None]) -> None:
    before = inspect(out, pytest.fail)
    change(out)
    notes: list[str] = []
    assert rows(Index.load(out, notes.append)) == recorded(out)
    assert "does not list the records that are there now" in notes[0]
    assert inspect(out) != before
    finalise(out)
    assert rows(Index.load(out, pytest.fail)) == recorded(out)


def test_a_record_that_came_later_is_seen(out: Path) -> None:
    """As while an extraction runs, which makes the index at its end."""
    record, shard = first_record(out), min(out.glob("shards/*/*.h5"))
    kept = record.read_bytes(), shard.read_bytes()
    record.unlink()
    shard.unlink()
    finalise(out)
    shard.write_bytes(kept[1])
    record.write_bytes(kept[0])
    notes: list[str] = []
    assert len(Index.load(out, notes.append)) == CLIPS
    assert notes


def test_a_record_that_comes_while_others_are_read_makes_the_index_stale(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = first_record(out)
    kept = record.read_bytes()
    record.unlink()
    scan = commit.scan

    def scan_late(folder: Path) -> Any:
        record.write_bytes(kept)
        return scan(folder)

    monkeypatch.setattr("flowkit.storage.folder.scan", scan_late)
    finalise(out)
    monkeypatch.undo()
    notes: list[str] = []
    assert len(Index.load(out, notes.append)) == CLIPS
    assert notes


def test_a_damaged_index_is_no_harm(out: Path) -> None:
    """Wherever a byte is wrong or missing, the answer is right."""
    right, text, draw = recorded(out), (out / INDEX_FILE).read_bytes(), random.Random(5)
    told = 0
    for round_ in range(400):
        damaged = bytearray(text)
        if round_ % 4:
            damaged[draw.randrange(len(text))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(text)) :]
        (out / INDEX_FILE).write_bytes(damaged)
        notes: list[str] = []
        index = Index.load(out, notes.append)
        assert rows(index) == right
        assert index.failures() == [(f["clip_id"], f["code"]) for f in ShardFolder.open(out).failures()]
        told += bool(notes)
    assert told > 200


def saved(index: Index, save: Callable[..., None] = np.savez, **changes: Any) -> bytes:
    file = io.BytesIO()
    values = {name: value for name, value in vars(index).items() if changes.get(name, 0) is not None}
    save(file, **(values | {name: value for name, value in changes.items() if value is not None}))
    return file.getvalue()


WRONG: dict[str, Callable[[Index], bytes]] = {
    "another format": lambda index: saved(index, format=np.array(2, "<i8")),
    "a word that is not there": lambda index: saved(index, label=index.label + 3),
    "a negative place": lambda index: saved(index, subject=index.subject - 1),
    "a short column": lambda index: saved(index, qc=index.qc[1:]),
    "another shape": lambda index: saved(index, phase_valid=index.phase_valid.ravel()),
    "another type": lambda index: saved(index, task=index.task.astype(np.float32)),
    "pickled objects": lambda index: saved(index, clip_id=index.clip_id.astype(object)),
    "a missing column": lambda index: saved(index, qc=None),
    "compressed": lambda index: saved(index, np.savez_compressed),
    "no archive": lambda index: b"{}",
    "empty": lambda index: b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_index_that_nobody_made_here_is_not_used(out: Path, wrong: str) -> None:
    (out / INDEX_FILE).write_bytes(WRONG[wrong](Index.load(out)))
    notes: list[str] = []
    assert rows(Index.load(out, notes.append)) == recorded(out)
    assert "cannot be used" in notes[0]


def test_an_index_of_another_folder_is_not_used(out: Path, tmp_path: Path) -> None:
    other = build_folder(tmp_path / "other", clips=4, prefix="other")
    shutil.copy(other / INDEX_FILE, out / INDEX_FILE)
    assert rows(Index.load(out)) == recorded(out)


def test_a_clip_that_is_stored_twice_is_named(out: Path) -> None:
    folder = ShardFolder.open(out)
    twice = ShardFolder(folder.path, folder.run, (*folder.records, folder.records[0]))
    names = [clip["clip_id"] for clip in folder.records[0].content["clips"]]
    assert Index.of(twice).repeated() == names
    assert Index.of(folder).repeated() == []


def test_extract_leaves_a_current_index(undisturbed: Path) -> None:
    assert len(Index.load(undisturbed, pytest.fail)) == 12
