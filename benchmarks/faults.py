"""Kill `flowkit extract` in every way and at every step, run it again, and compare every shard with an undisturbed run.

    python benchmarks/faults.py --out benchmarks/results/faults.json

Nothing passes but: every shard equal by sha256, no commit lost that was there at the kill, no clip stored twice, every clip
accounted for, no temporary file left, and `flowkit verify` content. System calls that fail need `strace`, a disk that is full and a
power cut need root; the result says where they could not be tried.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import machine
from flowkit.storage import commit, durable_files
from flowkit.storage.folder import ShardFolder
from flowkit.synthetic.dataset import SynthConfig, synthesise

SIZE = 64
CLIPS = SynthConfig(
    motion="bumps",
    noise=0.3,
    subjects=2,
    classes=("smile", "smile_frown", "frown"),
    cropped=True,
    width=SIZE,
    height=SIZE,
    key_frames_only=True,
    peak_px=(0.4, 0.7),
)
FLAGS = ("--align", "none", "--size", str(SIZE), "--shard-clips", "2", "--batch", "2", "--threads", "1")
"""Three shards of two clips; a run takes two seconds, most of them to start."""
DIED = 137
LONGEST_S = 600.0
COMMITS = Path(__file__).with_name("commits.py")
ERRORS = ("EIO", "ENOSPC", "EDQUOT")
FAULTS = ("missed", "not a clean end", "half committed", "rerun failed", "other files after the rerun")
"""What failing calls and power cuts are counted under, beside the counts of `Tally`; all of it must stay 0."""
ROOMS = (0, 20_000, 150_000, 280_000, 410_000)
"""Bytes that a disk has left in mid-run: for nothing, a part of a shard, one, two, all but the report."""
CALLS = ("openat", "write", "fsync", "close", "link", "unlink", "rename", "mkdir")


@dataclass
class Tally:
    """What a series did, and what was found after each of its reruns; all but the first two must stay 0.

    `lost` counts commits that were there at a kill and are not, or not the same, after the rerun; `unaccounted` clips that were
    neither stored nor failed; `duplicated` clips that were stored twice.
    """

    kills: int = 0
    reruns: int = 0
    lost: int = 0
    duplicated: int = 0
    unaccounted: int = 0
    other_bytes: int = 0
    left_behind: int = 0
    verify_failed: int = 0
    wrong_exits: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def see(self, what: str) -> None:
        """Count something worth knowing."""
        self.seen[what] = self.seen.get(what, 0) + 1


class Bench:
    """A small data set, an undisturbed run of it, and how others are compared with that."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.manifest = synthesise(base / "clips", CLIPS)
        with self.manifest.open(newline="") as file:
            self.rows = list(csv.DictReader(file))
        finish(self.manifest, base / "warm")  # compiles
        began = time.perf_counter()
        finish(self.manifest, base / "undisturbed")
        self.seconds = time.perf_counter() - began
        self.expected = shards(base / "undisturbed")

    def fresh(self) -> Path:
        """A place for a folder of shards, with nothing there."""
        out = self.base / "out"
        shutil.rmtree(out, ignore_errors=True)
        return out

    def rerun(self, out: Path, tally: Tally) -> None:
        """Run to the end, undisturbed, and judge."""
        before = records(out)
        tally.wrong_exits += start(self.manifest, out).wait(LONGEST_S) != 0
        self.judge(out, tally, before)

    def judge(self, out: Path, tally: Tally, before: dict[str, bytes] | None = None) -> None:
        """Compare a folder in which a run has ended with the undisturbed one; `before`: its records at the last kill."""
        tally.reruns += 1
        now = records(out)
        tally.lost += sum(now.get(name) != content for name, content in (before or {}).items())
        stored = Counter(clip["clip_id"] for clip in ShardFolder.open(out).clips())
        failed = {failure["clip_id"] for failure in ShardFolder.open(out).failures()}
        tally.duplicated += sum(count - 1 for count in stored.values())
        tally.unaccounted += len({row["clip_id"] for row in self.rows} ^ (stored.keys() | failed))
        tally.other_bytes += len(shards(out).items() ^ self.expected.items())
        tally.left_behind += sum(1 for path in out.rglob(".*") if path.is_file())
        tally.verify_failed += subprocess.run([*command("verify"), str(out)], check=False, **quiet()).returncode != 0


def command(name: str) -> list[str]:
    """A command of flowkit."""
    return [sys.executable, "-m", "flowkit.cli", name]


def quiet() -> dict[str, Any]:
    """Arguments of `subprocess` for a command whose words nobody reads."""
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def start(
    manifest: Path, out: Path, *more: str, stderr: Any = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[str]:
    """A run in a process group of its own; the last of two equal flags counts."""
    return subprocess.Popen(
        [*command("extract"), str(manifest), "--out", str(out), *FLAGS, "--workers", "1", *more],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def finish(manifest: Path, out: Path, *more: str, code: int = 0) -> None:
    """Run to the end, which must be as expected."""
    run = start(manifest, out, *more, stderr=subprocess.PIPE)
    _, said = run.communicate(timeout=LONGEST_S)
    if run.returncode != code:
        raise SystemExit(f"faults: extract must end with {code}; got {run.returncode}: {said}")


def kill(run: subprocess.Popen[str]) -> None:
    """SIGKILL for a run and all its workers, as the end of a machine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait(LONGEST_S)


def shards(out: Path) -> dict[str, str]:
    """Relative path and sha256 of every shard file."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.h5"))
    }


def records(out: Path) -> dict[str, bytes]:
    """Relative path and content of every commit record that is valid."""
    return {str(record.path.relative_to(out)): record.path.read_bytes() for record in commit.read_records(out)}


def step_of(said: str) -> str:
    """Which step of which kind of file a process says it died at."""
    found = re.search(r"died at (\S+):(\w+)", said)
    if found is None:
        return "none"
    path, step = Path(found[1]), found[2]
    kind = {"probe": "probe", ".h5": "data file"}.get(path.name.rpartition("~")[2] if "~" in path.name else path.suffix)
    kind = kind or {"plan": "plan", "000": "record"}.get(path.parent.name, path.name)
    return f"{kind}:{step}"


def at_each_step(bench: Bench, tally: Tally, *, every: int = 1) -> None:
    """Die at the first step of a run, at the second, and so on, until a run is through; each time run again to the end."""
    number = 1
    while True:
        out = bench.fresh()
        run = start(bench.manifest, out, stderr=subprocess.PIPE, FLOWKIT_TEST_DIE_AT=str(number))
        _, said = run.communicate(timeout=LONGEST_S)
        if run.returncode != DIED:
            tally.wrong_exits += run.returncode != 0
            bench.judge(out, tally)
            return
        tally.kills += 1
        tally.see(step_of(said))
        bench.rerun(out, tally)
        number += every


def amid_quarantine(bench: Bench, tally: Tally) -> None:
    """A record is torn, or a shard cut short; die once it was moved aside, and run again."""
    for damaged, dies_at in (("*/000000.json", "0*.json"), ("*/000001-*.h5", "*.h5"), ("*/000002-*.h5", "0*.json")):
        out = shutil.copytree(bench.base / "undisturbed", bench.fresh())
        (victim,) = (out / "shards").glob(damaged)
        victim.write_bytes(victim.read_bytes()[:100])
        run = start(bench.manifest, out, stderr=subprocess.PIPE, FLOWKIT_TEST_DIE_AT=f"{dies_at}:after_quarantine")
        _, said = run.communicate(timeout=LONGEST_S)
        tally.wrong_exits += run.returncode != DIED
        tally.kills += 1
        tally.see(step_of(said))
        before = records(out)
        tally.wrong_exits += start(bench.manifest, out).wait(LONGEST_S) != 0
        shutil.rmtree(out / "quarantine")  # what was damaged is kept there, on purpose
        bench.judge(out, tally, before)


def at_random(bench: Bench, tally: Tally, kills: int, draw: random.Random) -> None:
    """Kill runs on one folder again and again, all their processes at once; a folder that gets finished is begun anew.

    The time until the kill follows what the machine can do just then, so that runs die in every part of their lives.
    """
    out, longest = bench.fresh(), bench.seconds
    while tally.kills < kills:
        before = records(out)
        run = start(bench.manifest, out, "--workers", "2")
        try:
            code = run.wait(draw.uniform(0.2, 1.1) * longest)
        except subprocess.TimeoutExpired:
            kill(run)
            tally.kills += 1
            tally.lost += sum(records(out).get(name) != content for name, content in before.items())
            if not see_shards(out, tally):
                longest *= 1.15
            continue
        longest *= 0.9
        tally.wrong_exits += code != 0
        bench.judge(out, tally, before)
        out = bench.fresh()
    bench.rerun(out, tally)


def see_shards(out: Path, tally: Tally) -> bool:
    """Whether there are shards already; counted."""
    found = any(out.rglob("*.h5"))
    if found:
        tally.see("kills with shards on disk")
    return found


def feed_workers(run: subprocess.Popen[str]) -> list[int]:
    """Process ids of the workers of a run that read and align."""
    found = []
    for path in Path(f"/proc/{run.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in path.read_text().split():
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def wait_for(run: subprocess.Popen[str], holds: Callable[[], Any]) -> None:
    """Wait until something holds, or a run has ended."""
    while not holds() and run.poll() is None:
        time.sleep(0.005)


def of_workers(bench: Bench, tally: Tally, kills: int, draw: random.Random) -> None:
    """Kill both workers of a run at once, while the run itself lives: it must go on by itself, to its end."""
    while tally.kills < kills:
        out = bench.fresh()
        run = start(bench.manifest, out, "--workers", "2")
        wait_for(run, functools.partial(feed_workers, run))
        time.sleep(draw.uniform(0, 0.7) * bench.seconds)
        for pid in feed_workers(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                tally.kills += 1
        see_shards(out, tally)
        tally.wrong_exits += run.wait(LONGEST_S) != 0
        bench.judge(out, tally)


def two_at_once(bench: Bench, tally: Tally, kills: int, draw: random.Random) -> None:
    """Two runs on one folder; one is killed and the other must end well by itself, or both are and a third does the rest."""
    both = False
    while tally.kills < kills:
        out = bench.fresh()
        runs = [start(bench.manifest, out) for _ in range(2)]
        wait_for(runs[0], (out / "plan" / "000000.json").exists)
        victims = draw.sample(runs, 2 if both else 1)
        for victim in victims:
            time.sleep(draw.uniform(0, 0.5) * bench.seconds)
            tally.kills += victim.poll() is None
            kill(victim)
            see_shards(out, tally)
        before = records(out)
        if both:
            bench.rerun(out, tally)
        else:
            tally.wrong_exits += sum(run.wait(LONGEST_S) != 0 for run in runs if run not in victims)
            durable_files.remove_stale_temporaries(
                out
            )  # what the victim left goes with the next run, not with this one
            bench.judge(out, tally, before)
        both = not both


def in_any_order(bench: Bench) -> dict[str, bool]:
    """Whether shards, or with further clips the numbers of each clip, are those of the undisturbed run."""
    found = {}
    for name, flags in {
        "one worker, batches of 1": ("--workers", "1", "--batch", "1"),
        "two workers, two threads, batches of 2": ("--workers", "2", "--threads", "2"),
        "three workers, batches of 16": ("--workers", "3", "--batch", "16"),
    }.items():
        finish(bench.manifest, out := bench.fresh(), *flags)
        found[name] = shards(out) == bench.expected
    rows = random.Random(1).sample(bench.rows, len(bench.rows))
    finish(with_rows(bench, rows), out := bench.fresh())
    found["shuffled manifest"] = shards(out) == bench.expected
    folder = bench.manifest.parent / "bad"
    folder.mkdir()
    for kind, picture in {"tiny": np.zeros((8, 8), np.uint8), "nan": np.full((SIZE, SIZE), np.nan, np.float32)}.items():
        for number in (1, 2, 3):
            cv2.imwrite(str(folder / f"{number}.tif"), picture)
        bad = {**bench.rows[0], "clip_id": "!first", "path": "bad", "onset": "1", "apex": "2", "offset": "3"}
        finish(with_rows(bench, [bad, *bench.rows]), out := bench.fresh(), "--max-error-rate", "1", code=1)
        found[f"{kind} clip first"] = samples(out) == samples(bench.base / "undisturbed")
    return found


def with_rows(bench: Bench, rows: Sequence[dict[str, str]]) -> Path:
    """The data set with other rows."""
    path = bench.manifest.with_name("other.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def samples(out: Path) -> dict[str, str]:
    """Hash of each clip's numbers."""
    return {
        sample["clip_id"]: sample["sample_hash"]
        for shard in ShardFolder.open(out).shards()
        for sample in shard.samples()
    }


def with_failing_calls(base: Path, errors: Sequence[str] = ERRORS) -> dict[str, Any]:
    """Let each system call of a commit fail once, with each error; then do it again."""
    strace = shutil.which("strace")
    if strace is None or trace(strace, base / "tried", []).returncode != 0:
        return {"tried": False, "because": "strace is not here, or may not trace"}
    out, wrong = base / "undisturbed commit", Counter[str]()
    calls = touched(trace(strace, out, ["-y", "-e", f"trace={','.join(CALLS)}"]).stderr, out)
    expected, count = files(out), Counter[str]()
    for (call, number), error in ((one, error) for one in calls for error in errors):
        out = base / "failing"
        shutil.rmtree(out, ignore_errors=True)
        hit = trace(strace, out, ["-y", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"])
        count[call] += 1
        wrong["missed"] += not re.search(rf"{re.escape(str(out))}.*INJECTED", hit.stderr)
        wrong["not a clean end"] += hit.returncode not in (0, 1)
        wrong["half committed"] += bool(out.is_dir() and commit.invalid_records(out))
        wrong["rerun failed"] += subprocess.run(committing(out), check=False, **quiet()).returncode != 0
        wrong["other files after the rerun"] += files(out) != expected
    return {"tried": True, "calls": len(calls), "errors": list(errors), "failed": dict(count), **wrong}


def committing(out: Path) -> list[str]:
    """A command that commits into a folder."""
    return [sys.executable, str(COMMITS), str(out)]


def trace(strace: str, out: Path, flags: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The same under strace."""
    return subprocess.run([strace, *flags, *committing(out)], capture_output=True, text=True, check=False)


def touched(log: str, out: Path) -> list[tuple[str, int]]:
    """Each system call on a folder or what lies in it: its name, and its number among all calls of that name."""
    count, found = Counter[str](), []
    for line in log.splitlines():
        call = line.partition("(")[0]
        count[call] += 1
        if str(out) in line:
            found.append((call, count[call]))
    return found


def files(out: Path) -> dict[str, bytes]:
    """Relative path and content of every file."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def mounted(what: str | Path, place: Path, *flags: str) -> Iterator[Path]:
    """A file system in its place.

    Raises
    ------
    subprocess.CalledProcessError
        It cannot be mounted.
    """
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", *flags, str(what), str(place)], check=True, **quiet())
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, **quiet())


def make_ext4(image: Path, *, journal: bool) -> None:
    """An empty file system of 24 MB in a file."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(24 << 20)
    features = ["-O", "^has_journal"] if not journal else []
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", *features, str(image)], check=True, **quiet())


@contextlib.contextmanager
def small_disk(base: Path, form: str) -> Iterator[Path]:
    """A file system of 24 MB.

    Raises
    ------
    OSError, subprocess.CalledProcessError
        It cannot be made or mounted.
    """
    if form == "ext4":
        make_ext4(base / "disk.img", journal=False)
        flags = [base / "disk.img", base / form, "-o", "loop"]
    else:
        flags = ["none", base / form, "-t", form, "-o", "size=24m"]
    with mounted(*flags) as place:
        yield place


def on_a_full_disk(bench: Bench, form: str) -> dict[str, Any]:
    """Fill the disk in mid-run, but for some bytes; the run must say so; make room and run again."""
    tally, codes = Tally(), Counter[int]()
    try:
        with small_disk(bench.base, form) as disk:
            for room in ROOMS:
                out = disk / f"out{room}"
                run = start(bench.manifest, out, stderr=subprocess.PIPE)
                while run.poll() is None and not (out / "plan" / "000000.json").exists():
                    time.sleep(0.001)
                filled = fill(disk, room)
                _, said = run.communicate(timeout=LONGEST_S)
                codes[run.returncode] += 1
                tally.wrong_exits += run.returncode != 74 or "must have room for" not in said
                tally.left_behind += sum(1 for path in out.rglob(".*") if path.is_file())
                filled.unlink()
                bench.rerun(out, tally)
                shutil.rmtree(out)
            filled = fill(disk, 100_000)
            run = start(bench.manifest, disk / "out", stderr=subprocess.PIPE)
            _, said = run.communicate(timeout=LONGEST_S)
            tally.wrong_exits += run.returncode != 74 or "free space must be at least" not in said
    except (OSError, subprocess.CalledProcessError) as error:
        return {"tried": False, "because": f"{form} could not be mounted: {error}"}
    return {"tried": True, "exit_codes": dict(codes), **asdict(tally)}


def at_a_power_cut(base: Path) -> dict[str, Any]:
    """Die at each step of a commit, on a disk of its own, and look at that disk as it was at this moment.

    What the system had not handed to the device by then is lost, as when the power goes. All that a commit had reported as
    done must be there, whole; then it is done again.
    """
    committed: list[str] = []
    found = Counter(cuts=0, lost=0, **{"half committed": 0, "rerun failed": 0, "other files after the rerun": 0})
    subprocess.run(committing(base / "uncut"), check=True, **quiet())
    expected, disk, cut = files(base / "uncut"), base / "live", base / "cut"
    try:
        while True:
            make_ext4(disk.with_suffix(".img"), journal=True)
            with mounted(disk.with_suffix(".img"), disk, "-o", "loop,commit=600"):
                environment = {**os.environ, "FLOWKIT_TEST_DIE_AT": str(found["cuts"] + 1)}
                run = subprocess.run(
                    committing(disk / "out"), env=environment, capture_output=True, text=True, check=False
                )
                shutil.copyfile(disk.with_suffix(".img"), cut.with_suffix(".img"))
            if run.returncode != DIED:
                break
            found["cuts"] += 1
            died = re.search(r"died at \S+/out/(\S+):(\w+)", run.stderr)
            if died and died[2] == "after_sync" and "~" not in died[1]:
                committed.append(died[1])
            with mounted(cut.with_suffix(".img"), cut, "-o", "loop"):
                now = files(cut / "out")
                found["lost"] += sum(now.get(name) != expected[name] for name in committed)
                found["half committed"] += bool((cut / "out").is_dir() and commit.invalid_records(cut / "out"))
                again = subprocess.run(committing(cut / "out"), check=False, **quiet())
                found["rerun failed"] += again.returncode != 0
                found["other files after the rerun"] += files(cut / "out") != expected
    except (OSError, subprocess.CalledProcessError) as error:
        return {"tried": False, "because": f"ext4 could not be mounted: {error}"}
    return {"tried": True, **found}


def fill(disk: Path, room: int) -> Path:
    """Take all space of a file system but so many bytes."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # it is full
        while (free := shutil.disk_usage(disk).free) > room:
            file.write(bytes(min(free - room, 1 << 16)))
    return path


def parts(options: argparse.Namespace) -> dict[str, Callable[[Bench], dict[str, Any]]]:
    """What is done, by name."""
    draw = random.Random(options.seed)
    half = options.kills // 2
    return {
        "at each step of a run": tallied(functools.partial(at_each_step, every=options.every)),
        "amid moving damaged files aside": tallied(amid_quarantine),
        "all processes, at random": tallied(lambda bench, tally: at_random(bench, tally, options.kills, draw)),
        "workers alone, at random": tallied(lambda bench, tally: of_workers(bench, tally, half, draw)),
        "two runs at once": tallied(lambda bench, tally: two_at_once(bench, tally, half, draw)),
        "same bytes": in_any_order,
        "failing system calls": lambda bench: with_failing_calls(bench.base),
        "full disk, tmpfs": lambda bench: on_a_full_disk(bench, "tmpfs"),
        "full disk, ext4": lambda bench: on_a_full_disk(bench, "ext4"),
        "power cut": lambda bench: at_a_power_cut(bench.base),
    }


def tallied(work: Callable[[Bench, Tally], None]) -> Callable[[Bench], dict[str, Any]]:
    """A series as a function that gives its figures."""

    def run(bench: Bench) -> dict[str, Any]:
        tally = Tally()
        work(bench, tally)
        return asdict(tally)

    return run


def faults(found: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as it must be."""
    bad = {*FAULTS, *(name for name in asdict(Tally()) if name not in ("kills", "reruns", "seen"))}
    counted = [f"{part}: {name}" for part, one in found.items() for name in bad & one.keys() if one[name]]
    return counted + [f"other bytes: {name}" for name, same in found.get("same bytes", {}).items() if not same]


def show(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kills", type=int, default=60, help="at random, of whole runs; half as many of each other kind"
    )
    parser.add_argument("--every", type=int, default=1, help="die at every so-many-th step only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="a part of it; the others' figures stay as they are in --out")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    found = json.loads(options.out.read_text())["results"]["parts"] if options.only else {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, work in parts(options).items():
            if not options.only or name in options.only:
                found[name] = work(bench)
                show(f"{name}: {found[name]}")
        results = {
            "clips": len(bench.rows),
            "shards": len(bench.expected),
            "undisturbed_s": round(bench.seconds, 2),
            "kills": sum(part.get("kills", 0) for part in found.values()),
            "faults": faults(found),
            "parts": found,
        }
    show(f"{results['kills']} kills; " + ("; ".join(results["faults"]) or "nothing lost, nothing changed"))
    if options.out:
        machine.write(options.out, "faults", results)
    sys.exit(1 if results["faults"] else 0)


if __name__ == "__main__":
    main()
