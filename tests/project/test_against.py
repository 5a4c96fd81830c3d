"""benchmarks/against.py: its arguments, what it refuses, how it takes turns, and its table. No environment is built here."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def against() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("against", ROOT / "benchmarks" / "against.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("benchmarks/against.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["against"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["against"]


def test_what_is_asked_for_by_default(against: ModuleType) -> None:
    options = against.arguments().parse_args([])
    assert (options.commit, options.benchmark, options.rounds) == ("7715ac7", None, 5)
    assert not options.work.is_relative_to(ROOT)
    assert against.known() == [
        "accuracy",
        "extract",
        "extract_200fps",
        "extract_given_landmarks",
        "extract_two_cores",
        "long_video",
        "train",
        "tvl1",
    ]


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--rounds", "-1"], ["--people", "1.5"], ["--benchmark", "speed"], ["a", "b"]]
)
def test_bad_arguments_are_refused(against: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        against.arguments().parse_args(words)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_commit_that_is_none_is_refused(against: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(against.CannotCompare, match="must be a commit"):
        against.older_version("no-such-commit", tmp_path, set(), argparse.Namespace(pip_args=""))
    assert list(tmp_path.iterdir()) == []


def test_work_may_not_lie_in_the_repository(against: ModuleType) -> None:
    with pytest.raises(against.CannotCompare, match="outside the repository"):
        against.older_version("HEAD", ROOT / "build", set(), argparse.Namespace(pip_args=""))


def test_another_copy_of_the_project_is_refused(against: ModuleType, tmp_path: Path) -> None:
    against.check_origin(against.Version("this", Path(sys.executable), ROOT))
    with pytest.raises(against.CannotCompare, match="packages must come from"):
        against.check_origin(against.Version("old", Path(sys.executable), tmp_path))


SCRIPT = """
import json, pathlib, sys
verb, inputs, last = sys.argv[1:]
log = pathlib.Path({log!r})
log.open("a").write(f"{{verb}} ")
if verb == "prepare":
    pathlib.Path(inputs).mkdir()
else:
    if any(pathlib.Path(last).iterdir()):
        sys.exit("scratch holds something")
    (pathlib.Path(last) / "left").touch()
    print(json.dumps({{"figures": {{"s": len(log.read_text().split())}}, "repeat": {repeat}}}))
"""


def _script(against: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, repeat: bool) -> list[Any]:
    monkeypatch.setattr(against, "SCRIPTS", folder)
    (folder / "count.py").write_text(SCRIPT.format(log=str(folder / "log"), repeat=repeat))
    return [against.Version(name, Path(sys.executable), ROOT) for name in ("old", "this")]


def test_versions_take_turns_after_a_first_run_that_does_not_count(
    against: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = _script(against, tmp_path, monkeypatch, repeat=True)
    assert against.compare("count", versions, 2, 1) == ([{"s": 4.0}, {"s": 6.0}], [{"s": 5.0}, {"s": 7.0}])
    assert (tmp_path / "log").read_text().split() == ["prepare", *["run"] * 6]


def test_figures_that_never_change_are_measured_once(
    against: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = _script(against, tmp_path, monkeypatch, repeat=False)
    assert against.compare("count", versions, 5, 1) == ([{"s": 2.0}], [{"s": 3.0}])


def test_a_benchmark_that_fails_says_how(against: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = _script(against, tmp_path, monkeypatch, repeat=True)
    (tmp_path / "count.py").write_text("import sys; sys.exit('no clips today')")
    with pytest.raises(against.CannotCompare, match="no clips today"):
        against.compare("count", versions, 1, 1)


def test_the_table_holds_medians_and_the_range_of_the_ratios(against: ModuleType) -> None:
    rows = against.summarised([{"s": 2.0, "old only": 1.0}, {"s": 4.0, "old only": 1.0}, {"s": 2.0}], [{"s": 1.0}] * 3)
    assert rows["s"] == {"older": 2.0, "this": 1.0, "ratio": 0.5, "lowest": 0.25, "highest": 0.5, "rounds": 3}
    assert list(rows) == ["s"]
    shown = against.table({"extract": rows}, "7715ac7")
    assert shown.splitlines()[-1] == "| extract | s | 2 | 1 | 0.500 | 0.250 to 0.500 |"


def test_nothing_of_this_version_reaches_the_other(against: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    printed = against._run([sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"], ROOT)
    assert "PYTHONPATH" not in json.loads(printed)
