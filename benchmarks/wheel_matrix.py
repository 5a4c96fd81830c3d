"""The wheel, installed and used as a stranger would, with every Python that is found and the newest and oldest packages.

For each Python and each set of packages: a clean environment outside the checkout, the wheel installed into it, then the
demo, one video in each container (check, extract, verify, report), and two epochs of training where a CPU build of torch is
at hand.

    python benchmarks/wheel_matrix.py --out benchmarks/results/wheel_matrix.json --page docs/versions.md
"""

from __future__ import annotations

import argparse
import configparser
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import machine

ROOT = Path(__file__).parents[1]
MINORS = range(11, 15)
"""Of Python 3: the oldest that setup.cfg allows, and all that were released since."""
SETS = {"newest": None, "oldest": ROOT / "constraints-oldest.txt"}
"""What pip may choose from: anything, or the file that pins the lower bounds."""
EXTRAS = ("datasets", "zstd")
"""Installed with the core. `train` joins them where torch is at hand."""
STEP_S = 900.0
"""Longest time of one step."""
CONTAINERS = ("mp4", "avi", "mov", "mkv")
TRANSCODE = """
import sys
import av

source, *targets = sys.argv[1:]
with av.open(source) as reader:
    frames = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
for target in targets:
    codec, pixels = ("mjpeg", "yuvj420p") if target.endswith("avi") else ("mpeg4", "yuv420p")
    with av.open(target, "w") as writer:
        stream = writer.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.bit_rate = 8_000_000
        for frame in frames:
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        writer.mux(stream.encode())
"""
"""Copies a clip into other containers, with the PyAV that is being tried."""


class StepFailed(Exception):
    """A command of the matrix did not end as it should."""


@dataclass
class Trial:
    """One Python with one set of packages: what was installed, and what came of it."""

    python: str
    packages: str
    versions: dict[str, str] = field(default_factory=dict)
    torch: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def title(self) -> str:
        """Name for people."""
        return f"Python {self.python}, {self.packages} packages"


def main() -> None:
    """Build, try, print, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ends", action="store_true", help="only the oldest and the newest Python that are found")
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, help="only this set of packages")
    parser.add_argument("--pip-args", default="", help="further arguments of pip, such as another source of wheels")
    parser.add_argument("--keep", type=Path, help="folder for what is made, instead of a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--page", type=Path, help="Markdown page that is made of them")
    options = parser.parse_args()
    pythons, absent = find_pythons()
    if options.ends:
        pythons = {minor: pythons[minor] for minor in sorted({min(pythons), max(pythons)})}
    with tempfile.TemporaryDirectory(prefix="wheel-matrix-") as temporary:
        folder = options.keep or Path(temporary)
        wheel = build(folder / "build")
        trials = [
            tried(python, packages, wheel, folder / f"python3.{minor}-{packages}", shlex.split(options.pip_args))
            for minor, python in pythons.items()
            for packages in options.sets or SETS
        ]
    results = {"trials": [vars(trial) for trial in trials], "absent": [f"3.{minor}" for minor in absent]}
    for minor in absent:
        print(f"Python 3.{minor}: not tried, because it was not found")
    if options.out:
        machine.write(options.out, "wheel_matrix", results)
    if options.page:
        options.page.write_text(page({"machine": machine.describe(), "results": results}), encoding="utf-8")
    sys.exit(any(trial.failed for trial in trials))


def find_pythons() -> tuple[dict[int, Path], list[int]]:
    """Return the Pythons of this machine by minor version, and the minor versions of which there is none."""
    found = {minor: next((path for path in _candidates(minor) if _runs(path, minor)), None) for minor in MINORS}
    return (
        {minor: path for minor, path in found.items() if path},
        [minor for minor, path in found.items() if not path],
    )


def _candidates(minor: int) -> Iterator[Path]:
    """Yield where a Python may be: on PATH, or with a version manager that has not activated it."""
    name = f"python3.{minor}"
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    yield from (folder / name for folder in folders)
    managers = (
        os.environ.get("PYENV_ROOT"),
        Path.home() / ".pyenv",
        Path.home() / ".local" / "share" / "uv" / "python",
    )
    for manager in managers:
        if manager:
            yield from sorted(Path(manager).glob(f"**/bin/{name}"))


def _runs(python: Path, minor: int) -> bool:
    """Tell whether a Python starts, is of the version that its name says, and can make environments."""
    code = f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, {minor}))"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def build(folder: Path) -> Path:
    """Build the source distribution from what git tracks, and the wheel from the source distribution."""
    source, builder = folder / "source", folder / "builder"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", builder], check=True)
    python = builder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "build"], check=True)
    command = [python, "-m", "build", "--outdir", folder / "dist", source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = (folder / "dist").glob("*.whl")
    print(f"Built {wheel.name} from its source distribution")
    return wheel


def tried(python: Path, packages: str, wheel: Path, folder: Path, pip_args: Sequence[str]) -> Trial:
    """Try one Python with one set of packages, and print how it went."""
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"], **_captured(), check=True
    )
    trial = Trial(version.stdout.strip(), packages)
    print(f"\n{trial.title}", flush=True)
    try:
        Visitor(trial, folder).visit(python, wheel, SETS[packages], pip_args)
    except StepFailed as error:
        trial.failed = str(error).splitlines()[0]
        print(error, flush=True)
    return trial


class Visitor:
    """A user with nothing but the wheel: installs it and types one command after the other."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial = trial
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        own = ("PYTHON", "FLOWKIT", "NUMBA", "PIP_CONSTRAINT")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.environment = {**clean, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def visit(self, python: Path, wheel: Path, constraints: Path | None, pip_args: Sequence[str]) -> None:
        """Carry out every step; StepFailed at the first that does not end well."""
        self.folder.mkdir(parents=True)
        self.step("environment", python, "-m", "venv", self.bin.parent)
        pip = ["python", "-m", "pip", "install", "--disable-pip-version-check", *pip_args]
        torch = cpu_torch()
        self.trial.torch = self.ends_well(*pip, "--dry-run", "--no-deps", torch)
        extras = ",".join([*EXTRAS, *(["train"] if self.trial.torch else [])])
        pinned = ["-c", constraints] if constraints else []
        self.step(
            "install",
            *pip,
            "--only-binary",
            ":all:",
            *pinned,
            f"{wheel}[{extras}]",
            *([torch] if self.trial.torch else []),
        )
        self.step("pip check", "python", "-m", "pip", "check")
        self.trial.versions = self.versions()
        print("  " + ", ".join(f"{name} {version}" for name, version in self.trial.versions.items()), flush=True)
        self.step("doctor", "flowkit", "doctor", "--warm-up")
        self.step("demo", "flowkit", "demo", "--out", "demo")
        self.videos()
        if self.trial.torch:
            self.training()
        else:
            print(f"  training not tried: {torch} is not at hand")

    def videos(self) -> None:
        """Make one clip in each container, and take it from manifest to report."""
        made = ["--format", "mkv", "--subjects", "1", "--classes", "happiness"]
        self.step("synth", "flowkit", "synth", "--out", "clips", *made)
        with (self.folder / "clips" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        source = Path("clips") / row["path"]
        others = [source.with_suffix(f".{form}") for form in CONTAINERS if form != "mkv"]
        self.step("transcode", "python", "-c", TRANSCODE, source, *others)
        manifest = self.folder / "clips" / "containers.csv"
        with manifest.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            for form in CONTAINERS:
                path = str(Path(row["path"]).with_suffix(f".{form}"))
                writer.writerow({**row, "clip_id": form, "path": path})
        self.step("check", "flowkit", "check", manifest)
        self.step("extract", "flowkit", "extract", manifest, "--out", "out", "--compress", "zstd")
        self.step("verify", "flowkit", "verify", "out")
        self.step("report", "flowkit", "report", "out")
        found = json.loads(self.run("flowkit", "inspect", "out", "--json"))
        if found["ok"] != len(CONTAINERS):
            raise StepFailed(f"inspect: {len(CONTAINERS)} clips should be stored; got {found['ok']}")

    def training(self) -> None:
        """Train on the demo's shards for two epochs, with one person held out, and ask a network that comes with the wheel."""
        with (self.folder / "demo" / "clips" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file))
        held_out = ["--protocol", "holdout", "--hold-out", f"{row['dataset']}/{row['subject']}"]
        self.step("train", "fmanet", "train", "demo/out", "--out", "run", *held_out, "--epochs", "2")
        self.step("evaluate", "fmanet", "evaluate", "run")
        self.step("pretrained", "fmanet", "predict", "--pretrained", "demo/out", "--out", "answers.csv")

    def versions(self) -> dict[str, str]:
        """Return the installed version of each package that setup.cfg names."""
        listed = json.loads(self.run("python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
        installed = {canonicalize_name(one["name"]): one["version"] for one in listed}
        wanted = requirements()
        return {name: installed[name] for name in wanted if name in installed}

    def step(self, name: str, *command: str | Path) -> None:
        """Run a command that must end with 0, and keep how long it took."""
        start = time.perf_counter()
        self.run(*command)
        self.trial.seconds[name] = round(time.perf_counter() - start, 1)
        print(f"  {name}: {self.trial.seconds[name]:.1f} s", flush=True)

    def run(self, *command: str | Path) -> str:
        """Return what a command prints."""
        done = self._done(command)
        if done.returncode:
            shown = " ".join(str(word) for word in command if "\n" not in str(word))
            raise StepFailed(f"{shown}: ended with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    def ends_well(self, *command: str | Path) -> bool:
        """Tell whether a command ends with 0."""
        return self._done(command).returncode == 0

    def _done(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        program = shutil.which(str(command[0]), path=self.environment["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=self.environment, timeout=STEP_S, check=False, **_captured()
        )


def _captured() -> dict[str, Any]:
    return {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}


def cpu_torch() -> str:
    """Return the requirement of torch's CPU build, which only few sources of wheels have: never gigabytes of CUDA."""
    (pinned,) = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    return f"{pinned}+cpu"


def requirements() -> dict[str, Requirement]:
    """Return what is tried of setup.cfg, by canonical name: the core, then the extras."""
    listed = all_requirements()
    return {canonicalize_name(one.name): one for section in ("core", *EXTRAS, "train") for one in listed[section]}


def all_requirements() -> dict[str, list[Requirement]]:
    """Return what setup.cfg asks for: of the core, and by extra."""
    parser = setup_cfg()
    texts = {"core": parser["options"]["install_requires"], **parser["options.extras_require"]}
    return {name: [Requirement(line) for line in text.splitlines() if line.strip()] for name, text in texts.items()}


def setup_cfg() -> configparser.ConfigParser:
    """Return setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def page(document: Mapping[str, Any]) -> str:
    """Return docs/versions.md, made of a stored result and of setup.cfg."""
    trials, absent = document["results"]["trials"], document["results"]["absent"]
    names = requirements()
    titles = [f"{trial['python']}, {trial['packages']}" for trial in trials]
    lines = [
        "# Versions that were tried",
        "",
        "`make test-wheel` builds the wheel, installs it into clean environments and uses it: the demo, a video in each container, "
        "training. It wrote this page; a test compares it with setup.cfg.",
        "",
        f"{document['machine']['date']}, {document['machine']['system']}, {document['machine']['cpu']}. *Newest*: what pip chose. "
        "*Oldest*: the lower bounds, all at once (constraints-oldest.txt).",
        "",
        _row(["package", "setup.cfg allows", *(f"Python {title}" for title in titles)]),
        _row(["---"] * (len(titles) + 2)),
        *(
            _row([name, _bounds(one), *(trial["versions"].get(name, "-") for trial in trials)])
            for name, one in names.items()
        ),
        _row(["outcome", "", *(trial["failed"] or "all steps passed" for trial in trials)]),
        _row(["training", "", *("tried" if trial["torch"] else "not tried" for trial in trials)]),
        _row(["seconds", "", *(f"{sum(trial['seconds'].values()):.0f}" for trial in trials)]),
        "",
        "Training is tried where a CPU build of torch is at hand. The lower bound of torch was not "
        "tried: one CPU build was at hand.",
    ]
    if absent:
        lines += ["", f"Not found on that machine, and so not tried: Python {', '.join(absent)}."]
    return "\n".join(lines) + "\n"


def _bounds(requirement: Requirement) -> str:
    """Return the versions that a requirement allows, the lower bound first."""
    return ", ".join(sorted(map(str, requirement.specifier), reverse=True))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
