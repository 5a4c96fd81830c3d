"""Report what a GPU machine has: driver, tools, package versions, and what keeps each backend from running.

python benchmarks/gpu_machine.py --out FILE.json

No question creates a CUDA context. A question that fails is reported; the others are still answered.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CUDA_PACKAGES = ("cuda-", "nvidia-")
"""How the names of packages begin that bring parts of CUDA."""
TOOLS = ("nvidia-smi", "nvcc", "ncu", "nsys", "compute-sanitizer", "g++")
ASKED = "name,driver_version,compute_cap,memory.total,memory.used,utilization.gpu,clocks.sm,clocks.max.sm,power.limit"
SECONDS = 8


def gpus() -> Any:
    """Ask nvidia-smi about each GPU."""
    if shutil.which("nvidia-smi") is None:
        return "not on PATH"
    command = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        return (done.stdout + done.stderr).strip()[:300]
    lines = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(ASKED.split(","), values, strict=False)) for values in lines]


def cuda_packages() -> dict[str, str]:
    """Return the versions of the packages that bring parts of CUDA."""
    names = {str(one.metadata["Name"]).lower() for one in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in sorted(names) if name.startswith(CUDA_PACKAGES)}


def backends() -> dict[str, str]:
    """Return for each GPU backend "runs here", or what keeps it from running and what to do."""
    backend = importlib.import_module("flowkit_kernels.backend")
    obstacles = {name: backend.find_obstacle(name) for name in backend.GPU_BACKENDS}
    return {name: f"{one.what}. {one.next_step}" if one else "runs here" for name, one in obstacles.items()}


QUESTIONS: dict[str, Callable[[], Any]] = {
    "gpus": gpus,
    "machine": lambda: importlib.import_module("machine").describe(),
    "cuda_packages": cuda_packages,
    "tools": lambda: {name: shutil.which(name) for name in TOOLS},
    "cuda_home": lambda: os.environ.get("CUDA_HOME"),
    "backends": backends,
}


def main() -> int:
    """Answer all questions. The exit code is 3 if no GPU backend runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to store the answers as JSON")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name, ask in QUESTIONS.items():
        try:
            found[name] = ask()
        except Exception as error:  # noqa: BLE001 - the next question may have an answer
            found[name] = f"{type(error).__name__}: {error}"
        sys.stdout.write(f"{name}: {found[name]}\n")
    found["summary"] = summary(found)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    runs = isinstance(found["backends"], dict) and "runs here" in found["backends"].values()
    return 0 if runs else 3


def summary(found: dict[str, Any]) -> list[str]:
    """Return the most important answers as lines."""
    named = found["gpus"] if isinstance(found["gpus"], list) else []
    cards = [
        f"{gpu['name']}, driver {gpu['driver_version']}, {gpu['memory.used']} of {gpu['memory.total']} used"
        for gpu in named
    ]
    here = found["machine"]
    states = found["backends"] if isinstance(found["backends"], dict) else {"backends": found["backends"]}
    lines = cards or [f"nvidia-smi: {found['gpus']}"]
    if isinstance(here, dict):
        packages = ", ".join(f"{name} {version}" for name, version in here["packages"].items())
        here = f"{here['cpu']}, {here['cores']} cores; Python {here['python']}; {packages}"
    lines.append(str(here))
    return lines + [f"{name}: {state}" for name, state in states.items()]


if __name__ == "__main__":
    sys.exit(main())
