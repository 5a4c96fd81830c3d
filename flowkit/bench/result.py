"""A result of a benchmark: what it begins with, whether all is right in it, and how it is stored."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.bench.options import BenchOptions, Case, Document
from flowkit.extraction.devices import describe_devices
from flowkit.provenance import versions
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.host import cores, processor

TITLE = "flowkit bench"
FORMAT = 1


# --- results


def heading(backends: Sequence[str], settings: BenchOptions | Mapping[str, Any]) -> Document:
    """What every result begins with. A GPU is described by a process of its own: this one may go without a context."""
    here = {name: version for backend in backends for name, version in versions(backend).items()}
    devices = {name: describe_devices(name, (0,))["0"] for name in backends if name in GPU_BACKENDS}
    return {
        "title": TITLE,
        "format": FORMAT,
        "machine": {
            "processor": processor(),
            "cores": cores(),
            "load_average": [round(load, 2) for load in os.getloadavg()]
            if hasattr(os, "getloadavg")
            else [],  # not on Windows
            "devices": devices,
            "versions": here,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        "settings": dataclasses.asdict(settings) if isinstance(settings, BenchOptions) else dict(settings),
        "interrupted": True,
    }


def troubles(document: Document) -> list[str]:
    """Every case that gave a wrong answer or none, and every run end to end that lost clips, in words."""
    rows = [row for row in document.get("rows", ()) if row["status"] in ("wrong", "failed")]
    runs = [found for found in document.get("end_to_end", ()) if found["failed"]]
    return [f"{label(Case(**row['case']))}: {row['status']}, {row['detail']}" for row in rows] + [
        f"extract, {found['backend']}: {found['failed']} clips failed {found['failure_codes']}" for found in runs
    ]


def label(case: Case) -> str:
    """A case in words."""
    return f"{case.op} {case.height} x {case.width}, batch {case.batch}, {case.backend}, {case.arrays} arrays"


def write_result(path: Path, document: Document) -> None:
    """Store a result as a baseline for `compare`."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
