"""`flowkit import stst`: made-up folders in the public layout, and the real one where it lies beside the repository."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

import version_0_1
from conftest import flowkit, shard_bytes
from flowkit.cli import main
from flowkit.errors import ConfigError, FlowkitError, ManifestError, SettingsChanged
from flowkit.interop.stst_import import import_stst
from flowkit.interop.stst_layout import LIST_FILE, SIDE
from flowkit.reports.shard_report import write_report
from flowkit.storage import commit
from flowkit.storage.folder import ShardFolder
from flowkit.storage.inspection import inspect, verify
from flowkit.storage.schema import COLUMNS, TEXT, Column, sized

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "megc-flow28"
CLIPS = (
    ("casme2", "sub01", "EP02_01f", "0"),
    ("smic", "s01", "s01_po_01", "1"),
    ("samm", "006", "006_1_2", "2"),
    ("samm", "006", "006_1_3", "0"),
)
ZERO = 100


def picture(number: int) -> npt.NDArray[np.uint8]:
    """(28, 28, 3): u and v stand still at 100 and 101 but for a patch; strain is noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = ZERO, ZERO + 1
    pixels[18:24, 10:18, 0], pixels[18:24, 10:18, 1] = 100 + 10 * number, 50
    return pixels


def layout(root: Path, *, fall: bool = True, clips: tuple[tuple[str, str, str, str], ...] = CLIPS) -> Path:
    pictures = root / "datasets" / "STSNet_whole_norm_u_v_os"
    pictures.mkdir(parents=True)
    with (root / LIST_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("dataset", "sub", "filename_o", "label", "apex", "imagename"))
        writer.writerows((*clip, "", f"{clip[2]}.jpg") for clip in clips)
    for number, (_, subject, name, _) in enumerate(clips):
        Image.fromarray(picture(number)).save(pictures / f"{subject}_{name} .png")
        if fall:
            Image.fromarray(picture(number + 10)).save(pictures / f"{subject}_{name}_1 .png")
    return root


def pictures_of(root: Path) -> Path:
    return root / "datasets" / "STSNet_whole_norm_u_v_os"


def samples(out: Path) -> dict[str, dict[str, object]]:
    return {sample["clip_id"]: sample for shard in ShardFolder.open(out).shards() for sample in shard.samples()}


@pytest.mark.parametrize("zero", ["median", "mode"])
def test_an_import_stores_values_less_their_zero_in_units_of_127_grey_levels(tmp_path: Path, zero: str) -> None:
    done = import_stst(layout(tmp_path / "in"), tmp_path / "out", zero=zero, scale="range")  # type: ignore[arg-type]
    assert (done.layout, done.listed, done.ok, done.failed, done.exit_code) == ("both phases", 4, 4, 0, 0)
    sample = samples(tmp_path / "out")["samm/006/006_1_2"]
    for phase, number in enumerate((2, 12)):
        wanted = (picture(number)[..., :2].astype(np.float32) - [ZERO, ZERO + 1]).transpose(2, 0, 1) / 127
        assert np.array_equal(sample["flow"][phase], wanted.astype(np.float16))  # type: ignore[index]
    assert sample["label"] == "surprise"
    assert list(sample["phase_valid"]) == [True, True]  # type: ignore[call-overload]
    assert (sample["regions"] == 1).all()  # type: ignore[attr-defined]
    assert json.loads(str(sample["extra"])) == {
        "imagename": "006_1_2.jpg",
        "zero": "100 101 100 101",
        "scale": "127 127 127 127",
    }
    assert next(ShardFolder.open(tmp_path / "out").shards()).units == "minmax"
    assert ShardFolder.open(tmp_path / "out").run["settings"]["import"]["zero"] == zero


def test_an_import_gives_each_column_of_the_schema_a_value_and_marks_what_it_does_not_know(tmp_path: Path) -> None:
    import_stst(layout(tmp_path / "in"), tmp_path / "out")
    unknown = {"onset": -1, "apex": -1, "offset": -1, "apex_source": "unknown", "n_faces": 0, "data_weight": 1.0}
    numbers = (
        "transform",
        "registration",
        "light",
        "removed",
        "residual",
        "turn",
        "removed_turn",
        "depth",
        "separation",
    )
    unknown |= dict.fromkeys((*numbers, "au_hint", "noise", "contrast", "landmarks", "fps"), np.nan)
    known = {"flow", "mmcof", "regions", "phase_valid", "qc", "clip_id", "dataset", "subject", "label"}
    for sample in samples(tmp_path / "out").values():
        assert sample.keys() == unknown.keys() | known | {"source_hash", "sample_hash", "extra"}
        for name, value in unknown.items():
            same = np.full_like(sample[name], value) if isinstance(value, float) else value
            np.testing.assert_array_equal(sample[name], same, name)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_what_stands_for_nothing_known_fits_its_column(column: Column) -> None:
    """So that a new column cannot be forgotten in an import."""
    value = column.nothing_known(SIDE)
    if column.dtype == TEXT:
        assert isinstance(value, str)
    else:
        assert np.shape(value) == sized(column.shape, SIDE)
        stored = np.asarray(value).astype(column.dtype)
        np.testing.assert_array_equal(stored, value)


def test_by_default_u_and_v_of_a_moving_phase_spread_alike(tmp_path: Path) -> None:
    import_stst(layout(tmp_path / "in"), tmp_path / "out")
    for name, sample in samples(tmp_path / "out").items():
        number = [f"{dataset}/{subject}/{clip}" for dataset, subject, clip, _ in CLIPS].index(
            name.replace("smic-hs", "smic")
        )
        spread = sample["flow"].astype(np.float32).std(axis=(-2, -1))  # type: ignore[attr-defined]
        moves = np.array([[number > 0, True], [True, True]])  # at 100 + 10 * 0 nothing of u moves
        np.testing.assert_allclose(spread, moves, atol=2e-3)
        wanted = [picture(n)[..., c].std() if n or c else 1.0 for n in (number, number + 10) for c in (0, 1)]
        assert [float(text) for text in json.loads(str(sample["extra"]))["scale"].split()] == pytest.approx(
            wanted, rel=1e-4
        )
    assert ShardFolder.open(tmp_path / "out").run["settings"]["import"]["scale"] == "spread"


def test_median_and_mode_differ_where_most_pixels_move(tmp_path: Path) -> None:
    root = layout(tmp_path / "in", clips=CLIPS[:1], fall=False)
    pixels = picture(0)
    pixels[..., 0] = np.linspace(150, 250, SIDE).astype(np.uint8)[:, None]
    pixels[:2, :, 0] = 40
    Image.fromarray(pixels).save(next(pictures_of(root).iterdir()))
    for zero, level in (("median", np.median(pixels[..., 0])), ("mode", 40)):
        import_stst(root, tmp_path / zero, zero=zero)  # type: ignore[arg-type]
        (sample,) = samples(tmp_path / zero).values()
        assert json.loads(str(sample["extra"]))["zero"].split()[0] == f"{level:g}"


def test_the_layout_without_a_fall_marks_it_invalid_and_zero(tmp_path: Path) -> None:
    done = import_stst(layout(tmp_path / "in", fall=False), tmp_path / "out")
    assert (done.layout, done.ok) == ("rise only", 4)
    for sample in samples(tmp_path / "out").values():
        assert list(sample["phase_valid"]) == [True, False]  # type: ignore[call-overload]
        assert not sample["flow"][1].any()  # type: ignore[index]


def test_inspect_verify_and_report_work_on_an_import(tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_stst(layout(tmp_path / "in"), out)
    found = inspect(out)
    assert found["labels"]["smic-hs"] == {"positive": 1}
    assert found["subjects"] == 3
    assert verify(out).problems == ()
    assert write_report(out).corrupt == ()
    page = (out / "report.html").read_text("utf-8")
    assert "frames unknown" in page
    assert "minmax; darker" in page
    assert "does not hold for it" in page
    assert " nan" not in page.lower()


def test_clips_that_cannot_be_read_become_failures_and_extra_pictures_are_counted(tmp_path: Path) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    folder = pictures_of(root)
    whole = (folder / "006_006_1_2 .png").read_bytes()
    (folder / "sub01_EP02_01f_1 .png").unlink()
    (folder / "006_006_1_2 .png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (30, 28)).save(folder / "s01_s01_po_01 .png")
    Image.new("L", (28, 28)).save(folder / "006_006_1_3_1 .png")
    Image.new("L", (28, 28)).save(folder / "006_006_1_3_2 .png")  # a direction map: known, not read
    Image.new("RGB", (28, 28)).save(folder / "nobody .png")
    done = import_stst(root, out)
    assert (done.ok, done.failed, done.extra_pictures, done.exit_code) == (0, 4, 1, 1)
    assert done.failure_codes == {"FRAME_MISSING": 1, "IMAGE_UNREADABLE": 2, "SIZE_MISMATCH": 1}
    messages = {failure["clip_id"]: failure["message"] for failure in ShardFolder.open(out).failures()}
    assert "30 x 28" in messages["smic-hs/s01/s01_po_01"]
    assert "mode RGB; got L" in messages["samm/006/006_1_3"]
    (folder / "006_006_1_2 .png").write_bytes(whole)
    assert import_stst(root, out).ok == 0
    assert import_stst(root, out, retry_failed=True).ok == 1
    assert verify(out).problems == ()


@pytest.mark.parametrize("step", ["*.h5:after_write", "before_record", "after_record"])
def test_a_killed_import_is_taken_up_again_with_the_same_bytes(tmp_path: Path, step: str) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    import_stst(root, tmp_path / "undisturbed")
    assert flowkit("import", "stst", root, "--out", out, FLOWKIT_TEST_DIE_AT=step).code == 137
    assert flowkit("import", "stst", root, "--out", out).code == 0
    assert shard_bytes(out) == shard_bytes(tmp_path / "undisturbed")
    assert verify(out).problems == ()
    assert import_stst(root, out).computed == 0


def test_a_folder_that_holds_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work", "utf-8")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex"):
        import_stst(root, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    import_stst(root, tmp_path / "done")
    with pytest.raises(SettingsChanged, match=r"import\.zero median -> mode"):
        import_stst(root, tmp_path / "done", zero="mode")


def test_an_import_of_version_0_1_is_read_and_gets_no_further_clips(tmp_path: Path) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    import_stst(root, out)
    version_0_1.write_anew(out)
    before = commit.listing(out)
    with pytest.raises(SettingsChanged, match=r"Use another --out, or finish it with flowkit 0\.1\.0\.$"):
        import_stst(root, out)
    assert commit.listing(out) == before
    assert verify(out).problems == ()


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("dataset,sub,filename,label", ["samm,006,006_1_2,0"], "rename 'filename' to filename_o"),
        ("Dataset,sub,filename_o", ["samm,006,006_1_2"], "rename 'Dataset' to dataset, add label"),
        ("dataset,sub,filename_o,label", [], "at least one clip"),
        ("dataset,sub,filename_o,label", ["samm,006,006_1_2,3"], r":2: label must be one of 0 \(negative\).*got '3'"),
        ("dataset,sub,filename_o,label", ["sam,006,006_1_2,0"], "dataset must be one of casme2, smic-hs, samm"),
        ("dataset,sub,filename_o,label", ["samm,006,../../x,0"], "filename_o must be a short name"),
        ("dataset,sub,filename_o,label", ["samm,006,006_1_2"], "as many fields as the header"),
        ("dataset,sub,filename_o,label", ["samm,006,a,0", "smic,006,a,1"], r":3: .*got those of line 2 \(samm/006/a\)"),
        ("dataset,sub,filename_o,label", ['samm,"006'], "must be CSV in UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(tmp_path: Path, header: str, rows: list[str], words: str) -> None:
    root = layout(tmp_path / "in")
    (root / LIST_FILE).write_text("\n".join([header, *rows]) + "\n", "utf-8")
    with pytest.raises(ManifestError, match=words):
        import_stst(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_list_several_lists_and_no_pictures_say_what_to_pass(tmp_path: Path) -> None:
    root = layout(tmp_path / "in")
    (root / "other.csv").write_text("a,b\n", "utf-8")
    assert import_stst(root, tmp_path / "known name wins").ok == 4
    (root / LIST_FILE).rename(root / "renamed.csv")
    with pytest.raises(ManifestError, match=r"got other\.csv, renamed\.csv\. Name it with --csv"):
        import_stst(root, tmp_path / "out")
    assert import_stst(root, tmp_path / "named", list_file=root / "renamed.csv").ok == 4
    for path in root.glob("*.csv"):
        path.unlink()
    with pytest.raises(ManifestError, match="got none"):
        import_stst(root, tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / LIST_FILE).write_text("dataset,sub,filename_o,label\nsamm,006,a,0\n", "utf-8")
    with pytest.raises(ManifestError, match="Name their folder with --pictures"):
        import_stst(empty, tmp_path / "out")


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    secret = tmp_path / "secret.png"
    target = pictures_of(root) / "006_006_1_2 .png"
    target.rename(secret)
    target.symlink_to(secret)
    assert import_stst(root, out).failure_codes == {"PATH_REFUSED": 1}


def test_the_command_prints_one_json_document_and_ends_cleanly_on_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = layout(tmp_path / "in"), tmp_path / "out"
    done = CliRunner().invoke(main, ["import", "stst", str(root), "--out", str(out), "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == found["exit_code"] == 0
    assert (found["ok"], found["listed"], found["zero"], found["layout"]) == (4, 4, "median", "both phases")
    assert (out / "report.html").exists()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commit, "publish", interrupted)
    stopped = CliRunner().invoke(main, ["import", "stst", str(root), "--out", str(tmp_path / "stopped")])
    assert stopped.exit_code == 130
    assert "Run it again" in stopped.stderr
    assert not list((tmp_path / "stopped").rglob("*.h5"))
    monkeypatch.undo()
    assert import_stst(root, tmp_path / "stopped").ok == 4


def test_an_import_of_a_missing_folder_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(FlowkitError, match="DIR must be a folder"):
        import_stst(tmp_path / "nowhere", tmp_path / "out")


def test_the_real_files_are_imported_whole(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("no ../shared")
    done = import_stst(REAL, tmp_path / "out")
    assert (done.listed, done.ok, done.extra_pictures, done.layout) == (309, 309, 0, "both phases")
    with (REAL / LIST_FILE).open(newline="", encoding="utf-8") as file:
        listed = Counter((row["dataset"].replace("smic", "smic-hs"), int(row["label"])) for row in csv.DictReader(file))
    words = ("negative", "positive", "surprise")
    labels = inspect(tmp_path / "out")["labels"]
    assert {dataset: sum(counts.values()) for dataset, counts in labels.items()} == {"casme2": 145, "smic-hs": 164}
    assert {(dataset, words[label]): n for (dataset, label), n in listed.items()} == {
        (dataset, word): n for dataset, counts in labels.items() for word, n in counts.items()
    }
    flow = np.stack([sample["flow"] for sample in samples(tmp_path / "out").values()]).astype(np.float64)  # type: ignore[arg-type]
    centred = flow - flow.mean((-2, -1), keepdims=True)
    rise, fall = centred[:, 0], centred[:, 1]
    together = (rise * fall).sum((-2, -1)) / np.sqrt((rise**2).sum((-2, -1)) * (fall**2).sum((-2, -1)))
    assert np.allclose(together.mean(0), (-0.25, -0.32), atol=0.02)
