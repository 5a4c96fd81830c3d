"""`flowkit extract` as a user meets it: the same bytes whatever happens, nothing lost, clear words."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import SIZE, SMALL, Done, flowkit, shard_bytes, start
from flowkit.config import load_config
from flowkit.errors import BackendUnavailable
from flowkit.extraction import pipeline
from flowkit.storage.folder import ShardFolder


def extract(manifest: Path, out: Path, *more: str | Path, **environment: str) -> Done:
    return flowkit("extract", manifest, "--out", out, *SMALL, *more, **environment)


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, found: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if path.is_file()]


def test_the_flow_is_that_of_the_clip(undisturbed: Path, cropped: Path) -> None:
    """Every phase points where the truth does, and is nearer to it than no flow; labels and numbers are where they belong.

    Bumps of three hundredths of a px are no expression that the head fit knows.
    """
    by_id = {row["clip_id"]: row for row in rows(cropped)}
    errors, lengths = [], []
    for shard in ShardFolder.open(undisturbed).shards():
        for sample in shard.samples():
            row = by_id[sample["clip_id"]]
            assert (sample["label"], sample["subject"]) == (row["label"], row["subject"])
            assert (sample["onset"], sample["apex"]) == (int(row["onset"]), int(row["apex"]))
            truth = np.load(cropped.parent / "truth" / f"{sample['clip_id']}.npz")["flow_local"]
            face = sample["regions"] > 0
            flow = sample["flow"].astype(np.float32) * face
            cosine = (flow * truth).sum(axis=(1, 2, 3)) / np.sqrt(
                (flow**2).sum((1, 2, 3)) * ((truth * face) ** 2).sum((1, 2, 3))
            )
            assert (cosine > 0.5).all(), (sample["clip_id"], cosine)
            errors.append(np.linalg.norm(flow - truth * face, axis=1).mean(axis=(1, 2)))
            lengths.append(np.linalg.norm(truth * face, axis=1).mean(axis=(1, 2)))
            assert sample["mmcof"].shape == (3, SIZE, SIZE)
            assert 0.5 < sample["mmcof"][2].max() <= 1
    assert len(errors) == len(by_id)
    assert (np.mean(errors, axis=0) < 0.95 * np.mean(lengths, axis=0)).all()


def test_a_second_run_computes_nothing(undisturbed: Path, cropped: Path) -> None:
    before = shard_bytes(undisturbed)
    done = extract(cropped, undisturbed, "--json")
    assert done.code == 0
    assert json.loads(done.out)["computed"] == 0
    assert "12 clips are done" in done.err
    assert shard_bytes(undisturbed) == before


@pytest.mark.parametrize(
    "how", [("--workers", "1", "--threads", "1", "--batch", "5"), ("--workers", "3", "--batch", "1")]
)
def test_bytes_do_not_depend_on_workers_or_batches(
    undisturbed: Path, cropped: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    done = extract(cropped, tmp_path / "out", *how)
    assert done.code == 0
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert re.search(rf"^Bound by .* clips/s.* with {how[1]} worker", done.out, re.MULTILINE)


def test_bytes_do_not_depend_on_the_order_of_the_manifest(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    found = rows(cropped)
    random.Random(1).shuffle(found)
    manifest = write_rows(tmp_path / "shuffled.csv", found)
    assert extract(manifest, tmp_path / "out", "--root", cropped.parent).code == 0
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)


def test_a_bad_clip_first_changes_no_other_clip(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    """A tiny image is what makes OpenCV's solver object go wrong for every later clip."""
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    tiny = root / "frames" / "tiny"
    tiny.mkdir()
    first = next(iter(sorted((root / rows(cropped)[0]["path"]).glob("*.png"))))
    for name in ("1.png", "2.png", "3.png"):
        import cv2

        cv2.imwrite(str(tiny / name), cv2.resize(cv2.imread(str(first)), (8, 8)))
    bad = {**rows(cropped)[0], "clip_id": "!first", "path": "frames/tiny", "onset": "1", "apex": "2", "offset": "3"}
    manifest = write_rows(root / "bad.csv", [bad, *rows(cropped)])
    assert extract(manifest, tmp_path / "out").code == 1
    assert samples(tmp_path / "out") == samples(undisturbed)


def samples(out: Path) -> dict[str, str]:
    """Hash of each clip's numbers."""
    return {s["clip_id"]: s["sample_hash"] for shard in ShardFolder.open(out).shards() for s in shard.samples()}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_stopped_run_says_so_and_goes_on(
    undisturbed: Path, cropped: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start("extract", cropped, "--out", out, *SMALL)
    while not (out / "plan" / "000000.json").exists():
        time.sleep(0.02)
        assert process.poll() is None
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: workers get it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Run the same command again" in err
    assert leftovers(out) == []
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)


@pytest.mark.slow
def test_two_runs_at_once_give_one_result(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [start("extract", cropped, "--out", out, *SMALL) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    for run in runs:
        run.communicate()
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert flowkit("verify", out).code == 0


def test_changed_settings_are_refused_by_name(undisturbed: Path, cropped: Path) -> None:
    before = shard_bytes(undisturbed)
    done = extract(cropped, undisturbed, "--set", "tvl1.lambda_=0.1")
    assert done.code == 2
    assert "tvl1.lambda_ 0.15 -> 0.1" in done.err
    assert "--overwrite to discard 3 shards" in done.err
    assert shard_bytes(undisturbed) == before


def test_overwrite_discards_and_begins_anew(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    done = extract(cropped, out, "--set", "tvl1.lambda_=0.1", "--overwrite")
    assert done.code == 0
    assert not shard_bytes(out).items() & shard_bytes(undisturbed).items()


@pytest.mark.parametrize("flags", [("--align", "mediapipe", "--face-model", "/nope.task"), ("--backend", "cuda")])
def test_overwrite_destroys_nothing_before_the_settings_hold(
    undisturbed: Path, cropped: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    assert extract(cropped, out, "--overwrite", *flags).code == 3
    assert shard_bytes(out) == shard_bytes(undisturbed)


def test_a_folder_that_holds_nothing_yet_takes_other_settings(cropped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("extract", cropped, "--out", out, *SMALL)
    while not (out / "plan" / "000000.json").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert shard_bytes(out) == {}
    assert extract(cropped, out, "--set", "tvl1.lambda_=0.1").code == 0
    assert flowkit("verify", out).code == 0


def test_a_lost_plan_is_an_error_and_no_new_beginning(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    shutil.rmtree(out / "plan")
    done = extract(cropped, out)
    assert done.code == 1
    assert "must belong to the plan" in done.err
    assert flowkit("verify", out).code == 1


def test_landmarks_that_cannot_be_read_are_told_before_anything_is_written(cropped: Path, tmp_path: Path) -> None:
    bad = tmp_path / "points.csv"
    bad.write_text("clip_id,point,x,y\na,9999,x,y\n")
    done = extract(cropped, tmp_path / "out", "--align", "landmarks", "--landmarks", bad)
    assert done.code == 2
    assert "9999" in done.err
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(cropped: Path, tmp_path: Path) -> None:
    done = extract(cropped, tmp_path / "out", "--dry-run", "--json")
    assert done.code == 0
    assert json.loads(done.out)["pending"] == 12
    assert not (tmp_path / "out").exists()


def test_clips_that_come_later_get_shards_of_their_own(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    out, found = tmp_path / "out", rows(cropped)
    first = write_rows(tmp_path / "first.csv", found[::2])
    assert extract(first, out, "--root", cropped.parent).code == 0
    before = shard_bytes(out)
    assert extract(cropped, out).code == 0
    after = shard_bytes(out)
    assert before.items() < after.items()
    assert samples(out) == samples(undisturbed)
    assert flowkit("verify", out).code == 0


def test_a_row_that_changed_after_its_commit_is_refused(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    found = rows(cropped)
    found[0]["label"] = "other"
    done = extract(write_rows(tmp_path / "changed.csv", found), undisturbed, "--root", cropped.parent)
    assert done.code == 2
    assert "rows of committed clips must stay as they were" in done.err


def test_too_many_failures_stop_the_run_and_are_counted(cropped: Path, tmp_path: Path) -> None:
    found = rows(cropped)
    for number, row in enumerate(found):
        row["clip_id"] = f"{number:02d}"  # so that the bad ones are the first task
        if number < 5:
            row["path"] = "frames/nowhere"
    manifest = write_rows(tmp_path / "bad.csv", found)
    out = tmp_path / "out"
    done = extract(manifest, out, "--root", cropped.parent, "--json")
    assert done.code == 1
    assert "--max-error-rate" in done.err
    summary = json.loads(done.out)
    assert summary["failed"] == 5
    assert summary["planned"] == summary["ok"] + summary["failed"] + summary["not_started"]
    again = extract(manifest, out, "--root", cropped.parent, "--max-error-rate", "1", "--json")
    assert (again.code, json.loads(again.out)["ok"]) == (1, 7)


def test_failures_of_an_earlier_run_stop_no_later_one(cropped: Path, tmp_path: Path) -> None:
    """Two clips, one of them bad, then a third: it must be computed, and so must the bad one once its row is mended."""
    found = rows(cropped)[:3]
    good_path, found[0]["path"] = found[0]["path"], "frames/nowhere"
    out, root = tmp_path / "out", ("--root", str(cropped.parent))
    assert extract(write_rows(tmp_path / "a.csv", found[:2]), out, *root).code == 1
    done = extract(write_rows(tmp_path / "b.csv", found), out, *root, "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (1, 2)
    found[0]["path"] = good_path
    done = extract(write_rows(tmp_path / "c.csv", found), out, *root, "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (0, 3)


def test_failed_clips_are_tried_again_on_request(cropped: Path, tmp_path: Path) -> None:
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    manifest = root / "manifest.csv"
    victim = next(iter(sorted((root / rows(manifest)[3]["path"]).glob("*.png"))))
    content = victim.read_bytes()
    victim.unlink()
    out = tmp_path / "out"
    assert extract(manifest, out).code == 1
    victim.write_bytes(content)
    assert extract(manifest, out).code == 1  # not without being asked
    done = extract(manifest, out, "--retry-failed")
    assert done.code == 0, done.err
    assert (out / "failures.csv").read_text().count("\n") == 1
    assert len(samples(out)) == 12
    assert flowkit("verify", out).code == 0


def test_a_full_disk_ends_cleanly_and_goes_on(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    """A file size limit on the whole process stands in for the disk."""
    out = tmp_path / "out"
    limit = ("bash", "-c", 'trap "" XFSZ; ulimit -f 300; exec "$@"', "limit")
    done = flowkit("extract", cropped, "--out", out, *SMALL, before=limit)
    assert done.code == 74, done.err
    assert "must have room for" in done.err
    assert shard_bytes(out) == {}
    assert leftovers(out) == []
    assert extract(cropped, out).code == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)


def test_a_changed_source_is_found_on_request(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    assert extract(root / "manifest.csv", undisturbed, "--verify-sources").code == 0
    victim = next(iter(sorted((root / rows(cropped)[0]["path"]).glob("*.png"))))
    victim.write_bytes(victim.read_bytes() + b"!")
    done = extract(root / "manifest.csv", undisturbed, "--verify-sources")
    assert done.code == 2
    assert "SOURCE_CHECKSUM" in done.err


def test_phases_without_length_give_zero_flow_and_are_marked(cropped: Path, tmp_path: Path) -> None:
    found = rows(cropped)[:3]
    found[0]["apex"] = found[0]["onset"]
    found[1]["offset"] = found[1]["apex"]
    found[2]["offset"] = ""
    manifest = write_rows(tmp_path / "short.csv", found)
    out = tmp_path / "out"
    done = extract(manifest, out, "--root", cropped.parent, "--missing-offset", "invalid", "--json")
    assert (done.code, json.loads(done.out)["phases_invalid"]) == (0, 3)
    again = extract(manifest, out, "--root", cropped.parent, "--missing-offset", "invalid", "--json")
    assert (json.loads(again.out)["computed"], json.loads(again.out)["phases_invalid"]) == (0, 3)
    (shard,) = ShardFolder.open(out).shards()
    by_id = {sample["clip_id"]: sample for sample in shard.samples()}
    for row, valid in zip(found, ([False, True], [True, False], [True, False]), strict=True):
        sample = by_id[row["clip_id"]]
        assert sample["phase_valid"].tolist() == valid
        assert [bool(phase.any()) for phase in sample["flow"]] == valid
        assert sample["mmcof"].any()
    assert by_id[found[2]["clip_id"]]["offset"] == -1
    strict = extract(
        manifest, tmp_path / "strict", "--root", cropped.parent, "--strict-phases", "--max-error-rate", "1"
    )
    assert strict.code == 1
    codes = {row["code"] for row in rows(tmp_path / "strict" / "failures.csv")}
    assert codes == {"PHASE_INVALID", "OFFSET_MISSING"}


def test_an_empty_apex_follows_the_declared_policy(cropped: Path, tmp_path: Path) -> None:
    found = rows(cropped)[:1]
    found[0].update(apex="", offset=found[0]["apex"])
    manifest = write_rows(tmp_path / "gap.csv", found)
    done = extract(manifest, tmp_path / "fail", "--root", cropped.parent, "--max-error-rate", "1")
    assert "APEX_MISSING" in (tmp_path / "fail" / "failures.csv").read_text()
    assert done.code == 1
    assert extract(manifest, tmp_path / "offset", "--root", cropped.parent, "--missing-apex", "offset").code == 0
    (shard,) = ShardFolder.open(tmp_path / "offset").shards()
    assert shard.sample(0)["apex_source"] == "offset"


def test_faces_are_kept_only_on_request_and_archives_read_back(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert extract(cropped, out, "--keep-faces", "--compress", "zstd").code == 0
    assert flowkit("verify", out).code == 0
    kept = next(iter(ShardFolder.open(out).shards())).sample(0)
    plain = next(iter(ShardFolder.open(undisturbed).shards())).sample(0)
    assert "faces" not in plain
    assert kept["faces"].shape == (3, SIZE, SIZE)
    assert np.array_equal(kept["flow"], plain["flow"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--device", "0", "--backend", "cpu"), "--device must go with a GPU backend"),
        (("--device", "0,x"), "--device must be indices of GPUs"),
        (("--device", "1,1"), "devices must be indices from 0 to 9999, as whole numbers, each once"),
        (("--cluster", "somewhere"), "--cluster must be local, an address"),
        (("--part", "2/2"), "The shares of 2 are 0/2, 1/2."),
        (("--set", "tvl1.lambda=1", "--workers", "2"), "tvl1.lambda: unknown setting. Did you mean tvl1.lambda_?"),
        (("--batch", "0"), "batch must be from 1"),
        (("--root", "/nowhere"), "--root must be a folder"),
        (("--config", "/nowhere.toml"), "settings must be a readable TOML file"),
    ],
)
def test_bad_usage_ends_before_anything_is_written(
    cropped: Path, tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    done = extract(cropped, tmp_path / "out", *flags)
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wanted", ["auto", "numba-cuda"])
def test_a_folder_keeps_its_backend_where_that_is_not_there(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """The next step that the error names would be refused for this folder, so it says that too."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    stored = {"backend": "numba-cuda", "settings": load_config(None, backend="numba-cuda").to_dict()}
    monkeypatch.setattr(pipeline, "read_run", lambda _: stored)
    with pytest.raises(BackendUnavailable, match="holds numba-cuda: another backend needs another --out"):
        pipeline.extract(cropped, tmp_path / "out", load_config(None, backend=wanted))


def test_a_backend_that_is_not_there_is_no_other_backend(cropped: Path, tmp_path: Path) -> None:
    done = extract(cropped, tmp_path / "out", "--backend", "cuda")
    assert done.code == 3
    assert "choose the backend cpu" in done.err
    assert "another --out" not in done.err
