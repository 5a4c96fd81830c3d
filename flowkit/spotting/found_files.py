"""What a search of recordings writes: a manifest that `flowkit extract` takes, and a JSON file with everything else."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from flowkit._version import __version__
from flowkit.datasets.base import Event
from flowkit.errors import ConfigError
from flowkit.inputs.clip import APEX_CONFIDENCE, APEX_SOURCE, SPOT_PROBLEM, Clip
from flowkit.inputs.manifest import manifest_bytes
from flowkit.spotting.gathering import Searched
from flowkit.spotting.intervals import Interval
from flowkit.storage.durable_files import replace_file
from flowkit.storage.out_file import check_out_file

SCHEMA: Final = 1
"""Of the JSON file."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
LONGEST_REASON: Final = 500
"""Bytes of a reason in a manifest."""


def curves_file(out: Path) -> Path:
    """Return where the JSON file lies that belongs to a manifest."""
    return out.with_suffix(".json")


def check_places(out: Path, *, overwrite: bool) -> None:
    """Refuse places where the results cannot go, before anything is computed.

    Raises
    ------
    ConfigError
    """
    check_out_file(out, overwrite=overwrite)
    if out.suffix.casefold() != ".csv":  # nobody means to replace a recording
        raise ConfigError(
            f"{out}: --out must name a manifest, a .csv file; got {out.suffix or 'no suffix'}. Rename it."
        )
    check_out_file(curves_file(out), overwrite=overwrite)


def write_found(out: Path, clips: Sequence[Clip], searched: Sequence[Searched]) -> None:
    """Write a row for each expression, and the JSON file.

    Parameters
    ----------
    out : Path
        The manifest.
    clips : sequence of Clip
        The recordings, as `own_recordings.recording_clip` makes them.
    searched : sequence of Searched
        What was found in them, in the same order.

    Raises
    ------
    ManifestError, DiskFull
    """
    rows = [
        interval_clip(clip, one.fps, interval)
        for clip, one in zip(clips, searched, strict=True)
        for interval in one.expressions
    ]
    manifest = manifest_bytes(rows, out.name, allow_empty=True)
    content = {"schema": SCHEMA, "flowkit": __version__, "recordings": [one.to_dict() for one in searched]}
    replace_file(curves_file(out), json.dumps(content, allow_nan=False).encode())
    replace_file(out, manifest)


def found_summary(
    searched: Sequence[Searched], out: Path, commands: Sequence[str], events: Sequence[Event]
) -> dict[str, Any]:
    """Plain values, as `--json` prints them: what was found, without the curves, and what was left out."""
    recordings = [one.to_dict() for one in searched]
    for one in recordings:
        del one["curve"]
    left_out = [dataclasses.asdict(event) for event in events]
    return {"out": str(out), "recordings": recordings, "next": list(commands), "events": left_out}


def write_strongest(out: Path, clips: Sequence[Clip], searched: Sequence[Searched]) -> None:
    """Write a row for each recording: its surest expression, or why there is none.

    Raises
    ------
    ManifestError, DiskFull
    """
    rows = []
    for clip, one in zip(clips, searched, strict=True):
        best = strongest(one)
        if best is None:
            reason = _CONTROL.sub(" ", nothing_found(one)).encode()[:LONGEST_REASON].decode(errors="ignore")
            extra = {APEX_SOURCE: "", SPOT_PROBLEM: reason}
            rows.append(dataclasses.replace(clip, extra=tuple(sorted(extra.items()))))
        else:
            rows.append(dataclasses.replace(interval_clip(clip, one.fps, best), clip_id=clip.clip_id))
    replace_file(out, manifest_bytes(rows, out.name))


def strongest(searched: Searched) -> Interval | None:
    """Return the surest expression of a recording; of several as sure, the one that moves most."""
    return max(searched.expressions, key=lambda one: (one.confidence, one.motion_px), default=None)


def nothing_found(searched: Searched) -> str:
    """Say why a recording has no expression."""
    if searched.problems:
        return "; ".join(f"{code}: {message}" for code, message in searched.problems)
    return f"no movement of the face was found in {searched.used} of {searched.frames} frames that could be used."


def interval_clip(recording: Clip, fps: float, interval: Interval) -> Clip:
    """Make the row of an expression in a recording."""
    extra: dict[str, Any] = {
        APEX_SOURCE: "spotted",
        APEX_CONFIDENCE: f"{interval.confidence:.4f}",
        "kind": interval.kind,
        "region": interval.region,
        "moves": interval.action_units,
        "motion_px": f"{interval.motion_px:.3f}",
        "blink": "yes" if interval.blink else "no",
        "onset_s": f"{interval.onset_s:.3f}",
        "offset_s": f"{interval.offset_s:.3f}",
    }
    return dataclasses.replace(
        recording,
        clip_id=f"{recording.clip_id}/{interval.onset}-{interval.offset}",
        onset=interval.onset,
        apex=interval.apex,
        offset=interval.offset,
        fps=fps,
        extra=tuple(sorted(extra.items())),
    )
