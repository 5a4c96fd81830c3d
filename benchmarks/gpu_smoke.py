"""Check that each GPU backend runs, and that its answers are correct and have the same bits every time.

python benchmarks/gpu_smoke.py --out FILE.json [--backends cuda,numba-cuda]

The reference for TV-L1 (all presets, host and device arrays) and MM-COF is the float64 backend, which needs no compilation. Exit
codes: 0 all answers are correct; 1 an answer is wrong, or one of the requested backends cannot run; 3 none of them can run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowkit_kernels import FlowkitError, TVL1Params, mmcof, tvl1_flow
from flowkit_kernels.backend import GPU_BACKENDS, describe_device, find_obstacle
from flowkit_kernels.params import PRESETS
from flowkit_kernels.timing import stopwatch
from gpu_probe import images

SIZE, COUNT, QUICK_SIZE = 96, 3, 48
INTERIOR = (..., slice(8, -8), slice(8, -8))
"""Region where flow is compared, as in the tests: at the border the problem is ill-conditioned."""
BARS = {"micro": 3e-3, "fixed": 3e-3, "opencv": 0.015, "mmcof": 1e-5}
"""Largest mean difference from the reference (flow: px), as in tests/kernels."""


def checks(backend: str, size: int) -> Iterator[tuple[str, float, bool]]:
    """Yield the name of a check, the mean difference, and whether three calls gave the same bits."""
    onset, apex = images(size, COUNT)
    watch = stopwatch(backend)
    placed = watch.place(onset), watch.place(apex)
    for preset in PRESETS:
        params = TVL1Params.preset(preset)
        right = tvl1_flow(onset, apex, params, backend="reference")
        for place, arrays in (("host", (onset, apex)), ("device", placed)):
            found = [watch.fetch(tvl1_flow(*arrays, params, backend=backend)) for _ in range(3)]
            same = len({one.tobytes() for one in found}) == 1
            yield f"{preset}, {place} arrays", float(np.abs(found[0] - right)[INTERIOR].mean()), same
    flow = np.random.default_rng(0).normal(size=(COUNT, 2, 2, size, size)).astype(np.float32)
    found = [mmcof(flow, backend=backend) for _ in range(3)]
    difference = float(np.abs(found[0] - mmcof(flow, backend="reference")).mean())
    yield "mmcof, host arrays", difference, len({one.tobytes() for one in found}) == 1


def look(backend: str, size: int) -> dict[str, Any]:
    """Check a backend. The result has the keys runs, and why (if it does not run) or device, checks and wrong."""
    obstacle = find_obstacle(backend)
    if obstacle:
        return {"runs": False, "why": f"{obstacle.what}. {obstacle.next_step}"}
    found: dict[str, Any] = {"runs": True, "checks": [], "wrong": []}
    try:
        found["device"] = describe_device(backend)
        for name, difference, same in checks(backend, size):
            bar = BARS[name.partition(",")[0]]
            found["checks"].append({"what": name, "mean_difference": difference, "bar": bar, "same_bits": same})
            if not (difference <= bar and same):
                found["wrong"].append(f"{name}: mean difference {difference:.2g}, bar {bar:g}; same bits: {same}")
    except FlowkitError as error:
        return found | {"runs": False, "why": str(error)}
    except Exception as error:  # noqa: BLE001 - the other backend may have an answer
        return found | {"runs": False, "why": f"{type(error).__name__}: {error}"}
    return found


def summary(backend: str, found: dict[str, Any]) -> str:
    """Return the result of a backend as one line."""
    if not found["runs"]:
        return f"{backend} cannot run: {found['why']}"
    worst = max(check["mean_difference"] / check["bar"] for check in found["checks"])
    state = f"correct (differences at most {worst:.2g} of the bar), same bits every time"
    if found["wrong"]:
        state = f"WRONG: {'; '.join(found['wrong'])}"
    return f"{backend} on {found['device']['name']}: {state}"


def main() -> int:
    """Check the backends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(GPU_BACKENDS), help="GPU backends that must run, by commas")
    parser.add_argument("--quick", action="store_true", help="tiny pairs")
    parser.add_argument("--out", type=Path, required=True, help="where to store the result as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for backend in options.backends.split(","):
        result[backend] = look(backend, QUICK_SIZE if options.quick else SIZE)
        sys.stdout.write(f"{summary(backend, result[backend])}\n")
        sys.stdout.flush()
        lines = [summary(name, found) for name, found in result.items()]
        options.out.write_text(json.dumps({"summary": lines, **result}, indent=1) + "\n", encoding="utf-8")
    run = [found for found in result.values() if found["runs"]]
    well = len(run) == len(result) and not any(found["wrong"] for found in run)
    return 0 if well else 1 if run else 3


if __name__ == "__main__":
    sys.exit(main())
