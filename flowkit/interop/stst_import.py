"""Flow that others computed, as shards: `flowkit import stst`.

Flow is stored as (value - zero) / scale, both estimated as `stst_layout` says, with the file attribute `units = "minmax"`. What is
unknown stands in run.json under `settings.import`; numbers that only an extraction knows (frame numbers, alignment, residual) are
-1 or NaN. Strain can be computed from the flow and is not stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash

from flowkit.errors import ClipError, ConfigError, ManifestError, SettingsChanged
from flowkit.execution.progress import Reporter, Silent
from flowkit.extraction.plan import Plan, Task, make_plan
from flowkit.extraction.task import record_content
from flowkit.inputs.clip import Clip
from flowkit.interop.stst_layout import (
    GREY_LEVELS,
    SIDE,
    SUFFIXES,
    Layout,
    Scale,
    StstFolder,
    Zero,
    decode,
    read_file,
    scale_of,
    zero_of,
)
from flowkit.provenance import processor, versions
from flowkit.reports.shard_report import refresh_report
from flowkit.settings_io import differences
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.generations import publish_generation, read_generations
from flowkit.storage.index import Index, finalise
from flowkit.storage.quality import Flag
from flowkit.storage.run_file import read_run, refuse_older
from flowkit.storage.schema import COLUMNS, FACE, SHARD_SCHEMA, Sample
from flowkit.storage.shard_writer import shard_image
from flowkit_kernels import MMCOFParams, mmcof

UNITS: Final[dict[Scale, str]] = {
    "spread": "1 is the standard deviation of a channel of a picture; no pixels",
    "range": f"1 is {GREY_LEVELS} grey levels of a channel that was min-max scaled to 0..255; no pixels",
}
SHARD_CLIPS: Final = 256
BACKEND: Final = "reference"
"""What computes MM-COF: at this size the float64 twin is fast, and the same on every machine."""
UNKNOWN: Final = (
    "magnitude (each channel of each picture was scaled by itself), the grey level of no motion (estimated), the ratio of u to v, "
    "frame numbers, how the apex was found, frame rate, alignment, residual motion, the outline of the face"
)


@dataclass(slots=True)
class Imported:
    """What an import did. `listed == ok + failed`; `computed` counts what this call read."""

    out: Path
    layout: Layout
    zero: Zero
    scale: Scale
    listed: int = 0
    ok: int = 0
    failed: int = 0
    computed: int = 0
    extra_pictures: int = 0
    failure_codes: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """0 all clips are in shards; 1 some failed."""
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        counts = dict(sorted(self.failure_codes.items()))
        return {**values, "out": str(self.out), "failure_codes": counts, "exit_code": self.exit_code}


def import_stst(
    folder: str | Path,
    out: str | Path,
    *,
    zero: Zero = "median",
    scale: Scale = "spread",
    list_file: Path | None = None,
    pictures: Path | None = None,
    retry_failed: bool = False,
    reporter: Reporter | None = None,
) -> Imported:
    """The clips of a folder in the public 28 x 28 layout, as shards.

    Goes on where it was stopped. A clip whose pictures cannot be used is recorded and never ends the import. report.html comes
    last.

    Parameters
    ----------
    folder : str or Path
        Holds the list of clips, and the pictures in one of `PICTURE_FOLDERS`.
    out : str or Path
        Folder of the shards; new, empty, or begun by the same import.
    zero : {"median", "mode"}
        How the grey level of no motion is estimated, for each channel of each picture.
    scale : {"spread", "range"}
        What a unit of the stored flow is: the standard deviation of each channel of each picture, or 127 grey levels for all.
    list_file, pictures : Path, optional
        Where list and pictures lie, if elsewhere.
    retry_failed : bool
        Read clips again that failed before.
    reporter : Reporter, optional
        Told of the course; silent by default.

    Returns
    -------
    Imported

    Raises
    ------
    ManifestError
        No list, several, or one that cannot be used: every problem at once.
    ConfigError, SettingsChanged
        `out` holds other things, or an import with other settings.
    EnvironmentMissing, DiskFull
        `out` cannot be written.
    """
    source = StstFolder.find(Path(folder), list_file, pictures)
    out, reporter = Path(out), reporter or Silent()
    settings = _settings(source, zero, scale)
    plan = _prepare(source.clips, settings, out, retry_failed)
    reporter.start(sum(len(task.clips) for task in plan.pending))
    try:
        for task in plan.pending:
            _run_task(task, source, settings, out, reporter)
    finally:
        reporter.finish()
    done = _summary(source, zero, scale, plan, out, finalise(out))
    refresh_report(out, done.computed, reporter)
    return done


# --- the output folder


def _settings(source: StstFolder, zero: Zero, scale: Scale) -> dict[str, Any]:
    """What decides the bytes, in the form in which readers of shards expect the settings of an extraction."""
    try:
        digest = hashlib.sha256(source.list_file.read_bytes()).hexdigest()
    except OSError as error:
        raise ManifestError(f"{source.list_file}: list must be readable; got {error.strerror}. Check it.") from error
    return {
        "import": {
            "from": "STSTNet layout, 28 x 28 PNG",
            "layout": source.layout,
            "zero": zero,
            "scale": scale,
            "unit": UNITS[scale],
            "source": {"csv": source.list_file.name, "sha256": digest},
            "unknown": UNKNOWN,
            "mmcof": "approximate: from flow whose zero is estimated and whose magnitude is relative",
        },
        "units": "minmax",
        "align": {"method": "none", "size": SIDE, "stabilise": "none"},
        "mmcof": dataclasses.asdict(MMCOFParams()),
        "shard": {"clips": SHARD_CLIPS, "compress": "none", "keep_faces": False},
        "backend": BACKEND,
    }


def _prepare(clips: Sequence[Clip], settings: Mapping[str, Any], out: Path, retry_failed: bool) -> Plan:
    """Take the folder, or take it up again, and freeze which clips form which shard."""
    _refuse_others(out, settings)
    commit.probe(out)
    durable_files.remove_stale_temporaries(out)
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    run = {
        "schema": hashed_json.SCHEMA,
        "shard_schema": SHARD_SCHEMA,
        "fingerprint": fingerprint,
        "settings": settings,
        "backend": BACKEND,
        "versions": versions(BACKEND),
        "device": {},
        "machine": {"processor": processor(), "system": platform.platform()},
    }
    if not durable_files.publish_file(out / commit.RUN_FILE, hashed_json.encode(run)):
        _refuse_others(out, settings)
    records, invalid = commit.scan(out)
    for path in invalid:
        durable_files.quarantine(path)
    while True:
        plan = make_plan(
            clips,
            records,
            read_generations(out),
            fingerprint=fingerprint,
            shard_clips=SHARD_CLIPS,
            retry_failed=retry_failed,
        )
        if plan.new is None or publish_generation(out, plan.new):
            return plan


def _refuse_others(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that is neither new nor of this very import."""
    stored = read_run(out)
    if stored is not None:
        refuse_older(out, stored)
        if changes := differences(stored["settings"], settings):
            raise SettingsChanged(
                f"{out}: --out must be new or of the same import; got one made with other settings ({'; '.join(changes[:3])}). Use "
                "another --out."
            )
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: --out must be a folder; got a file. Choose another.")
    others = [path.name for path in out.glob("[!.]*") if path.name not in ("plan", "shards")]
    others += [str(path.relative_to(out)) for name in ("plan", "shards") for path in out.glob(f"{name}/**/[!.]*.*")]
    if others:
        raise ConfigError(
            f"{out}: --out must be empty, new or of the same import; got one that holds {', '.join(sorted(others)[:3])}. Choose "
            "another."
        )


# --- from pictures to a shard


def _run_task(task: Task, source: StstFolder, settings: Mapping[str, Any], out: Path, reporter: Reporter) -> None:
    began = time.time()
    samples: list[Sample] = []
    failures: list[tuple[Clip, ClipError]] = []
    for clip in task.clips:
        try:
            samples.append(_sample(clip, source, settings))
        except ClipError as error:
            failures.append((clip, error))
        reporter.advance(1, bool(failures and failures[-1][0] is clip))
    image = shard_image(samples, settings) if samples else None
    commit.publish(out, task.index, image, record_content(task, samples, failures, began))


def _sample(clip: Clip, source: StstFolder, settings: Mapping[str, Any]) -> Sample:
    both = source.layout == "both phases"
    files = [read_file(clip, source, suffix) for suffix in SUFFIXES[: 1 + both]]
    pixels = [decode(content, name) for name, content in files]
    zeros = [zero_of(picture, settings["import"]["zero"]) for picture in pixels]
    scales = [scale_of(picture, settings["import"]["scale"]) for picture in pixels]
    flow = np.zeros((2, 2, SIDE, SIDE), np.float32)
    for phase, (picture, zero, scale) in enumerate(zip(pixels, zeros, scales, strict=True)):
        flow[phase] = ((picture[..., :2] - zero) / scale).transpose(2, 0, 1)
    combined = mmcof(flow[None], MMCOFParams(**settings["mmcof"]), mask=np.ones((1, SIDE, SIDE), bool), backend=BACKEND)
    still = not all(flow[phase].any() for phase in range(len(files)))
    estimates = {"zero": zeros, "scale": scales}
    listed = {name: " ".join(f"{value:g}" for pair in pairs for value in pair) for name, pairs in estimates.items()}
    extra = {**dict(clip.extra), **listed}
    return {
        **{column.name: column.nothing_known(SIDE) for column in COLUMNS if not column.optional},
        **{name: getattr(clip, name) for name in ("clip_id", "dataset", "subject", "label", "fps")},
        "flow": flow.astype(np.float16),
        "mmcof": combined[0].astype(np.float16),
        "regions": np.full((SIDE, SIDE), FACE, np.uint8),
        "phase_valid": np.array([True, both]),
        "qc": int(Flag.ZERO_MOTION if still else Flag(0)),
        "source_hash": xxhash.xxh3_128_hexdigest(b"".join(content for _, content in files)),
        "extra": json.dumps(extra, ensure_ascii=False),
    }


def _summary(source: StstFolder, zero: Zero, scale: Scale, plan: Plan, out: Path, index: Index) -> Imported:
    names = {clip.clip_id for clip in source.clips}
    failures = [code for name, code in index.failures() if name in names]
    return Imported(
        out=out,
        layout=source.layout,
        zero=zero,
        scale=scale,
        listed=len(names),
        ok=len(names.intersection(index.clip_ids())),
        failed=len(failures),
        computed=sum(len(task.clips) for task in plan.pending),
        extra_pictures=source.extra_pictures,
        failure_codes=Counter(failures),
    )
