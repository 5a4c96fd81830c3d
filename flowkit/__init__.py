"""flowkit: dual-phase TV-L1 optical flow and MM-COF of micro-expression clips, into HDF5 shards.

    import flowkit

    summary = flowkit.extract("clips.csv", "out")
    for shard in flowkit.ShardFolder.open("out").shards():
        print(shard.column("clip_id"), shard.column("mmcof").shape)

The names in `__all__`, those of `flowkit.errors`, and no others are public. They are loaded at their first use, so that a reader of
shards pays for h5py and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowkit._version import __version__

if TYPE_CHECKING:
    from flowkit import errors
    from flowkit.checking.check import check_manifest
    from flowkit.config import ExtractConfig, load_config
    from flowkit.datasets import read_dataset
    from flowkit.execution.progress import LoggingReporter
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.extraction.pipeline import extract, preview
    from flowkit.extraction.summary import Summary
    from flowkit.face.canonical_face import canonical_flow
    from flowkit.inputs.clip import Clip
    from flowkit.inputs.manifest import read_manifest, write_manifest
    from flowkit.interop.export import export
    from flowkit.interop.stst_import import import_stst
    from flowkit.labels.groupings import grouping
    from flowkit.motion.stored_head_motion import removed_motion
    from flowkit.reports.pictures import clip_strip, colour_wheel, mmcof_wheel, png_bytes
    from flowkit.reports.shard_report import write_report
    from flowkit.storage.folder import ShardFolder
    from flowkit.storage.index import Index
    from flowkit.storage.inspection import inspect, verify
    from flowkit.storage.sample_reader import read_samples
    from flowkit.storage.shard_reader import Shard
    from flowkit.synthetic.dataset import synthesise
    from flowkit.synthetic.scene_settings import SynthConfig
    from flowkit.synthetic.scenes import make_scene, make_subject

_HOME = {
    "Clip": "flowkit.inputs.clip",
    "ExtractConfig": "flowkit.config",
    "Index": "flowkit.storage.index",
    "LoggingReporter": "flowkit.execution.progress",
    "RunOptions": "flowkit.extraction.options",
    "Shard": "flowkit.storage.shard_reader",
    "ShardFolder": "flowkit.storage.folder",
    "Stop": "flowkit.execution.stop",
    "Summary": "flowkit.extraction.summary",
    "SynthConfig": "flowkit.synthetic.scene_settings",
    "canonical_flow": "flowkit.face.canonical_face",
    "check_manifest": "flowkit.checking.check",
    "clip_strip": "flowkit.reports.pictures",
    "colour_wheel": "flowkit.reports.pictures",
    "export": "flowkit.interop.export",
    "extract": "flowkit.extraction.pipeline",
    "grouping": "flowkit.labels.groupings",
    "import_stst": "flowkit.interop.stst_import",
    "inspect": "flowkit.storage.inspection",
    "load_config": "flowkit.config",
    "make_scene": "flowkit.synthetic.scenes",
    "make_subject": "flowkit.synthetic.scenes",
    "mmcof_wheel": "flowkit.reports.pictures",
    "png_bytes": "flowkit.reports.pictures",
    "preview": "flowkit.extraction.pipeline",
    "read_dataset": "flowkit.datasets",
    "read_manifest": "flowkit.inputs.manifest",
    "read_samples": "flowkit.storage.sample_reader",
    "removed_motion": "flowkit.motion.stored_head_motion",
    "synthesise": "flowkit.synthetic.dataset",
    "verify": "flowkit.storage.inspection",
    "write_manifest": "flowkit.inputs.manifest",
    "write_report": "flowkit.reports.shard_report",
}

__all__ = [
    "Clip",
    "ExtractConfig",
    "Index",
    "LoggingReporter",
    "RunOptions",
    "Shard",
    "ShardFolder",
    "Stop",
    "Summary",
    "SynthConfig",
    "__version__",
    "canonical_flow",
    "check_manifest",
    "clip_strip",
    "colour_wheel",
    "errors",
    "export",
    "extract",
    "grouping",
    "import_stst",
    "inspect",
    "load_config",
    "make_scene",
    "make_subject",
    "mmcof_wheel",
    "png_bytes",
    "preview",
    "read_dataset",
    "read_manifest",
    "read_samples",
    "removed_motion",
    "synthesise",
    "verify",
    "write_manifest",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("flowkit.errors")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'flowkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
