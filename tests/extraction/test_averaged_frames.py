"""`frames.average` from the manifest to the shard: what is recorded, noted, resumed and verified."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import SIZE, Done, flowkit, shard_bytes
from flowkit.config import ExtractConfig, settings_of
from flowkit.errors import ConfigError
from flowkit.storage.folder import ShardFolder
from flowkit.storage.quality import Flag
from flowkit.storage.run_file import stored_run
from flowkit.synthetic.dataset import SynthConfig, synthesise

FLAGS = ("--align", "none", "--size", str(SIZE), "--shard-clips", "2", "--batch", "2")
OFF = ("--set", "frames.average=off")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of four noisy clips at 200 frames per second: three folders, and one of them as a video once more."""
    config = SynthConfig(
        motion="bumps",
        subjects=1,
        classes=("smile", "frown", "surprise"),
        cropped=True,
        width=SIZE,
        height=SIZE,
        peak_px=(0.3, 0.6),
        noise=3.0,
        phase_frames=(10, 12),
        rest_frames=2,
    )
    folder = tmp_path_factory.mktemp("clips")
    manifest = synthesise(folder / "clips", config)
    as_video = synthesise(folder / "video", SynthConfig(**{**_plain(config), "classes": ("smile",), "format": "mkv"}))
    (video,) = rows_of(as_video)
    shutil.copy(as_video.parent / video["path"], manifest.parent / "smile.mkv")
    _write(manifest, [*rows_of(manifest), {**video, "clip_id": "video", "path": "smile.mkv", "fps": ""}])
    return manifest


def _plain(config: SynthConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SynthConfig.__dataclass_fields__}


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(manifest: Path, rows: list[dict[str, str]]) -> Path:
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def extract(manifest: Path, out: Path, *flags: str, workers: int = 1) -> Done:
    return flowkit("extract", manifest, "--out", out, *FLAGS, "--workers", str(workers), *flags)


def samples(out: Path) -> dict[str, dict[str, Any]]:
    return {sample["clip_id"]: sample for shard in ShardFolder.open(out).shards() for sample in shard.samples()}


@pytest.fixture(scope="module")
def averaged(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("averaged") / "out"
    assert extract(clips, out).code == 0
    return out


@pytest.fixture(scope="module")
def single(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    assert extract(clips, out, *OFF).code == 0
    return out


def test_the_shard_says_how_many_frames_each_key_frame_is_the_mean_of(averaged: Path, single: Path) -> None:
    before, after = samples(single), samples(averaged)
    for name, sample in after.items():
        assert sample["frames_averaged"].tolist() == [5, 5, 5]
        assert (sample["neighbours_hash"] == "") == (name == "video")
        assert not Flag(int(sample["qc"])) & Flag.NEIGHBOURS
        assert 0.4 < sample["noise"] / before[name]["noise"] < 0.65  # 5 ** -0.5 is 0.45; what moves adds to it
        assert sample["source_hash"] == before[name]["source_hash"]
    smile = next(name for name in after if "smile_" in name or name.endswith("smile"))
    assert np.abs(after["video"]["flow"] - after[smile]["flow"]).mean() < 0.2


def test_the_bytes_depend_neither_on_workers_nor_on_the_order_of_clips(
    clips: Path, averaged: Path, tmp_path: Path
) -> None:
    assert extract(clips, tmp_path / "two", workers=2).code == 0
    assert shard_bytes(tmp_path / "two") == shard_bytes(averaged)


def test_off_is_what_older_versions_did_and_resumes_their_folders(clips: Path, single: Path) -> None:
    for sample in samples(single).values():
        assert not {"frames_averaged", "neighbours_hash"} & set(sample)
    raw = json.loads((single / "run.json").read_text())
    assert "average" not in str(raw)
    assert stored_run(single)["settings"]["frames"]["average"] == "off"
    assert settings_of(single).frames.average == "off"
    again = extract(clips, single, *OFF, "--json")
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0)
    other = extract(clips, single)
    assert other.code == 2
    assert "frames.average off -> auto" in other.err


def test_the_fingerprint_of_off_is_that_without_the_setting() -> None:
    off = ExtractConfig.from_dict({"frames": {"average": "off"}})
    assert "average" not in off.to_dict()["frames"]
    assert (
        off.fingerprint()
        != ExtractConfig().fingerprint()
        != ExtractConfig.from_dict({"frames": {"average": 3}}).fingerprint()
    )


@pytest.mark.parametrize("value", ["auto", "off", 3, 15])
def test_the_setting_takes_a_word_or_an_odd_number(value: Any) -> None:
    assert ExtractConfig.from_dict({"frames": {"average": value}}).frames.average == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, "must be auto, off, or an odd number from 3 to 15; got {value!r}") for value in (2, -1, 0, 1, 17)),
        ("some", "must be one of auto, off or of type int; got 'some'. Choose one of them."),
        ("of", "got 'of'. Did you mean off?"),
        (3.0, "must be one of auto, off or of type int; got 3.0"),
        (True, "must be one of auto, off or of type int; got True"),
    ],
)
def test_any_other_value_is_refused_in_clear_words(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExtractConfig.from_dict({"frames": {"average": value}})
    assert message.format(value=value) in str(caught.value)


def test_clips_whose_neighbours_differ_are_noted_and_keep_single_frames(
    clips: Path, single: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(clips.parent, tmp_path / "clips")
    flash, frozen, cut = (row for row in rows_of(clips) if row["path"] != "smile.mkv")
    for row, change in ((flash, _flash), (frozen, _frozen), (cut, _damaged)):
        for key in ("onset", "apex", "offset"):
            change(root / row["path"], int(row[key]))
    out = tmp_path / "out"
    assert extract(root / "manifest.csv", out).code == 0
    found, alone = samples(out), samples(single)
    for row in (flash, frozen):
        sample = found[row["clip_id"]]
        assert sample["frames_averaged"].tolist() == [1, 1, 1]
        assert Flag.NEIGHBOURS in Flag(int(sample["qc"]))
        assert np.array_equal(sample["flow"], alone[row["clip_id"]]["flow"])
    sample = found[cut["clip_id"]]
    assert sample["frames_averaged"].tolist() == [4, 4, 4]  # one of the four neighbours is unreadable
    assert Flag.NEIGHBOURS in Flag(int(sample["qc"]))
    assert json.loads(flowkit("inspect", out, "--json").out)["qc"]["NEIGHBOURS"] == 3
    assert "NEIGHBOURS" in (out / "report.html").read_text()


def _flash(folder: Path, key: int) -> None:
    path = folder / f"{key + 1:04d}.png"
    cv2.imwrite(str(path), cv2.add(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 25))


def _frozen(folder: Path, key: int) -> None:
    shutil.copy(folder / f"{key:04d}.png", folder / f"{key - 1:04d}.png")


def _damaged(folder: Path, key: int) -> None:
    path = folder / f"{key - 1:04d}.png"
    path.write_bytes(path.read_bytes()[:100])


def test_verify_sources_finds_a_changed_neighbour(clips: Path, averaged: Path, tmp_path: Path) -> None:
    root = shutil.copytree(clips.parent, tmp_path / "clips")
    out = shutil.copytree(averaged, tmp_path / "out")
    assert extract(root / "manifest.csv", out, "--verify-sources").code == 0
    row = rows_of(clips)[0]
    _flash(root / row["path"], int(row["apex"]))
    done = extract(root / "manifest.csv", out, "--verify-sources")
    assert done.code == 2
    assert (
        f"SOURCE_CHECKSUM: {row['path']}: frames beside the key frames must be those of the extraction, hash"
        in done.err
    )
    assert flowkit("check", root / "manifest.csv").code == 0
