"""The bounds of setup.cfg are those that were tried: no more is allowed, and the page that says so is up to date."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import wheel_matrix  # noqa: E402 - from the folder of the benchmarks

RESULT = json.loads((ROOT / "benchmarks" / "results" / "wheel_matrix.json").read_text(encoding="utf-8"))
TRIALS = RESULT["results"]["trials"]
WITH_ROOM = {"cryptography": "its majors come every few months, and bring the security fixes"}
"""Packages whose upper bound may lie further from what was tried, and why."""
BUILD_ONLY = {"setuptools", "packaging"}
"""Of these any newer version may come."""


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in found}


def bound(requirement: Requirement, operator: str) -> Version | None:
    found = [Version(one.version) for one in requirement.specifier if one.operator == operator]
    return found[0] if found else None


def next_major(version: Version) -> Version:
    return Version(f"{version.release[0] + 1}")


REQUIREMENTS = [
    (extra, one)
    for extra, listed in wheel_matrix.all_requirements().items()
    for one in listed
    if not one.name.startswith("flowkit")
]
CORE = {canonicalize_name(one.name): one for extra, one in REQUIREMENTS if extra == "core"}
NAMES = [f"{extra}-{one.name}" for extra, one in REQUIREMENTS]


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS, ids=NAMES)
def test_every_dependency_has_an_upper_bound_and_none_beyond_the_next_major_version(
    extra: str, requirement: Requirement
) -> None:
    name = canonicalize_name(requirement.name)
    if name in BUILD_ONLY or any(one.operator == "==" for one in requirement.specifier):
        return
    upper = bound(requirement, "<")
    assert upper is not None, f"{extra}: {requirement} has no upper bound"
    tried = max(
        [Version(trial["versions"][name]) for trial in TRIALS if name in trial["versions"]]
        + [version for pinned, version in pins("constraints.txt").items() if pinned == name],
        default=None,
    )
    if tried is not None and name not in WITH_ROOM:
        assert upper <= next_major(tried), f"{extra}: {requirement} allows what nobody tried; tried: {tried}"


def test_each_bound_of_the_core_stands_below_a_line_of_reason() -> None:
    lines = (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines()
    begin = lines.index("install_requires =")
    core = lines[begin + 1 : lines.index("", begin)]
    assert len(core) == 2 * len(CORE)
    assert all(re.match(r"# \S", reason) and reason.endswith(".") for reason in core[::2])


def test_the_oldest_set_is_the_lower_bounds() -> None:
    oldest = pins("constraints-oldest.txt")
    wanted = wheel_matrix.requirements()
    assert set(oldest) == set(wanted) - {"torch"}
    for name, version in oldest.items():
        lower = bound(wanted[name], ">=")
        assert lower is not None
        assert version.release[: len(lower.release)] == lower.release, name


def test_the_pinned_versions_lie_within_the_bounds() -> None:
    pinned = pins("constraints.txt")
    for extra, one in REQUIREMENTS:
        version = pinned.get(canonicalize_name(one.name))
        if version is not None:
            assert version in one.specifier, f"{extra}: {one} does not allow {version}"


def test_both_ends_of_every_core_bound_were_tried_on_the_oldest_and_the_newest_python() -> None:
    assert all(not trial["failed"] for trial in TRIALS)
    pythons = {tuple(map(int, trial["python"].split(".")[:2])) for trial in TRIALS}
    assert min(pythons) == (3, 11)
    assert len(pythons) >= 2
    for python in pythons:
        sets = {trial["packages"] for trial in TRIALS if trial["python"].startswith("{}.{}.".format(*python))}
        assert sets == {"newest", "oldest"}
    oldest = pins("constraints-oldest.txt")
    for trial in TRIALS:
        assert set(CORE) <= set(trial["versions"])
        if trial["packages"] == "oldest":
            assert {name: Version(trial["versions"][name]) for name in CORE} == {name: oldest[name] for name in CORE}
    assert {Version(trial["versions"]["av"]).major for trial in TRIALS} >= {18, 19}
    assert {Version(trial["versions"]["numpy"]).release[:2] for trial in TRIALS} >= {(2, 4), (2, 5)}
    assert any(trial["torch"] for trial in TRIALS)


def test_the_page_is_made_of_the_stored_result() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    assert page == wheel_matrix.page(RESULT)


def test_classifiers_name_the_pythons_that_were_tried() -> None:
    tried = {".".join(trial["python"].split(".")[:2]) for trial in TRIALS}
    named = set(re.findall(r"Python :: (3\.\d+)", wheel_matrix.setup_cfg()["metadata"]["classifiers"]))
    assert named == tried
