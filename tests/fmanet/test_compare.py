"""`fmanet compare`: the scores and paired differences of the runs' own predictions, in every form."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_clips import made_shards
from PIL import Image

from fmanet.cli import main
from fmanet.results import gather
from fmanet.scoring.intervals import paired_difference, subject_interval

FLAGS = ("--set", "network.width=4", "--set", "network.grid=4", "--epochs", "1", "--workers", "1", "-q")


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A closed form and a network of two seeds over the same clips; read-only by agreement."""
    folder = tmp_path_factory.mktemp("runs")
    shards = made_shards(folder / "shards", subjects=4, repeats=2, size=32, noise=0.6)
    for name, more in (("lda_1", ("--network", "lda")), ("cnn & both", ("--network", "cnn", "--seeds", "2"))):
        done = fmanet("train", shards, "--out", folder / name, *FLAGS, *more)
        assert done.exit_code == 0, done.stderr
    return folder / "lda_1", folder / "cnn & both"


def test_the_table_is_that_of_the_stored_predictions(runs: tuple[Path, Path]) -> None:
    done = fmanet("compare", *runs, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    (first, classes), (second, _) = (gather(run) for run in runs)
    wanted = paired_difference(second, first, classes)
    rows = found["rows"]
    assert [row["run"] for row in rows] == ["lda_1", "cnn & both"]
    assert [row["uf1"]["value"] for row in rows] == [
        pytest.approx(subject_interval(own, classes).uf1.value) for own in (first, second)
    ]
    assert rows[0]["against_first"] is None
    assert (rows[1]["against_first"]["value"], rows[1]["against_first"]["low"]) == (wanted.value, wanted.low)
    assert (found["clips"], found["subjects"], rows[1]["seeds"]) == (24, 4, 2)
    shown = fmanet("compare", *runs).stdout
    assert f"{wanted.value:+.3f} [{wanted.low:+.3f}, {wanted.high:+.3f}]" in shown
    assert "not corrected for" in shown


def test_csv_and_latex_hold_the_same(runs: tuple[Path, Path]) -> None:
    found = json.loads(fmanet("compare", *runs, "--json").stdout)["rows"]
    rows = list(csv.DictReader(io.StringIO(fmanet("compare", *runs, "--csv").stdout)))
    assert [float(row["uf1"]) for row in rows] == [row["uf1"]["value"] for row in found]
    assert rows[0]["uf1_minus_first"] == ""
    assert float(rows[1]["uf1_minus_first"]) == found[1]["against_first"]["value"]
    text = fmanet("compare", *runs, "--latex").stdout
    assert r"lda\_1 &" in text
    assert r"cnn \& both &" in text
    assert text.count(r"\\") == 3
    assert text.startswith("% 24 clips of 4 subjects.")


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_is_drawn(ending: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "new" / f"uf1.{ending}"
    done = fmanet("compare", *runs, "--figure", path)
    assert done.exit_code == 0, done.stderr
    assert str(path) in done.stdout
    if ending == "png":
        with Image.open(path) as image:
            assert image.width > 800
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
    else:
        assert path.stat().st_size > 2000


def test_what_cannot_be_compared_is_told(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = made_shards(tmp_path / "shards", subjects=2, size=32, dataset="samm")
    assert fmanet("train", other, "--out", tmp_path / "other", *FLAGS).exit_code == 0
    raw = fmanet("train", other, "--out", tmp_path / "raw", *FLAGS, "--classes", "raw")
    assert raw.exit_code == 0, raw.stderr
    shutil.copytree(runs[0], tmp_path / "broken")
    next((tmp_path / "broken").glob("folds/*/seed-0.json")).unlink()
    cases = [
        ((runs[0],), 2, "two or more different runs must be named"),
        ((runs[0], runs[0]), 2, "two or more different runs must be named"),
        ((runs[0], tmp_path / "other"), 2, "both tables must hold the same clips"),
        ((tmp_path / "other", tmp_path / "raw"), 2, "runs must have the classes of"),
        ((runs[0], tmp_path), 2, "folder must hold a run"),
        ((runs[0], tmp_path / "broken"), 1, "every fold must be trained before anything is scored"),
        ((*runs, "--figure", tmp_path / "uf1.bmp"), 2, "figure must end in .png, .pdf, .svg"),
    ]
    for arguments, code, says in cases:
        done = fmanet("compare", *arguments)
        assert (done.exit_code, says in done.stderr) == (code, True), done.stderr
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = fmanet("compare", *runs, "--figure", tmp_path / "uf1.png")
    assert (done.exit_code, "with the extra figures" in done.stderr) == (3, True)
