"""Data sets of one's own, from a folder outside the package: the example of the docs, from files to counts, and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import made_up
import pytest
from click.shell_completion import ShellComplete

import own_set
from conftest import Done, flowkit
from flowkit.cli import main
from flowkit.datasets import COMPOSITE, DATASETS, find_dataset, known_sets, read_dataset
from flowkit.datasets.own_recordings import NAME as VIDEOS
from flowkit.errors import ConfigError, ManifestError
from flowkit.labels.own_sets import WHAT_NAMES_MEAN
from shard_builder import build_folder

ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    ("p1", "c1", 10, 15, 20, "Joy", "12"),
    ("p1", "c2", 1, 5, 9, "fury", "4"),
    ("p2", "c1", 3, 4, 12, "joy", "6+12"),
    ("p2", "c2", 100, 110, 130, "startle", None),
)
HEADER = ("Subject", "Clip", "Onset", "Apex", "Offset", "Emotion", "AUs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An invented copy of the set."""
    root = tmp_path / "Toy"
    made_up.workbook(root / "Toy-coding-2026.xlsx", {"Sheet1": [HEADER, *ROWS]})
    for subject, clip, onset, _, offset, *_ in ROWS:
        made_up.frames(root / str(subject) / str(clip), range(int(onset or 0), int(offset or 0) + 1), empty=False)
    return root


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the set, and is named."""
    monkeypatch.setenv(own_set.VARIABLE, str(tmp_path / "lab"))
    return own_set.write(tmp_path / "lab")


def manifest(*arguments: str | Path) -> Done:
    return flowkit("manifest", *arguments)


def test_the_example_of_the_docs_goes_from_its_files_to_the_counts(tmp_path: Path, root: Path, lab: Path) -> None:
    out, before = tmp_path / "toy.csv", made_up.tree(root)
    done = manifest("toy", root, "--out", out, "--classes", "3-class", "--json")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (found["title"], found["clips"], found["layouts"]) == ("Toy", 4, {".": 4})
    assert found["classes"]["counts"] == {"toy": {"negative": 1, "positive": 2, "surprise": 1}}
    checked = flowkit("check", out, "--root", root, "--json")
    report = json.loads(checked.out)
    assert (checked.code, report["problems"]) == (0, [])
    assert {note["kind"] for note in report["notes"]} == {"SAME_SOURCE"}  # made-up frames are all the same
    assert report["census"]["grouping"] == "3-class"
    (beside,) = report["census"]["expected"]
    assert (beside["edition"]["name"], beside["counts"]["joy"], beside["explanations"]) == ("2026", [2, 2], [])
    assert made_up.tree(root) == before
    assert sorted(path.name for path in lab.iterdir()) == ["toy.py", "toy.toml"]


def test_its_names_rates_and_own_grouping_count(tmp_path: Path, root: Path, lab: Path) -> None:
    out = tmp_path / "toy.csv"
    assert manifest("Toy Set", root, "--out", out).code == 0
    out.write_text(
        out.read_text(encoding="utf-8").replace("100.0,", "25.0,").replace(",100,", ",25,"), encoding="utf-8"
    )
    report = json.loads(flowkit("check", out, "--no-frames", "--classes", "toy-2", "--json").out)
    assert report["census"]["classes"] == {"toy": {"joy": 2, "rest": 2}}
    kinds = {note["kind"] for note in report["notes"]}
    assert "ODD_RATE" in kinds


def test_help_and_completion_list_it(lab: Path) -> None:
    assert "toy Toy (your own)" in [" ".join(line.split()) for line in manifest("--help").out.splitlines()]
    complete = ShellComplete(main, {}, "flowkit", "_FLOWKIT_COMPLETE")
    assert [item.value for item in complete.get_completions(["manifest"], "to")] == ["toy"]
    with pytest.raises(ManifestError, match=r"dfme, toy, megc2019, videos; got 'toi'\. Did you mean toy"):
        find_dataset("toi")


def test_a_process_of_its_own_inherits_it(tmp_path: Path, root: Path, lab: Path) -> None:
    done = flowkit("manifest", "toy", root, "--out", tmp_path / "toy.csv", **{own_set.VARIABLE: str(lab)})
    assert (done.code, done.err) == (0, "")
    shards = build_folder(tmp_path / "shards", clips=4, size=32, labels=("joy", "fury"), datasets=("toy",))
    code = f"from fmanet.dataset import ShardDataset; print(len(ShardDataset([{str(shards)!r}], grouping='3-class')))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout == "4\n"  # as in the workers that train


def test_several_folders_hold_sets_and_what_begins_with_an_underscore_is_none(
    tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_set.write(
        tmp_path / "more", "other-toy", own_set.TOML.replace('also = ["toy set"]', "").replace("toy-2", "toy-3")
    )
    (tmp_path / "more" / "_notes.py").write_text("raise RuntimeError")
    (tmp_path / "more" / "README.md").write_text("sets")
    monkeypatch.setenv(own_set.VARIABLE, os.pathsep.join([str(lab), "", str(tmp_path / "more")]))
    assert list(known_sets()) == [*DATASETS, "toy", "other-toy"]


def test_nothing_is_looked_for_unless_a_folder_is_named(
    tmp_path: Path, root: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(own_set.VARIABLE)
    for folder in (root, lab):
        monkeypatch.chdir(folder)
        done = manifest("toy", root, "--out", tmp_path / "toy.csv")
        assert (done.code, "DATASET: must be one of casme2" in done.err) == (2, True)
    assert list(known_sets()) == list(DATASETS)


def test_code_runs_only_when_its_set_is_read(tmp_path: Path, root: Path, lab: Path) -> None:
    trace = tmp_path / "ran"
    own_set.write(lab, code=f"import pathlib\npathlib.Path({str(trace)!r}).write_text('')\n{own_set.CODE}")
    made_up.casme2(tmp_path / "CASME2", "Cropped")
    assert manifest("casme2", tmp_path / "CASME2", "--out", tmp_path / "a.csv").code == 0
    assert manifest("--help").code == 0
    assert flowkit("check", tmp_path / "a.csv", "--no-frames").code == 0
    assert not trace.exists()
    assert manifest("toy", root, "--out", tmp_path / "b.csv").code == 0
    assert trace.exists()


# --- refusals


def refused(*arguments: str | Path) -> str:
    done = manifest(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert "Traceback" not in done.err
    return done.err


@pytest.mark.parametrize("name", ["casme2", "smic", "synth", COMPOSITE, VIDEOS])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, lab: Path, name: str) -> None:
    own_set.write(lab, name)
    err = refused("toy", tmp_path, "--out", tmp_path / "a.csv")
    assert (
        f"{lab / name}.toml: name must be a new one; got {name}, a data set that flowkit brings. Rename both files."
        in err
    )
    assert set(WHAT_NAMES_MEAN) == {COMPOSITE, VIDEOS}


def test_two_sets_of_one_name_are_refused(tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = own_set.write(tmp_path / "more")
    monkeypatch.setenv(own_set.VARIABLE, f"{lab}{os.pathsep}{more}")
    with pytest.raises(ConfigError) as caught:
        known_sets()
    assert str(caught.value) == (
        f"{more / 'toy.toml'}: name must be a new one; got that of {lab / 'toy.toml'}. Rename both files."
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("Toy.toml", "", "name must be of small letters, digits, - and _; got 'Toy'"),
        ("half.toml", "", "half.toml: half.py must lie beside it; got none. Write it"),
        ("half.py", "", "half.py: half.toml must lie beside it; got none. Write it"),
        ("toy.toml", "[layout", "toy.toml: data set must be a readable TOML file; got"),
        (
            "toy.toml",
            "[layouts]",
            "toy.toml: key must be one of layout, labels, groupings, expected; got 'layouts'. Did you mean layout",
        ),
        ("toy.toml", "[labels]", "toy.toml: layout must be a table; got none. Add it."),
    ],
)
def test_a_broken_file_is_refused_with_what_to_do(tmp_path: Path, lab: Path, name: str, text: str, says: str) -> None:
    (lab / name).write_text(text, encoding="utf-8")
    for command in (
        ("manifest", "toy", tmp_path, "--out", tmp_path / "a.csv"),
        ("check", made_up_manifest(tmp_path), "--no-frames"),
    ):
        done = flowkit(*command)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
    assert "Your own cannot be listed" in manifest("--help").out
    complete = ShellComplete(main, {}, "flowkit", "_FLOWKIT_COMPLETE")
    assert [item.value for item in complete.get_completions(["manifest"], "cas")][:1] == ["casme2"]


def made_up_manifest(folder: Path) -> Path:
    path = folder / "clips.csv"
    path.write_text("clip_id,path,onset,apex,offset,subject,dataset,label\na,a,1,2,3,s,toy,joy\n", encoding="utf-8")
    return path


def test_a_folder_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(own_set.VARIABLE, str(tmp_path / "nowhere"))
    assert refused("casme2", tmp_path, "--out", tmp_path / "a.csv") == (
        f"Error: FLOWKIT_DATASETS: must name folders of data sets; got {tmp_path / 'nowhere'}: No such file or directory. Correct "
        "the path, or unset it.\n"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [("toy.py", "module must run; got NotRegular"), ("toy.toml", "data set must be a readable TOML file")],
)
def test_nobody_waits_for_a_pipe(tmp_path: Path, lab: Path, root: Path, name: str, says: str) -> None:
    (lab / name).unlink()
    os.mkfifo(lab / name)
    assert f"{name}: {says}" in refused("toy", root, "--out", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('title = "Toy"', "", "layout: title must be a text; got none. Add it."),
        ("fps = 100 ", "fps = '100' ", "layout: fps must be a number above 0; got '100'. Correct it."),
        ('["{subject}/{clip}"]', '"{subject}"', "layout: folders must be a list of words; got '{subject}'"),
        ("optional =", "optionals =", "columns, optional, refused; got 'optionals'. Did you mean optional?"),
        ('files = ["Toy', 'sheets = ["Toy', "layout.main: files must be a list of words; got none"),
        (
            'files = ["Toy',
            'file_of = "mean"\nsheets = ["Toy',
            "file_of must name a table of [layout]; got 'mean'. Did you mean main?",
        ),
        (
            'label = ["Emotion"] }',
            'label = "Emotion" }',
            "layout.main.columns must hold a list of spellings for each column",
        ),
    ],
)
def test_a_layout_of_another_form_is_refused(tmp_path: Path, lab: Path, old: str, new: str, says: str) -> None:
    own_set.write(lab, toml=own_set.changed(own_set.TOML, old, new))
    err = refused("toy", tmp_path, "--out", tmp_path / "a.csv")
    assert err.startswith(f"Error: {lab / 'toy.toml'}: layout")
    assert says in err


def changed_code(old: str, new: str) -> str:
    return own_set.changed(own_set.CODE, old, new)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "def annotate(source:\n",
            "module must run; got SyntaxError: '(' was never closed (toy.py, line 1). Correct it.",
        ),
        (
            "import nowhere_at_all\n",
            "module must run; got ModuleNotFoundError: No module named 'nowhere_at_all' (line 1)",
        ),
        ("raise SystemExit(0)\n", "module must run; got SystemExit: 0 (line 1). Correct it."),
        ("def annotated(source):\n    return []\n", "module must have a function annotate(source); got none. Write it"),
        (
            "def annotate(source):\n    return 1 / 0\n",
            "must read the data set; got ZeroDivisionError: division by zero (line 2)",
        ),
        (
            "def annotate(source):\n    yield source.table('mine')\n",
            "must read the data set; got KeyError: 'mine' (line 2)",
        ),
        (
            "def annotate(source):\n    yield {}\n",
            "annotate must yield an Annotation for each clip; got dict. Correct it.",
        ),
        (changed_code('row["onset"]', 'int(row["onset"])'), "row 2: onset must be a text; got 10. Correct it"),
        (changed_code("source.name", "'mine'"), "row 2: dataset must be toy; got 'mine'. Write source.name."),
        (changed_code("source.tails(subject=row", "str(subject=row"), "must read the data set; got TypeError"),
        (changed_code('clip=row["clip"]),', ")[0],"), "must read the data set; got KeyError: 'clip'"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(
    tmp_path: Path, lab: Path, root: Path, code: str, says: str
) -> None:
    own_set.write(lab, code=code)
    err = refused("toy", root, "--out", tmp_path / "a.csv")
    assert err.startswith(f"Error: {lab / 'toy.py'}: ")
    assert says in err
    assert not (tmp_path / "a.csv").exists()


def test_an_error_of_the_data_keeps_its_words(tmp_path: Path, lab: Path, root: Path) -> None:
    (root / "Toy-coding-2026.xlsx").unlink()
    with pytest.raises(ManifestError, match=r"folder must hold the annotation of Toy, a file named Toy\*coding"):
        read_dataset("toy", root)


def test_folders_that_are_one_text_are_refused(tmp_path: Path, lab: Path, root: Path) -> None:
    own_set.write(lab, code=own_set.CODE.replace("source.tails(", "'{subject}/{clip}'.format("))
    assert "folders must be a list of texts; got 'p1/c1'" in refused("toy", root, "--out", tmp_path / "a.csv")


def test_its_subjects_and_labels_are_its_own(tmp_path: Path, root: Path, lab: Path) -> None:
    rows = [
        ("1", "c1", 10, 15, 20, "none", "12"),
        ("s1", "c1", 1, 5, 9, "no", "4"),
        ("p-1", "c1", 3, 4, 12, "joy", ""),
        ("p_1", "c2", 3, 4, 12, "joy", ""),
    ]
    made_up.workbook(root / "Toy-coding-2026.xlsx", {"Sheet1": [HEADER, *rows]})
    for subject, clip, onset, _, offset, *_ in rows:
        made_up.frames(root / str(subject) / str(clip), range(int(onset or 0), int(offset or 0) + 1))
    reading = read_dataset("toy", root)
    assert {clip.clip_id: (clip.path, clip.label) for clip in reading.clips} == {
        "toy/1/c1": ("1/c1", "none"),
        "toy/s1/c1": ("s1/c1", "no"),
        "toy/p-1/c1": ("p-1/c1", "joy"),
        "toy/p_1/c2": ("p_1/c2", "joy"),
    }
    noted = [event.message for event in reading.events if "spell a subject otherwise" in event.message]
    assert len(noted) == 1
    assert "If they are one person, write one name: s1 beside 1" in noted[0]
