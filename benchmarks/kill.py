"""Kill `flowkit extract` at random moments, run it again, and compare every shard file with an undisturbed run.

    python benchmarks/kill.py --kills 20 --out benchmarks/results/kill.json

Also compared: one worker with two, and a shuffled manifest with a sorted one. Nothing but equal bytes passes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
from flowkit.synth import SynthConfig, synthesise

COMMAND = [sys.executable, "-m", "flowkit.cli"]


def shards(out: Path) -> dict[str, str]:
    """Relative path and sha256 of every shard file."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.h5"))
    }


def start(manifest: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = [*COMMAND, "extract", str(manifest), "--out", str(out), "--shard-clips", "6", "--batch", "3", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def finish(manifest: Path, out: Path, *more: str) -> float:
    """Run to the end; seconds."""
    began = time.perf_counter()
    code = start(manifest, out, *more).wait()
    if code != 0:
        raise SystemExit(f"kill: extract must end with 0; got {code}. Run it by hand on {manifest}.")
    return time.perf_counter() - began


def shuffled(manifest: Path, seed: int) -> Path:
    """The same rows in another order."""
    header, *rows = manifest.read_text().splitlines()
    random.Random(seed).shuffle(rows)
    path = manifest.with_name("shuffled.csv")
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def kill_often(manifest: Path, out: Path, kills: int, seconds: float, seed: int) -> dict[str, int]:
    """Kill runs on one folder until it was done `kills` times; a folder that gets finished is begun anew."""
    draw = random.Random(seed)
    count = {"kills": 0, "finished_before_the_kill": 0, "kills_with_shards_on_disk": 0}
    expected = None
    while count["kills"] < kills:
        run = start(manifest, out)
        try:
            run.wait(draw.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            count["kills"] += 1
            count["kills_with_shards_on_disk"] += any(out.rglob("*.h5"))
            continue
        count["finished_before_the_kill"] += 1
        if expected is not None and shards(out) != expected:
            raise SystemExit("kill: shards must be equal after every finished run; got others.")
        expected = shards(out)
        shutil.rmtree(out)
    return count


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--subjects", type=int, default=6, help="eight clips each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        manifest = synthesise(base / "clips", SynthConfig(subjects=options.subjects, key_frames_only=True))
        seconds = finish(manifest, base / "undisturbed")
        expected = shards(base / "undisturbed")
        count = kill_often(manifest, base / "killed", options.kills, seconds, options.seed)
        finish(manifest, base / "killed")
        finish(manifest, base / "one", "--workers", "1", "--threads", "1", "--batch", "5")
        finish(manifest, base / "two", "--workers", "2", "--threads", "2", "--batch", "1")
        finish(shuffled(manifest, options.seed), base / "shuffled")
        equal = {name: shards(base / name) == expected for name in ("killed", "one", "two", "shuffled")}
        verified = subprocess.run(
            [*COMMAND, "verify", str(base / "killed"), "--json"], stdout=subprocess.PIPE, check=True
        )
        left = sum(1 for path in (base / "killed").rglob(".*") if path.is_file())
    results = {
        "clips": json.loads(verified.stdout)["clips"],
        "shards": len(expected),
        "undisturbed_s": round(seconds, 2),
        **count,
        "same_bytes_as_undisturbed": equal,
        "verify": json.loads(verified.stdout),
        "temporary_files_left": left,
    }
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    if options.out:
        machine.write(options.out, "kill", results)
    sys.exit(0 if all(equal.values()) and left == 0 else 1)


if __name__ == "__main__":
    main()
