"""The built wheel, installed outside the checkout, holds all that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
import hashlib, pathlib, sys
import flowkit, flowkit_kernels, fmanet, flowkit.cli
from flowkit.synth import SynthConfig, synthesise
from flowkit.landmarks import FaceLandmarker
from flowkit.datasets.base import layout
from flowkit.datasets.corrections import corrections
assert all("site" in module.__file__ for module in (flowkit, flowkit_kernels, fmanet)), flowkit.__file__
synthesise(pathlib.Path("clips"), SynthConfig(subjects=1, classes=("smile",), key_frames_only=True))
FaceLandmarker("").close()
assert layout("casme2")["title"] and corrections("casme2")
folder = pathlib.Path(flowkit.__file__).parent
from flowkit.expected import expectations
assert expectations()[0]["casme2"].editions
assert (folder / "assets" / "NOTICE").is_file() and (folder / "py.typed").is_file()
print(*sorted(path.name for path in (pathlib.Path(flowkit_kernels.__file__).parent / "cuda").iterdir() if path.is_file()))
"""


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.splitlines():  # a copy: building writes into the folder it builds from
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    (wheel,) = wheels.glob("flowkit_mer-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    used = subprocess.run(
        [sys.executable, "-P", "-c", USE], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    sources = {path.name for path in (ROOT / "kernels" / "flowkit_kernels" / "cuda").iterdir() if path.is_file()}
    assert {"common.cuh", "iterate.cu", "device.py"} <= sources
    assert set(used.stdout.splitlines()[-1].split()) == sources
