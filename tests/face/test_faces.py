"""Whole faces through mediapipe: rendered from the bundled face for everyone, and two real videos where they lie beside us."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from conftest import flowkit
from flowkit.storage.folder import ShardFolder
from flowkit.synthetic.dataset import SynthConfig, synthesise

REAL = Path(__file__).parents[3] / "shared" / "data" / "faces"
CLIP = {"onset": "0", "apex": "15", "offset": "40", "subject": "s01", "dataset": "real", "label": "smile"}
SMALL = ("--size", "128", "--workers", "2")


def only_sample(out: Path) -> dict[str, object]:
    (shard,) = ShardFolder.open(out).shards()
    (sample,) = shard.samples()
    return sample


@pytest.mark.parametrize("kind", ["png", "mkv", "mp4"])
def test_a_rendered_face_is_found_aligned_and_measured(tmp_path: Path, kind: str) -> None:
    config = SynthConfig(
        motion="bumps",
        subjects=1,
        classes=("smile",),
        format=kind,
        light=0.02,
        phase_frames=(6, 8),
        peak_px=(2.0, 2.5),
        drift_px=3,
    )
    manifest = synthesise(tmp_path / "clips", config)
    done = flowkit("extract", manifest, "--out", tmp_path / "out", *SMALL)
    assert done.code == 0, done.err
    sample = only_sample(tmp_path / "out")
    residual, flow, regions = (np.asarray(sample[name]) for name in ("residual", "flow", "regions"))
    assert sample["n_faces"] == 1
    assert (residual < 0.15).all()
    length = np.hypot(flow[:, 0], flow[:, 1]).astype(np.float32)
    assert (np.quantile(length[:, regions > 0], 0.99, axis=1) > 4 * residual).all(), "the smile stands out"
    assert np.median(np.abs(np.asarray(sample["registration"])[:, :, 2])) > 0.05, "the head drifted"


def test_landmarks_from_a_file_stand_in_for_the_detector(tmp_path: Path) -> None:
    manifest = synthesise(
        tmp_path / "clips", SynthConfig(motion="bumps", subjects=1, classes=("smile",), key_frames_only=True)
    )
    given = ("--align", "landmarks", "--landmarks", manifest.parent / "landmarks.csv")
    found = [tmp_path / "found", tmp_path / "given"]
    assert flowkit("extract", manifest, "--out", found[0], *SMALL).code == 0
    assert flowkit("extract", manifest, "--out", found[1], *SMALL, *given).code == 0
    detected, read = (only_sample(out) for out in found)
    corners = np.array([[0, 0, 1], [127, 0, 1], [0, 127, 1], [127, 127, 1]]).T
    between = [np.linalg.inv(np.vstack([np.asarray(s["transform"]), [0, 0, 1]])) @ corners for s in (detected, read)]
    assert np.abs(between[0] - between[1]).max() < 4, "both crops show the same part of the frame, within a few pixels"


def real(name: str) -> Path:
    if not (REAL / name).is_file():
        pytest.skip("no ../shared")
    return REAL / name


def manifest_of(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_real_videos_a_smile_is_measured_and_a_video_without_a_face_is_a_failure(tmp_path: Path) -> None:
    smile, nobody = real("single_face.mp4"), real("no_face.mp4")
    rows = [
        {"clip_id": "smile", "path": smile.name, **CLIP, "onset": "12", "apex": "18", "offset": "24"},
        {"clip_id": "nobody", "path": nobody.name, **CLIP, "subject": "s02"},
    ]
    out = tmp_path / "out"
    done = flowkit(
        "extract", manifest_of(tmp_path, rows), "--root", REAL, "--out", out, *SMALL, "--max-error-rate", "1"
    )
    assert done.code == 1, done.err
    with (out / "failures.csv").open(newline="") as file:
        (failure,) = csv.DictReader(file)
    assert (failure["clip_id"], failure["code"]) == ("nobody", "FACE_NOT_FOUND")
    sample = only_sample(out)
    length = np.hypot(*np.asarray(sample["flow"])[0].astype(np.float32))
    landmarks = np.asarray(sample["landmarks"]) @ np.asarray(sample["transform"])[:, :2].T
    x, y = (landmarks[[61, 291]] + np.asarray(sample["transform"])[:, 2]).round().astype(int).T
    lips = np.mean([length[b - 5 : b + 6, a - 5 : a + 6].mean() for a, b in zip(x, y, strict=True)])
    assert lips > 3 * np.asarray(sample["residual"])[0], "the lips move, the rest of the face hardly"
