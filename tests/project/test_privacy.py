"""Faces are personal data: none is stored, shown or left behind unless --keep-faces asks for it. docs/privacy.md says the rest."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from conftest import SIZE, SMALL, flowkit
from flowkit.inputs.manifest import read_manifest
from flowkit.storage.folder import ShardFolder
from flowkit.storage.schema import COLUMNS

ALIKE = 0.9
"""Correlation above which a picture shows the face: of frames of one clip it is above 0.99."""
CLOSED_LIST = {
    *(
        "flow",
        "mmcof",
        "regions",
        "clip_id",
        "dataset",
        "subject",
        "label",
        "onset",
        "apex",
        "offset",
        "apex_source",
        "fps",
    ),
    *("phase_valid", "qc", "n_faces", "transform", "registration", "light", "removed", "residual", "landmarks"),
    *("turn", "removed_turn", "depth", "separation", "au_hint", "noise", "contrast", "data_weight"),
    *("frames_averaged", "neighbours_hash"),
    *("source_hash", "extra", "sample_hash"),
}
"""What docs/privacy.md lists. A new column has to be looked at there first."""


@pytest.fixture(scope="module")
def kept(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `cropped`, with faces."""
    out = tmp_path_factory.mktemp("kept") / "out"
    done = flowkit("extract", cropped, "--out", out, *SMALL, "--keep-faces")
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def faces(cropped: Path) -> list[np.ndarray]:
    """Onset of every clip, (SIZE, SIZE) float64."""
    roots = [cropped.parent / clip.path for clip in read_manifest(cropped)]
    return [cv2.imread(str(sorted(root.glob("*.png"))[0]), cv2.IMREAD_GRAYSCALE).astype(float) for root in roots]


def likeness(picture: Any, faces: list[np.ndarray]) -> float:
    """Highest correlation of a picture with any of the faces; 0 of what is no picture."""
    values = np.nan_to_num(np.asarray(picture, float))
    if values.ndim != 2 or min(values.shape) < 8 or values.std() == 0:
        return 0.0
    fitted = cv2.resize(values, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return max(abs(float(np.corrcoef(fitted.ravel(), face.ravel())[0, 1])) for face in faces)


def planes(values: Any) -> list[np.ndarray]:
    """Every two-dimensional part of an array of numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        return []
    return list(array.reshape(-1, *array.shape[-2:]))


def pictures(page: str) -> list[np.ndarray]:
    """Every picture in a page, as grey."""
    found = re.findall(r'data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)"', page)
    assert len(found) == page.count("base64,")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), float) for data in found]


def test_a_shard_holds_the_closed_list_and_no_face(undisturbed: Path, faces: list[np.ndarray]) -> None:
    assert {column.name for column in COLUMNS if column.name != "faces"} == CLOSED_LIST
    files = sorted(undisturbed.glob("shards/*/*.h5"))
    assert files
    for path in files:
        with h5py.File(path) as file:
            assert set(file) == CLOSED_LIST
            for name in file:
                assert max((likeness(plane, faces) for plane in planes(file[name][()])), default=0) < ALIKE, name


def test_keep_faces_stores_them_and_says_so(kept: Path, faces: list[np.ndarray]) -> None:
    for shard in ShardFolder.open(kept).shards():
        for sample in shard.samples():
            assert likeness(sample["faces"][0], faces) > 0.99  # and so the measure finds one where there is one
    assert ShardFolder.open(kept).run["settings"]["shard"]["keep_faces"] is True


def test_the_report_shows_faces_only_where_the_shards_keep_them(
    undisturbed: Path, kept: Path, faces: list[np.ndarray]
) -> None:
    shown = {out: (out / "report.html").read_text() for out in (undisturbed, kept)}
    alike = {out: [likeness(picture, faces) > ALIKE for picture in pictures(page)] for out, page in shown.items()}
    assert len(alike[undisturbed]) > 12
    assert sum(alike[undisturbed]) == 0
    assert sum(alike[kept]) == 12 * 3  # onset, apex and offset of each clip
    assert ("personal data" in shown[kept], "personal data" in shown[undisturbed]) == (True, False)


@pytest.mark.parametrize("form", ["npz", "png", "stst"])
def test_an_export_holds_no_face(undisturbed: Path, faces: list[np.ndarray], tmp_path: Path, form: str) -> None:
    done = flowkit("export", undisturbed, "--format", form, "--out", tmp_path / "out")
    assert done.code in (0, 1), done.err  # stst has no place for these labels
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for path in files:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                assert {Path(name).stem for name in archive.namelist()} == CLOSED_LIST | {"units"}
            with np.load(path) as arrays:
                assert all(likeness(plane, faces) < ALIKE for name in arrays for plane in planes(arrays[name]))
        elif path.suffix == ".png":
            assert likeness(Image.open(path).convert("L"), faces) < ALIKE
        else:
            assert path.suffix in (".csv", ".json")
    assert form == "stst" or len(files) >= 12


def test_nothing_but_the_output_is_left_on_the_disk(cropped: Path, faces: list[np.ndarray], tmp_path: Path) -> None:
    """No picture in a temporary file, in a log or in the list of failures."""
    home, temporary, out = tmp_path / "home", tmp_path / "tmp", tmp_path / "out"
    home.mkdir()
    temporary.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / "cache")}
    manifest = tmp_path / "clips.csv"
    rows = cropped.read_text().splitlines()
    manifest.write_text("\n".join([*rows, rows[1].replace("s01_smile_01", "not_there"), ""]))
    flags = ("--root", cropped.parent, *SMALL, "--max-error-rate", "1")
    done = flowkit("extract", manifest, "--out", out, *flags, **places)
    assert done.code == 1, done.err
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
    kinds = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()}
    assert kinds == {"run.json", "plan", "shards", "index.npz", "failures.csv", "report.html"}
    texts = [path.read_text() for path in out.rglob("*") if path.is_file() and path.suffix not in (".h5", ".npz")]
    with np.load(out / "index.npz") as index:
        assert all(index[name].ndim <= 2 and index[name].shape[1:] in ((), (2,)) for name in index)  # texts and numbers
    for text in (*texts, done.out, done.err):
        longest = max(map(len, re.findall(r"[A-Za-z0-9+/=]+", re.sub(r'"data:image/png;base64,[^"]*"', "", text))))
        assert longest <= 64, "more than a hash"


def test_the_paths_of_failed_clips_are_the_manifests_not_the_disks(cropped: Path, tmp_path: Path) -> None:
    """No name of a home folder goes along when failures.csv or the shards are given away."""
    secret_root = tmp_path / "home-of-somebody"
    secret_root.mkdir()
    rows = cropped.read_text().splitlines()[:2]
    (tmp_path / "clips.csv").write_text("\n".join([*rows, ""]))
    out = tmp_path / "out"
    done = flowkit(
        *("extract", tmp_path / "clips.csv", "--root", secret_root, "--out", out, *SMALL, "--max-error-rate", "1")
    )
    assert done.code == 1
    for path in out.rglob("*"):
        assert not path.is_file() or b"home-of-somebody" not in path.read_bytes(), path
