"""The report of a run is one harmless file that tells what was scored, by whom, and with which settings."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_clips import CLASSES, made_shards

from fmanet import run_folder
from fmanet.building import build_network, parameter_count
from fmanet.cli import main
from fmanet.reports.run_report import SAME, _chosen, _examples, write_report
from fmanet.results import gather, write_results
from fmanet.scoring.prediction_table import Prediction, read_table
from web_page import Page

EVERY_PART = ("--set", "network.modulation=true", "--set", "network.attention=true")
SMALL = ("--set", "network.width=4", "--set", "network.grid=4", "--workers", "1", "--keep-epochs")
HOSTILE = "<script>alert('&')</script>"
LEGEND = 5
"""Two wheels, three colour scales."""


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("report") / "shards", subjects=3, size=32, noise=0.6)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three folds and two seeds; read-only by agreement."""
    out = tmp_path_factory.mktemp("report") / "run"
    done = fmanet("train", shards, "--out", out, *SMALL, *EVERY_PART, "--epochs", "3", "--seeds", "2")
    assert done.exit_code == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    return out


@pytest.fixture(scope="module")
def page(trained: Path) -> Page:
    return Page(trained / "report.html")


def test_the_scores_are_those_of_the_run(trained: Path, page: Page) -> None:
    scores = json.loads((trained / "scores.json").read_text())
    for metric in ("uf1", "uar", "acc"):
        bounds = scores["interval"][metric]
        assert f"{scores['seed_average'][metric]:.3f} {metric.upper()}" in page.text
        assert f"{bounds['low']:.3f} to {bounds['high']:.3f}" in page.text
    assert any(row[0] == "mean of seeds" and "+-" in row[2] for row in page.rows)
    for name, line in zip(scores["classes"], scores["seed_average"]["matrix"], strict=True):
        assert [name, *(f"{count} ({count / 3:.0%})" for count in line)] in page.rows


def test_subjects_stand_by_errors_with_what_was_mistaken(trained: Path, page: Page) -> None:
    scores = json.loads((trained / "scores.json").read_text())
    found = [row for row in page.rows if row[0] in scores["subjects"]]
    errors = {name: one["clips"] - one["correct"] for name, one in scores["subjects"].items()}
    assert [int(row[2]) for row in found] == sorted(errors.values(), reverse=True)
    assert sum(errors.values()) > 0, "noise should make some mistakes, or this test sees none"
    for name, clips, wrong, correct, mistakes in found:
        assert (int(wrong), correct) == (errors[name], f"{1 - errors[name] / int(clips):.0%}")
        assert sum(int(count) for count in re.findall(r"\((\d+)\)", mistakes)) == errors[name]


def test_every_setting_version_and_origin_is_stated(trained: Path, page: Page) -> None:
    run, settings, _ = run_folder.open_run(trained)
    assert ["train.augment.rotation_deg", "5.0"] in page.rows
    assert ["network.width", "4"] in page.rows
    assert ["torch", run["versions"]["torch"]] in page.rows
    assert ["parameters", f"{parameter_count(build_network(settings.network, 0)):,}"] in page.rows
    ((path, fingerprint),) = run["clips"]["folders"].items()
    assert [f"shards {path}", fingerprint] in page.rows
    assert {"paper", "summary", "ours"} <= {row[0] for row in page.rows}
    assert "Nothing was picked on a held-out subject" in page.text
    assert "not a reproduction of that paper's numbers" in page.text


def test_the_leaky_figure_stays_with_evaluate(page: Page) -> None:
    assert "leak" not in page.text.lower()


def test_the_page_is_one_file_that_asks_for_nothing_else(page: Page, trained: Path) -> None:
    assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", address) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert page.open == []
    assert "default-src 'none'" in (trained / "report.html").read_text().replace("&#x27;", "'")


def test_maps_are_of_the_network_that_had_held_the_clip_out(trained: Path) -> None:
    run, settings, plan = run_folder.open_run(trained)
    rows = [row for row in gather(trained)[0] if row.seed == 0]
    examples, why = _examples(trained, run, settings, plan, rows)
    assert (len(examples), why) == (9, "")
    assert max(example.apart for example in examples) < 1e-6
    other = {"casme2.s00": "casme2.s01", "casme2.s01": "casme2.s02", "casme2.s02": "casme2.s00"}
    strangers, _ = _examples(trained, run, settings, plan, [replace(row, fold=other[row.fold]) for row in rows])
    assert min(example.apart for example in strangers) > SAME


@pytest.mark.parametrize("clips", [0, 4])
def test_so_many_clips_are_pictured_as_were_asked_for(clips: int, trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    assert fmanet("report", out, "--clips", str(clips)).stdout.strip() == str(out / "report.html")
    assert Page(out / "report.html").tags.count("img") == (6 * clips + LEGEND if clips else 0)


def test_the_same_run_gives_the_same_page(trained: Path) -> None:
    first = write_report(trained).read_bytes()
    assert write_report(trained).read_bytes() == first


def test_scores_that_were_just_computed_are_taken(trained: Path) -> None:
    scores, before = write_results(trained), (trained / "scores.json").stat().st_mtime_ns
    page = write_report(trained).read_bytes()
    assert (trained / "scores.json").stat().st_mtime_ns > before
    before = (trained / "scores.json").stat().st_mtime_ns
    assert write_report(trained, scores=scores).read_bytes() == page
    assert (trained / "scores.json").stat().st_mtime_ns == before


def test_right_and_wrong_clips_of_each_class_take_turns() -> None:
    def row(number: int, truth: str, said: str) -> Prediction:
        return Prediction(f"clip{number}", "a/s", "a", "a.s", 0, truth, said, (1.0, 0.0, 0.0))

    rows = [row(n, "positive", "positive") for n in range(9)] + [row(9, "positive", "negative")]
    rows += [row(n, "negative", "negative") for n in range(10, 19)]
    found = [(one.truth, one.prediction == one.truth) for one in _chosen(rows, CLASSES, 5)]
    assert found == [("negative", True)] * 2 + [("positive", True), ("positive", False), ("positive", True)]
    assert _chosen(rows[::-1], CLASSES, 5) == _chosen(rows, CLASSES, 5)


def test_shards_that_are_gone_or_changed_are_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    shards = made_shards(tmp_path / "shards", subjects=2, dataset=HOSTILE, labels=(HOSTILE, "b"), size=32)
    flags = ("--network", "cnn", "--inputs", "rise", "--epochs", "1")
    assert fmanet("train", shards, "--out", tmp_path / "run", *SMALL, *flags).exit_code == 0
    whole = Page(tmp_path / "run" / "report.html")
    assert whole.tags.count("img") == 2 * 4 + 1  # a CNN has no maps: rise and fall of four clips, and a wheel
    assert "This network has no gate, phase weights or attention" in whole.text
    assert "script" not in whole.tags
    assert whole.open == []
    names = {row.clip_id for row in read_table(tmp_path / "run" / "predictions.csv").rows}
    assert names == {name for name in names if HOSTILE in name and name in whole.text}
    assert any(row[0] == HOSTILE for row in whole.rows)
    shutil.rmtree(shards)
    assert fmanet("report", tmp_path / "run").exit_code == 0
    bare = Page(tmp_path / "run" / "report.html")
    assert "can no longer be read, so nothing can be pictured" in bare.text
    made_shards(shards, subjects=2, dataset=HOSTILE, labels=(HOSTILE, "b"), size=32, noise=0.1)
    assert fmanet("report", tmp_path / "run").exit_code == 0
    changed = Page(tmp_path / "run" / "report.html")
    assert "no longer those that this run was trained on" in changed.text
    for less in (bare, changed):
        assert less.tags.count("img") == 0
        assert [row for row in less.rows if row not in whole.rows] == []


def test_a_run_that_lacks_folds_or_is_none_gets_no_page(trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    (out / "report.html").unlink()
    next(out.glob("folds/casme2.s02/seed-1.json")).unlink()
    assert fmanet("report", out).exit_code == 1
    assert not (out / "report.html").exists()
    assert fmanet("report", tmp_path).exit_code == 2
