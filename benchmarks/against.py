"""Compare this version with an older one: both run one benchmark in turn, A B A B, so that ratios come from one run.

    python benchmarks/against.py 7715ac7 --benchmark extract --benchmark tvl1 --rounds 5 --out benchmarks/results/against.json

The older commit is checked out as a git worktree in a folder outside the repository (--work) and installed into a virtual
environment beside it, with its own constraints.txt. Both are kept, and used again by the next run. To remove them, delete the
folder and run `git worktree prune`.

A benchmark is a script of both/ that runs under either version. `SCRIPT prepare INPUTS PEOPLE` makes its inputs, by this version;
`SCRIPT run INPUTS SCRATCH` prints {"figures": {name: number}, "repeat": true}. The first run of each version warms its
caches and does not count. Where "repeat" is false the figures are the same each time, and the first run is the only one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "benchmarks" / "both"
OLD = "7715ac7"
"""Called 0.1: the last commit before the project had a wheel."""
EXTRAS = {"train": "train"}
"""Optional dependencies that a benchmark needs, beyond the core."""
LONGEST_S = 3600.0

Figures = dict[str, float]


class CannotCompare(Exception):
    """What went wrong, and what to do about it."""


@dataclass(frozen=True)
class Version:
    """One of the two that are compared.

    Attributes
    ----------
    title : str
    python : Path
        The interpreter of its environment.
    root : Path
        The folder that its packages must come from.
    """

    title: str
    python: Path
    root: Path


def main() -> None:
    """Measure, print, store."""
    options = arguments().parse_args()
    names = options.benchmark or known()
    try:
        old = older_version(options.commit, options.work, {EXTRAS[name] for name in names if name in EXTRAS}, options)
        versions = [old, Version("this", Path(sys.executable), ROOT)]
        for version in versions:
            check_origin(version)
        measured = {name: compare(name, versions, options.rounds, options.people) for name in names}
    except CannotCompare as error:
        sys.exit(f"against: {error}")
    except KeyboardInterrupt:
        sys.exit("against: stopped. The worktree and its environment stay usable. Run the same command again.")
    results = {name: summarised(*runs) for name, runs in measured.items()}
    print(table(results, options.commit))
    if options.out:
        import machine  # needs packages that only this version's environment is sure to have

        settings = {"commit": options.commit, "rounds": options.rounds, "people": options.people}
        machine.write(options.out, "against", {**settings, "older_packages": packages(old), "benchmarks": results})


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default=OLD, help=f"the older commit (default {OLD}, called 0.1)")
    parser.add_argument("--benchmark", action="append", choices=known(), help="one of both/; again for more (all)")
    parser.add_argument("--rounds", type=_at_least_one, default=5, help="runs of each version that count (5)")
    parser.add_argument("--people", type=_at_least_one, default=4, help="synthetic people; eight clips each (4)")
    parser.add_argument(
        "--work", type=Path, default=cache_folder(), help="folder of worktree and environment (%(default)s)"
    )
    parser.add_argument("--pip-args", default="", help="further arguments of pip, such as another source of wheels")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on; got {text!r}")
    return int(text)


def known() -> list[str]:
    """Return the names of the benchmarks."""
    return sorted(path.stem for path in SCRIPTS.glob("[!_]*.py"))


def cache_folder() -> Path:
    """Return where worktrees and environments are kept unless --work says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowkit-against"


# --- the older version


def older_version(commit: str, work: Path, extras: set[str], options: argparse.Namespace) -> Version:
    """Check out and install an older commit, unless an earlier run did."""
    work = work.resolve()
    if work.is_relative_to(ROOT):
        raise CannotCompare(f"--work must lie outside the repository; got {work}. Name another folder.")
    full = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if not full:
        raise CannotCompare(f"{commit} must be a commit of {ROOT}; git knows none. Choose one of `git log --oneline`.")
    source, environment = work / full[:12] / "source", work / full[:12] / "venv"
    if not (source / "setup.cfg").exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        _git("worktree", "prune")  # of worktrees whose folder somebody deleted
        if _git("worktree", "add", "--detach", "--force", str(source), full) is None:
            raise CannotCompare(f"{source}: git could not check out {commit} there. Delete the folder and run again.")
    python = environment / "bin" / "python"
    done = environment / ".installed"
    if not done.exists() or not extras <= set(done.read_text().split()):
        _install(source, environment, python, extras, shlex.split(options.pip_args))
        done.write_text(" ".join(sorted(extras)))
    return Version(commit, python, source)


def _install(source: Path, environment: Path, python: Path, extras: set[str], more: list[str]) -> None:
    print(f"installing the older version into {environment}", file=sys.stderr)
    wanted = f"{source}[{','.join(sorted(extras))}]" if extras else str(source)
    constraints = ["-c", str(source / "constraints.txt")] if (source / "constraints.txt").exists() else []
    steps: list[list[str]] = [] if python.exists() else [[sys.executable, "-m", "venv", str(environment)]]
    steps.append([str(python), "-m", "pip", "install", "--quiet", *constraints, *more, "-e", wanted])
    for step in steps:
        done = subprocess.run(
            step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=clean()
        )
        if done.returncode:
            raise CannotCompare(
                f"{environment}: the older version could not be installed.\n{done.stdout[-2000:]}\nName a source of wheels by "
                f"--pip-args (--pip-args='--find-links DIR'), or delete {environment.parent} to begin again."
            )


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def clean() -> dict[str, str]:
    """Return the environment variables without those that would bring in the other version's packages."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }


def check_origin(version: Version) -> None:
    """Refuse an environment that would run some other copy of the project."""
    code = "import flowkit, flowkit_kernels; print(flowkit.__file__); print(flowkit_kernels.__file__)"
    found = _run([str(version.python), "-c", code], Path(tempfile.gettempdir())).split()
    strange = [path for path in found if not Path(path).resolve().is_relative_to(version.root.resolve())]
    if strange:
        raise CannotCompare(
            f"{version.python}: packages must come from {version.root}; got {strange[0]}. "
            f"Install that folder there: {version.python} -m pip install -e {version.root}"
        )


def packages(version: Version) -> dict[str, str]:
    """Return the versions of all packages of an environment."""
    listed = json.loads(
        _run([str(version.python), "-m", "pip", "list", "--format", "json"], Path(tempfile.gettempdir()))
    )
    return {package["name"]: package["version"] for package in listed}


# --- measuring


def compare(name: str, versions: Sequence[Version], rounds: int, people: int) -> tuple[list[Figures], list[Figures]]:
    """Run one benchmark under both versions alternately; return the figures of each round, the older version's first."""
    script = str(SCRIPTS / f"{name}.py")
    results: tuple[list[Figures], list[Figures]] = ([], [])
    with tempfile.TemporaryDirectory(prefix="against-") as temporary:
        folder = Path(temporary)
        print(f"{name}: making its inputs", file=sys.stderr)
        _run([str(versions[-1].python), script, "prepare", str(folder / "inputs"), str(people)], folder)
        for turn in range(rounds + 1):
            repeat = True
            for version, runs in zip(versions, results, strict=True):
                scratch = folder / "scratch"
                scratch.mkdir()
                print(f"{name}: round {turn} of {rounds}, {version.title}", file=sys.stderr)
                printed = json.loads(
                    _run([str(version.python), script, "run", str(folder / "inputs"), str(scratch)], folder)
                )
                shutil.rmtree(scratch)
                repeat = printed["repeat"]
                if turn or not repeat:
                    runs.append({key: float(value) for key, value in printed["figures"].items()})
            if not repeat:
                break
    return results


def _run(command: list[str], folder: Path) -> str:
    """Run a command outside the repository, so that it imports what is installed; return what it printed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=clean(), timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        raise CannotCompare(
            f"a command must end within {LONGEST_S:g} s; got none from\n  {shlex.join(command)}\nTake fewer --people."
        ) from None
    if done.returncode:
        raise CannotCompare(
            f"a command must succeed under both versions; got exit code {done.returncode} from\n  {shlex.join(command)}\n"
            f"{done.stderr[-2000:]}\nRun it by hand, or leave out this benchmark."
        )
    return done.stdout


# --- results


def summarised(old: Sequence[Figures], new: Sequence[Figures]) -> dict[str, dict[str, Any]]:
    """Return medians, and the ratio new / old of each round, of every figure that both versions print.

    Examples
    --------
    >>> summarised([{"s": 2.0}, {"s": 4.0}], [{"s": 1.0}, {"s": 3.0}])["s"]["ratio"]
    0.625
    """
    rows = {}
    for key in old[0]:
        if not all(key in figures for figures in (*old, *new)):
            continue
        before, after = [run[key] for run in old], [run[key] for run in new]
        ratios = [b / a if a else float("nan") for a, b in zip(before, after, strict=True)]
        rows[key] = {
            "older": statistics.median(before),
            "this": statistics.median(after),
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "rounds": len(ratios),
        }
    return rows


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]], commit: str) -> str:
    """Return the results as a Markdown table."""
    lines = [
        f"| benchmark | figure | {commit} | this | this / {commit} | range |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in results.items():
        for key, row in rows.items():
            span = f"{row['lowest']:.3f} to {row['highest']:.3f}" if row["rounds"] > 1 else "one run"
            lines.append(f"| {name} | {key} | {row['older']:.4g} | {row['this']:.4g} | {row['ratio']:.3f} | {span} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
