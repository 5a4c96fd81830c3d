"""`--part`: several runs on one folder, each with its share: the same bytes, nothing lost, counts that add up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from conftest import SIZE, SMALL, Done, flowkit, shard_bytes, start
from flowkit.config import load_config
from flowkit.errors import ConfigError, DiskFull
from flowkit.extraction import pipeline
from flowkit.extraction.options import RunOptions
from flowkit.extraction.plan import make_plan
from flowkit.extraction.shares import Share, array_warning, parse_share
from flowkit.inputs.manifest import read_manifest, write_manifest
from flowkit.storage import commit, durable_files
from flowkit.storage.index import Index
from flowkit.storage.schema import sample_bytes

TINY = (*SMALL, "--shard-clips", "2")
"""Flags that cut `cropped` into six shards."""
DERIVED = ("index.npz", "failures.csv", "report.html")


def array(element: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    """What SLURM tells an element."""
    values = {"ID": element, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.fixture(scope="module")
def in_one_go(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six shards of one run without --part; read-only by agreement."""
    out = tmp_path_factory.mktemp("in one go") / "out"
    assert flowkit("extract", cropped, "--out", out, *TINY).code == 0
    return out


def extract(manifest: Path, out: Path, *more: str | Path, **environment: str) -> Done:
    return flowkit("extract", manifest, "--out", out, *TINY, *more, **environment)


@pytest.mark.parametrize(
    ("text", "environ", "share"),
    [
        ("0/4", {}, Share(0, 4)),
        ("3/4", {}, Share(3, 4)),
        (" 0/1 ", {}, Share(0, 1)),
        ("slurm", array(0, 0, 3, 1, 4), Share(0, 4)),
        ("slurm", array(11, 5, 11, 3, 3), Share(2, 3)),
        ("slurm", array(3, 3, 3, 1, 1), Share(0, 1)),
        ("1/2", array(0, 0, 3, 1, 4), Share(1, 2)),
    ],
)
def test_shares_are_read(text: str, environ: dict[str, str], share: Share) -> None:
    assert parse_share(text, environ) == share


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("4/4", {}, "counted from 0; got 4/4. The shares of 4 are 0/4, 1/4, 2/4, 3/4"),
        ("9/9", {}, "The shares of 9 are 0/9, 1/9, ..., 8/9"),
        ("0/0", {}, "N of --part i/N must be 1 or more"),
        ("1", {}, "must be i/N, counted from 0, or slurm; got '1'"),
        ("-1/4", {}, "must be i/N"),
        ("1/4/2", {}, "must be i/N"),
        ("\u0661/4", {}, "must be i/N"),
        ("x" * 99, {}, f"got '{'x' * 40}...'"),
        ("slurm", {}, "got no SLURM_ARRAY_TASK_ID in the environment. Submit the job with sbatch --array"),
        ("slurm", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT=. Submit such an array again"),
        ("slurm", array(5, 1, 12, 1, 6), "one start, end and step, such as sbatch --array=0-7"),  # --array=1,5,9-12
        ("slurm", array(1, 0, 6, 2, 4), "one start, end and step"),  # --array=0-1,4,6:2 by its counts alone is 0-6:2
        ("slurm", array(9, 0, 3, 1, 4), "one start, end and step"),
        ("slurm", array(0, 0, 3, 0, 4), "one start, end and step"),
    ],
)
def test_what_is_no_share_is_refused_in_words(text: str, environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_share(text, environ)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shares_of_a_plan_are_the_plan(cropped: Path, in_one_go: Path, count: int) -> None:
    clips, records = read_manifest(cropped), commit.read_records(in_one_go)[1::2]
    fingerprint = json.loads((in_one_go / "run.json").read_text())["content"]["fingerprint"]
    generations = pipeline.read_generations(in_one_go)
    plan = make_plan(clips, records, generations, fingerprint=fingerprint, shard_clips=2)
    parts = [Share(index, count).part_of(plan, records) for index in range(count)]
    assert len(plan.pending) == 3
    assert sorted(task.index for part in parts for task in part.pending) == [task.index for task in plan.pending]
    assert sorted(name for part in parts for name in part.ok) == sorted(plan.ok)


def test_four_shares_at_once_make_the_shards_of_one_run(in_one_go: Path, cropped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [start("extract", cropped, "--out", out, *TINY, "--part", f"{index}/4", "--json") for index in range(4)]
    said = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    found = [json.loads(text) for text, _ in said]
    assert [summary["shard"] for summary in found] == ["0/4", "1/4", "2/4", "3/4"]
    assert [summary["planned"] for summary in found] == [4, 4, 2, 2]
    assert all(s["planned"] == s["ok"] == s["computed"] and not s["not_started"] for s in found)
    assert all(f"flowkit verify {out} makes index.npz" in text for _, text in said)
    assert not any((out / name).exists() for name in DERIVED)
    assert shard_bytes(out) == shard_bytes(in_one_go)
    assert flowkit("verify", out).code == 0
    made, expected = Index.load(out), Index.load(in_one_go)
    assert made.is_current(out)
    assert (made.clip_ids(), list(made.task)) == (expected.clip_ids(), list(expected.task))
    assert flowkit("report", out).code == 0
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_elements_of_an_array_that_are_killed_are_done_by_others(
    in_one_go: Path, cropped: Path, tmp_path: Path
) -> None:
    """Two elements, both killed; then another number of them, of which one overlaps with itself: the same bytes."""
    out = tmp_path / "out"
    runs = [
        start("extract", cropped, "--out", out, *TINY, "--part", "slurm", **array(element, 3, 7, 4, 2))
        for element in (3, 7)
    ]
    while not list(out.glob("shards/*/[!.]*.json")):
        time.sleep(0.02)
        assert all(run.poll() is None for run in runs)
    for run in runs:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert 0 < len(commit.read_records(out)) < 6
    runs = [start("extract", cropped, "--out", out, *TINY, "--part", share) for share in ("0/3", "1/3", "1/3", "2/3")]
    assert [(run.communicate(timeout=300), run.returncode)[1] for run in runs] == [0] * 4
    assert shard_bytes(out) == shard_bytes(in_one_go)
    assert flowkit("verify", out).code == 0
    assert not list(out.rglob(".tmp~*"))


def test_a_share_counts_its_own_clips_and_failures_only(cropped: Path, tmp_path: Path) -> None:
    """Clip 1 of task 0 fails: with 0/2 that is one of six clips, with 1/2 none; done tasks count with their share."""
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    manifest, out = root / "manifest.csv", tmp_path / "out"
    next(iter(sorted((root / read_manifest(manifest)[1].path).glob("*.png")))).unlink()
    first = extract(manifest, out, "--part", "0/2", "--json", "--max-error-rate", "0.16")
    assert first.code == 1  # 1 of 6 is more than 0.16; 1 of 12 would not be
    assert "share of failed clips must be at most 0.16; got 1 failures among 6 clips" in first.err
    found = json.loads(first.out)
    assert (found["planned"], found["ok"], found["failed"], found["not_started"]) == (6, 1, 1, 4)
    second = extract(manifest, out, "--part", "1/2")
    assert second.code == 0, second.err
    assert second.out.startswith("Share 1/2, 6 clips: 6 ok, 0 failed, 0 not done.")
    again = extract(manifest, out, "--part", "0/2", "--json")
    found = json.loads(again.out)
    assert again.code == 1
    assert (found["planned"], found["ok"], found["failed"], found["resumed"]) == (6, 5, 1, 1)
    assert (found["computed"], found["failure_codes"]) == (4, {"FRAME_MISSING": 1})
    assert not any((out / name).exists() for name in DERIVED)
    mended = extract(cropped, out, "--retry-failed")
    assert mended.code == 0, mended.err
    assert flowkit("verify", out).code == 0


@pytest.mark.slow
def test_new_clips_are_shared_out_too(cropped: Path, in_one_go: Path, tmp_path: Path) -> None:
    """A longer manifest on a folder that is done: two shares plan the rest once, and each does its part of it."""
    out, clips = tmp_path / "out", read_manifest(cropped)
    first = tmp_path / "first.csv"
    write_manifest(first, clips[:8])
    assert extract(first, out, "--root", cropped.parent).code == 0
    runs = [start("extract", cropped, "--out", out, *TINY, "--part", f"{index}/2", "--json") for index in range(2)]
    found = [json.loads(run.communicate(timeout=300)[0]) for run in runs]
    assert [(s["planned"], s["resumed"], s["computed"]) for s in found] == [(6, 4, 2), (6, 4, 2)]
    assert len(pipeline.read_generations(out)) == 2
    assert shard_bytes(out) == shard_bytes(in_one_go)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--overwrite", "overwrite must come without a share; got both, and each share would discard"),
        ("--retry-failed", "When all shares have ended, set it once without a share."),
    ],
)
def test_what_would_harm_the_other_shares_is_refused(
    in_one_go: Path, cropped: Path, tmp_path: Path, flag: str, says: str
) -> None:
    out = shutil.copytree(in_one_go, tmp_path / "out")
    done = extract(cropped, out, "--part", "0/2", flag)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert shard_bytes(out) == shard_bytes(in_one_go)


def test_a_share_never_begins_a_folder_anew(cropped: Path, in_one_go: Path, tmp_path: Path) -> None:
    """Without --part, a folder of other settings that holds no shard is begun anew; another share may just be at it."""
    out = shutil.copytree(in_one_go, tmp_path / "out")
    shutil.rmtree(out / "shards")
    done = extract(cropped, out, "--part", "0/2", "--set", "tvl1.lambda_=0.1")
    assert done.code == 2
    assert "tvl1.lambda_ 0.15 -> 0.1" in done.err
    assert "to begin anew, remove the folder before they start" in done.err
    assert (out / "run.json").read_bytes() == (in_one_go / "run.json").read_bytes()


def test_a_damaged_record_is_set_aside_by_its_own_share_only(in_one_go: Path, cropped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(in_one_go, tmp_path / "out")
    record = commit.record_path(out, 1)
    record.write_bytes(record.read_bytes()[:40])
    other = extract(cropped, out, "--part", "0/2", "--json")
    assert (other.code, json.loads(other.out)["computed"]) == (0, 0)
    assert record.exists()
    own = extract(cropped, out, "--part", "1/2", "--json")
    assert (own.code, json.loads(own.out)["computed"]) == (0, 2)
    assert "was moved here" in own.err
    assert shard_bytes(out) == shard_bytes(in_one_go)
    assert flowkit("verify", out).code == 0


def test_a_share_without_a_task_says_so(cropped: Path, in_one_go: Path) -> None:
    done = extract(cropped, in_one_go, "--part", "8/9", "--json")
    assert done.code == 0
    assert "share 8/9 holds no task" in done.err
    assert json.loads(done.out)["planned"] == 0


def test_dry_run_shows_the_share(cropped: Path, tmp_path: Path) -> None:
    done = extract(cropped, tmp_path / "out", "--part", "1/4", "--dry-run", "--json")
    found = json.loads(done.out)
    assert (done.code, found["shard"], found["planned"], found["pending"], found["tasks"]) == (0, "1/4", 4, 4, 2)
    assert not (tmp_path / "out").exists()
    assert json.loads(extract(cropped, tmp_path / "out", "--dry-run", "--json").out)["shard"] is None


def test_an_array_that_is_not_split_is_warned_of(cropped: Path, tmp_path: Path) -> None:
    """Never split by itself: a user who runs one data set an element would get a part of each."""
    element = array(2, 0, 3, 1, 4)
    done = extract(cropped, tmp_path / "out", "--dry-run", "--json", **element)
    assert done.code == 0
    assert "Warning: this is element 2 of a SLURM job array" in done.err
    assert "--part slurm" in done.err
    assert json.loads(done.out)["planned"] == 12
    split = extract(cropped, tmp_path / "out", "--dry-run", "--json", "--part", "slurm", **element)
    assert (split.err, json.loads(split.out)["shard"]) == ("", "2/4")
    assert array_warning({}) is None


def test_free_space_is_asked_for_the_share(cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for one share of three begins it, and begins nothing without --part."""
    free = shutil.disk_usage(tmp_path)._replace(free=5 * sample_bytes(SIZE, keep_faces=False))
    monkeypatch.setattr(durable_files.shutil, "disk_usage", lambda path: free)
    config = load_config(None, align__method="none", align__size=SIZE, shard__clips=2)
    with pytest.raises(DiskFull, match="free space must be at least"):
        pipeline.extract(cropped, tmp_path / "whole", config)
    summary = pipeline.extract(cropped, tmp_path / "share", config, RunOptions(share=Share(0, 3)))
    assert (summary.planned, summary.ok, summary.exit_code) == (4, 4, 0)


def test_the_old_name_of_the_option_works_with_a_warning(cropped: Path, tmp_path: Path) -> None:
    old = extract(cropped, tmp_path / "out", "--shard", "1/4", "--dry-run", "--json")
    assert "Warning: --shard is called --part now" in old.err
    assert json.loads(old.out) == json.loads(
        extract(cropped, tmp_path / "out", "--part", "1/4", "--dry-run", "--json").out
    )
    assert extract(cropped, tmp_path / "out", "--shard", "1/4", "--part", "1/4").code == 2
    assert "--shard" not in flowkit("extract", "--help").out.replace("--shard-clips", "")
