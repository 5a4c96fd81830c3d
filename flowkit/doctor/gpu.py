"""What a GPU machine offers: the driver, the GPU backends, and what else tells of a GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import Any

from flowkit.doctor.finding import BROKEN, Finding

ANSWER_S = 5.0
"""Longest time to wait for nvidia-smi, which hangs where the driver does."""


def gpu_finding() -> Finding:
    """What the driver's library says; where the kernels cannot be imported, what else tells of a driver."""
    told = _nvidia_driver()
    try:
        driver = importlib.import_module("flowkit_kernels.probing.driver").find_driver()
    except BROKEN:  # found fault with above
        return Finding("GPU", "ok", told or "no NVIDIA driver; the CPU computes")
    if driver is None and told:
        step = "Install libcuda of the same version; a container must be started with its GPUs, such as docker run --gpus all."
        return Finding("GPU", "warning", f"{told}; but its library libcuda.so.1 cannot be loaded", step)
    if driver is None:
        return Finding("GPU", "ok", "no NVIDIA driver; the CPU computes")
    gpus = "; ".join(f"{i}: {_described(gpu)}" for i, gpu in enumerate(driver.gpus))
    gpus = gpus or driver.trouble or "none visible"
    detail = f"{gpus}; the driver runs CUDA {driver.cuda[0]}.{driver.cuda[1]}" + (f" ({told})" if told else "")
    if driver.trouble:
        return Finding("GPU", "warning", detail, "Make nvidia-smi work.")
    return Finding("GPU", "ok", detail)


def _described(gpu: Any) -> str:
    return (
        f"{gpu.name} ({gpu.memory_bytes / 2**30:.1f} GiB, compute capability {gpu.capability[0]}.{gpu.capability[1]})"
    )


def gpu_backends() -> list[Finding]:
    """Which GPU backends run. That one does not is a warning where there is a GPU and it is the one that `auto` would take."""
    try:
        backend = importlib.import_module("flowkit_kernels.backend")
        obstacles = {name: backend.find_obstacle(name) for name in backend.GPU_BACKENDS}
        idle = backend.auto_note()
    except BROKEN:  # found fault with above
        return []
    return [
        Finding(f"backend {name}", "ok", "runs here")
        if obstacle is None
        else Finding(
            f"backend {name}",
            "warning" if idle and name == "cuda" else "ok",
            f"does not run here: {obstacle.what}",
            obstacle.next_step,
        )
        for name, obstacle in obstacles.items()
    ]


def _nvidia_driver(version_file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """What the driver says of itself, or an empty string."""
    try:
        return version_file.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        pass
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
