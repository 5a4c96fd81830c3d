"""`flowkit export`: what was written reads back as what was stored; nothing of others is touched; what is stopped goes on."""

from __future__ import annotations

import csv
import functools
import json
import os
import resource
import signal
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import flowkit, start
from flowkit.cli import main
from flowkit.errors import ConfigError, DiskFull, SettingsChanged
from flowkit.interop.export import MARKER, export
from flowkit.interop.export_formats import (
    MAX_NAME,
    FileNames,
    Refused,
    direction_picture,
    file_name,
    scaled_picture,
    strain,
)
from flowkit.interop.stst_import import import_stst
from flowkit.interop.stst_layout import LIST_FILE, SIDE
from flowkit.storage import durable_files
from flowkit.storage.folder import ShardFolder
from flowkit.storage.schema import COLUMNS
from shard_builder import LABELS, build_folder

text_of = functools.partial(urllib.parse.unquote, errors="strict")
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "megc-flow28"
DATASETS = ("casme2", "smic-hs")
WORDS = ("happiness", "surprise", "disgust", "others")


def samples(out: Path) -> dict[str, dict[str, Any]]:
    return {sample["clip_id"]: sample for shard in ShardFolder.open(out).shards() for sample in shard.samples()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine CASME II clips in five shards, one label of which belongs to no class."""
    return build_folder(tmp_path_factory.mktemp("shards"), clips=9, labels=WORDS, datasets=("casme2",), keep_faces=True)


# --- names


@given(st.text(min_size=1, max_size=60))
def test_names_hold_nothing_that_a_file_system_minds_and_give_the_text_back(text: str) -> None:
    try:
        name = file_name(text)
    except (Refused, UnicodeEncodeError):  # too long; half a surrogate, which no manifest can hold
        return
    assert text_of(name) == text
    assert name.isascii()
    assert not set(name) & set('/\\ :*?"<>|\0')
    assert not name.startswith(".")
    assert len(name) <= MAX_NAME


@pytest.mark.parametrize("text", ["..", ".", "../../etc/passwd", "/", "a/b", "a%2Fb", "sub 01", "é", "~"])
def test_awkward_names_are_safe_and_different(text: str, tmp_path: Path) -> None:
    assert (tmp_path / file_name(text)).resolve().parent == tmp_path.resolve()
    assert file_name(text) not in {file_name(other) for other in ("a", "a/", "a%2fb", "b")}
    assert text_of(file_name(text)) == text


def test_texts_that_differ_in_capitals_alone_have_names_that_differ_in_more() -> None:
    """File systems of macOS and Windows would give both one file."""
    texts = ["sub01/Aé", "Sub01/aé", "SUB01/aé", "sub01/AÉ", "b"]
    names = FileNames()
    found = [names.of(text) for text in texts]
    assert found[0] == file_name(texts[0])
    assert len({name.casefold() for name in found}) == len(texts)
    assert [text_of(name) for name in found] == texts
    assert [names.of(text) for text in texts] == found
    with pytest.raises(Refused):
        [names.of(text) for text in ("x" * MAX_NAME, "X" * MAX_NAME)]


@pytest.mark.parametrize("text", ["con", "NUL", "com1", "Lpt9.2", "aux."])
def test_no_name_is_that_of_a_device_of_windows(text: str) -> None:
    assert file_name(text).startswith(f"%{ord(text[0]):02X}")
    assert text_of(file_name(text)) == text
    assert file_name(f"{text[0]}x{text[1:]}") == f"{text[0]}x{text[1:]}"


@pytest.mark.parametrize("name", ["npz", "png", "stst"])
def test_clips_that_differ_in_capitals_alone_all_have_files(tmp_path: Path, name: str) -> None:
    shards = build_folder(
        tmp_path / "shards", clips=3, labels=WORDS[:1], datasets=("casme2",), clip_ids=("A", "a", "b")
    )
    done = export(shards, tmp_path / "out", name)  # type: ignore[arg-type]
    assert (done.written, done.exit_code) == (3, 0)
    written = [path.name.casefold() for path in (tmp_path / "out").rglob("*.[np]*")]
    assert len(set(written)) == len(written) == 3 * {"npz": 1, "png": 3, "stst": 4}[name]


# --- npz


def test_npz_holds_every_column_bit_for_bit_and_needs_no_pickle(shards: Path, tmp_path: Path) -> None:
    done = export(shards, tmp_path / "out", "npz")
    assert (done.clips, done.written, done.there, done.exit_code) == (9, 9, 0, 0)
    listed = rows(tmp_path / "out" / "clips.csv")
    stored = samples(shards)
    assert [row["clip_id"] for row in listed] == sorted(stored)
    for row in listed:
        with np.load(tmp_path / "out" / row["file"], allow_pickle=False) as found:
            sample = stored[row["clip_id"]]
            assert set(found) == {column.name for column in COLUMNS} | {"units"}
            assert str(found["units"]) == "px"
            for name, value in sample.items():
                array = np.asarray(value)
                assert found[name].dtype == array.dtype
                assert found[name].tobytes() == array.tobytes(), name


def test_an_export_of_the_same_shards_has_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    for name in ("npz", "png", "stst"):
        export(shards, tmp_path / name / "a", name)  # type: ignore[arg-type]
        export(shards, tmp_path / name / "b", name)  # type: ignore[arg-type]
        assert files(tmp_path / name / "a") == files(tmp_path / name / "b")


# --- png


def test_png_shows_direction_as_hue_and_magnitude_as_value(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path / "out", "png")
    for row in rows(tmp_path / "out" / "clips.csv"):
        sample = samples(shards)[row["clip_id"]]
        flow = sample["flow"].astype(np.float64)
        rise = pixels(tmp_path / "out" / row["rise"])
        assert rise.shape == (32, 32, 3)
        magnitude = np.minimum(np.hypot(*flow[0]) / float(row["scale"]), 1)
        assert np.abs(rise.max(-1) / 255 - magnitude).max() < 1 / 255  # V of HSV is the largest of R, G and B
        assert np.abs(pixels(tmp_path / "out" / row["mmcof"]).max(-1) / 255 - sample["mmcof"][2]).max() < 1 / 255
        strongest = np.unravel_index(np.hypot(*flow[0]).argmax(), (32, 32))
        hue = Image.fromarray(rise).convert("HSV").getpixel(strongest[::-1])
        angle = np.degrees(np.arctan2(*flow[0][::-1, *strongest])) % 360
        assert isinstance(hue, tuple)
        assert abs((hue[0] * 360 / 255 - angle + 180) % 360 - 180) < 3
        assert (row["rise_valid"], row["fall_valid"]) == ("1", "0" if row["clip_id"] == "clip-001" else "1")
        assert (not pixels(tmp_path / "out" / row["fall"]).any()) == (row["clip_id"] == "clip-001")


# --- stst


def test_stst_is_read_by_import_as_the_scaled_original_within_a_grey_level(shards: Path, tmp_path: Path) -> None:
    done = export(shards, tmp_path / "out", "stst")
    assert (done.written, dict(done.left_out), dict(done.refused)) == (7, {"3-class leaves out casme2: others": 2}, {})
    found = import_stst(tmp_path / "out", tmp_path / "again")
    assert (found.ok, found.failed, found.extra_pictures, found.layout) == (7, 0, 0, "both phases")
    stored = samples(shards)
    classes = {"happiness": "positive", "surprise": "surprise", "disgust": "negative"}
    for sample in samples(tmp_path / "again").values():
        extra = json.loads(sample["extra"])
        original = stored[extra["clip_id"]]
        assert sample["label"] == classes[original["label"]]
        assert (sample["dataset"], sample["subject"]) == (original["dataset"], original["subject"])
        zeros, scales = (np.array(extra[name].split(), float).reshape(2, 2) for name in ("zero", "scale"))
        for phase in range(2):
            greys = sample["flow"][phase] * scales[phase][:, None, None] + zeros[phase][:, None, None]
            for component in range(2):
                wanted = block_means(original["flow"][phase][component].astype(np.float32))
                extent = wanted.max() - wanted.min()
                scaled = (
                    (wanted - wanted.min()) / extent * 255 if extent else np.full(wanted.shape, zeros[phase, component])
                )
                assert np.abs(greys[component] - scaled).max() <= 1


def block_means(channel: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Exact area averages at 28 x 28: each pixel split into as many parts as make whole blocks."""
    side = len(channel)
    parts = np.repeat(np.repeat(channel.astype(np.float64), SIDE, 0), SIDE, 1)
    return parts.reshape(SIDE, side, SIDE, side).mean((1, 3))


def test_shards_that_were_imported_come_out_as_they_went_in(tmp_path: Path) -> None:
    """What import kept of a public folder, export gives back: u and v to the bit, and the list."""
    if not REAL.is_dir():
        pytest.skip("no ../shared")
    import_stst(REAL, tmp_path / "shards")
    done = export(tmp_path / "shards", tmp_path / "out", "stst")
    assert (done.clips, done.written, done.exit_code) == (309, 309, 0)
    names = ("dataset", "sub", "filename_o", "label")
    public = {tuple(row[name] for name in names) for row in rows(REAL / LIST_FILE)}
    assert {tuple(row[name] for name in names) for row in rows(tmp_path / "out" / LIST_FILE)} == public
    theirs = REAL / "datasets" / "STSNet_whole_norm_u_v_os"
    ours = tmp_path / "out" / "datasets" / "STSNet_whole_norm_u_v_os"
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    same = []
    for row in rows(REAL / LIST_FILE):
        stem = f"{row['sub']}_{row['filename_o']}"
        for phase, direction in (("", "_2"), ("_1", "_3")):
            before, after = (pixels(folder / f"{stem}{phase} .png")[..., :2].astype(int) for folder in (theirs, ours))
            low, high = before.min((0, 1)), before.max((0, 1))
            assert np.abs((before - low) / (high - low) * 255 - after).max() <= 1  # float16 rounds by less
            whole = pixels(theirs / f"{stem}{phase} .png")
            same.append((direction_picture(whole) == pixels(theirs / f"{stem}{direction} .png")).all(-1).mean())
    assert np.mean(same) > 0.998


def test_folds_are_read_as_the_published_programs_read_them(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(shards, out, "stst").folds == 0
    assert export(shards, out, "stst", folds=True).folds == 5
    listed = {f"{row['sub']}_{row['filename_o']} .png": row for row in rows(out / LIST_FILE)}
    for subject in (out / "datasets" / "three_norm_u_v_os").iterdir():
        seen = {}
        for part in ("u_train", "u_test"):
            for path in (subject / part).glob("*/*"):
                seen[path.name] = (part, path.parent.name)
                assert pixels(path).shape == (SIDE, SIDE, 3)
        assert seen == {
            name: ("u_test" if row["sub"] == subject.name else "u_train", row["label"]) for name, row in listed.items()
        }
    assert export(shards, out, "stst", folds=True).there == 7
    with pytest.raises(ConfigError, match="--folds must come with --format stst; got npz"):
        export(shards, tmp_path / "other", "npz", folds=True)
    assert not (tmp_path / "other").exists()


def test_strain_of_a_stretch_a_shear_a_shift_and_a_turn() -> None:
    y, x = np.mgrid[:9, :9].astype(np.float64)
    assert np.allclose(strain(np.stack([0.1 * x, 0 * y])), 0.1)
    assert np.allclose(strain(np.stack([0.1 * y, 0 * y])), 0.1 / np.sqrt(2))
    assert np.allclose(strain(np.stack([0 * x + 3, 0 * y - 2])), 0)
    assert np.allclose(strain(np.stack([-0.1 * y, 0.1 * x])), 0)


def test_a_phase_without_motion_is_grey_and_its_strain_black() -> None:
    picture = scaled_picture(np.zeros((2, 224, 224), np.float32))
    assert picture.shape == (SIDE, SIDE, 3)
    assert (picture == [127, 127, 0]).all()


def test_clips_that_the_layout_has_no_place_for_are_refused_with_the_reason(tmp_path: Path) -> None:
    shards = build_folder(tmp_path / "in", clips=3, labels=("joy", "happiness", ""), datasets=("mine", "samm", "samm"))
    done = export(shards, tmp_path / "out", "stst")
    assert (done.written, sum(done.refused.values()), done.exit_code) == (1, 2, 1)
    assert set(done.refused) == {"3-class does not know mine: joy", "3-class does not know samm: no label"}


def test_clips_whose_pictures_would_have_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    """`x_1`'s rise would be named as `x`'s fall."""
    from flowkit.interop.export_formats import Stst

    form = Stst()
    sample = {"clip_id": "casme2/s1/x", "dataset": "casme2", "subject": "s1", "label": "disgust"}
    assert form.names(sample)[:2] == ("s1_x .png", "s1_x_1 .png")
    with pytest.raises(Refused, match="names of another clip's"):
        form.names({**sample, "clip_id": "casme2/s1/x_1"})
    assert form.names({**sample, "clip_id": "casme2/s1/a b"})[0] == "s1_a%20b .png"
    with pytest.raises(Refused, match="longer than 128"):
        form.names({**sample, "clip_id": "x" * 129})


# --- the folder


def test_an_export_goes_on_where_it_was_and_mends_what_is_missing(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(shards, out, "png")
    whole = files(out)
    victim = sorted(out.rglob("*_fall.png"))[3]
    victim.unlink()
    (out / "clips.csv").unlink()
    untouched = sorted(out.rglob("*_rise.png"))[3].stat().st_mtime_ns
    done = export(shards, out, "png")
    assert (done.written, done.there) == (1, 8)
    assert files(out) == whole
    assert sorted(out.rglob("*_rise.png"))[3].stat().st_mtime_ns == untouched


def test_a_folder_of_other_things_is_refused_and_left_alone(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"got one that holds thesis\.tex"):
        export(shards, out, "npz")
    assert files(out) == {"thesis.tex": b"years of work"}
    with pytest.raises(ConfigError, match="got a file"):
        export(shards, out / "thesis.tex", "npz")
    with pytest.raises(ConfigError, match="got one that holds"):
        export(shards, shards, "npz")


def test_another_export_is_told_apart_by_format_and_shards(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path / "out", "npz")
    with pytest.raises(SettingsChanged, match="format npz -> png"):
        export(shards, tmp_path / "out", "png")
    others = build_folder(tmp_path / "others", clips=2, prefix="other")
    with pytest.raises(SettingsChanged, match="source"):
        export(others, tmp_path / "out", "npz")
    (tmp_path / "out" / MARKER).write_text("{}")
    with pytest.raises(ConfigError, match="must be as it was written"):
        export(shards, tmp_path / "out", "npz")
    with pytest.raises(ConfigError, match="format must be one of stst, png, npz; got 'tiff'"):
        export(shards, tmp_path / "new", "tiff")  # type: ignore[arg-type]


def test_damaged_shards_are_named_and_the_others_exported(tmp_path: Path) -> None:
    shards = build_folder(tmp_path / "in", clips=6)
    victim = sorted(shards.rglob("*.h5"))[1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = export(shards, tmp_path / "out", "npz")
    assert (done.written, done.exit_code) == (4, 1)
    assert victim.name in done.corrupt[0]
    assert len(rows(tmp_path / "out" / "clips.csv")) == 4


def test_what_a_full_disk_leaves_is_whole_and_the_command_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # npz files are larger, the marker is not
        with pytest.raises(DiskFull):
            export(shards, out, "npz")
        done = CliRunner().invoke(main, ["export", str(shards), "--format", "npz", "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert done.exit_code == 74
    assert "run the same command again" in done.stderr
    assert list(files(out)) == [MARKER]
    assert export(shards, out, "npz").written == 9


SLOWLY = """
import sys, time
from flowkit import cli
from flowkit.storage import durable_files
replace = durable_files.replace_file
durable_files.replace_file = lambda path, content: (time.sleep(0.05), replace(path, content))[1]
sys.argv = sys.argv[3:]  # behind this come python -m flowkit.cli
cli.main()
"""
"""The command, so slow that a signal finds it at work, however late it comes."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_export_that_is_stopped_leaves_whole_files_and_goes_on(tmp_path: Path, number: int, code: int) -> None:
    shards, out = build_folder(tmp_path / "in", clips=60, size=64, shard_clips=20, labels=LABELS), tmp_path / "out"
    process = start("export", shards, "--format", "npz", "--out", out, before=(sys.executable, "-c", SLOWLY))
    deadline = time.monotonic() + 60
    while len(list(out.glob("clips/[!.]*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not (out / "clips.csv").exists()
    stopped = len(list(out.glob("clips/[!.]*.npz")))
    assert 3 <= stopped < 60
    done = flowkit("export", shards, "--format", "npz", "--out", out, "--json")
    found = json.loads(done.out)
    assert (done.code, found["there"], found["written"]) == (0, stopped, 60 - stopped)
    export(shards, tmp_path / "undisturbed", "npz")
    assert files(out) == files(tmp_path / "undisturbed")
    assert list(durable_files._temporaries(out, (".", "clips"))) == []
