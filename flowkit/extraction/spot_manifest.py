"""`flowkit spot`: a manifest whose empty apexes are filled in, as a new file."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError, ConfigError, EnvironmentMissing, FailureCode, Interrupted, ManifestError
from flowkit.execution.memory import check_address_space
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.standard_streams import open_closed
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import WorkerStartError
from flowkit.extraction.options import RunOptions
from flowkit.extraction.read_and_align import clip_error
from flowkit.face.align import check_needs
from flowkit.inputs.clip import APEX_CONFIDENCE, APEX_SOURCE, Clip
from flowkit.inputs.manifest import read_manifest
from flowkit.motion.spotting import Spotted, spotter
from flowkit.provenance import refuse_windows
from flowkit.storage import durable_files
from flowkit.storage.out_file import check_out_file
from flowkit_kernels import warm_up

LEAST_CONFIDENCE = 0.005
"""Whatever is less sure would stand in the manifest as 0.00."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of a manifest.

    Attributes
    ----------
    out : Path
        The completed manifest.
    clips : int
        Rows of the manifest.
    spotted : dict of str to Spotted
        By clip id.
    failed : tuple of (Clip, ClipError)
        In order of their line; their apex is still empty.
    """

    out: Path
    clips: int
    spotted: dict[str, Spotted]
    failed: tuple[tuple[Clip, ClipError], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "out": str(self.out),
            "clips": self.clips,
            "with_apex": self.clips - len(self.spotted) - len(self.failed),
            "spotted": {clip_id: found.to_dict() for clip_id, found in self.spotted.items()},
            "failed": [
                {"clip_id": clip.clip_id, "line": clip.line, "code": str(error.code), "message": error.message}
                for clip, error in self.failed
            ],
        }


def complete(
    manifest: str | Path,
    out: str | Path,
    frames: FrameConfig,
    align: AlignConfig,
    options: RunOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Completion:
    """Spot the apex of every row that has none, and store the manifest with it.

    Rows keep their order and their cells. The columns `apex_source` (annotated, spotted, or empty where there is still no apex)
    and `apex_confidence` come last, unless they are there. A row whose apex cannot be found keeps its empty cell.

    Parameters
    ----------
    manifest, out : str or Path
        CSV files; the first is only read, the second appears whole or not at all.
    frames, align
        See `spotting.spot`.
    options : RunOptions
        `root`, `workers`, `timeout_s` and `overwrite` (of a file at `out`) matter.
    reporter, stop
        As of `pipeline.extract`.

    Returns
    -------
    Completion

    Raises
    ------
    ManifestError, ConfigError, EnvironmentMissing, BackendUnavailable, DiskFull
    Interrupted
        Nothing was written.
    """
    refuse_windows("spot")
    open_closed()
    manifest, out = Path(manifest), Path(out)
    reporter, stop = reporter or Silent(), stop or Stop()
    clips = read_manifest(manifest)
    root = options.root or manifest.parent
    if not root.is_dir():
        raise ManifestError(f"{root}: --root must be a folder; got none there. Check the path.")
    if out.exists() and out.samefile(manifest):
        raise ConfigError(f"{out}: --out must be another file than the manifest; got the same. Choose another name.")
    check_out_file(out, overwrite=options.overwrite)
    check_needs(align)
    check_address_space()
    wanted = [clip for clip in clips if clip.apex is None]
    if wanted:
        warm_up("cpu", reporter.note)
    reporter.start(len(wanted))
    spotted: dict[str, Spotted] = {}
    failed: list[tuple[Clip, ClipError]] = []
    try:
        for clip, found in _spot_all(wanted, partial(spotter, root, frames, align), options, stop):
            if not isinstance(found, ClipError) and found.confidence < LEAST_CONFIDENCE:
                found = _nothing_moves(clip, found)
            if isinstance(found, ClipError):
                failed.append((clip, found))
            else:
                spotted[clip.clip_id] = found
            reporter.advance(1, int(isinstance(found, ClipError)))
    except Interrupted as error:
        raise type(error)("spot: run was stopped before its end; nothing was written. Run it again.") from None
    finally:
        reporter.finish()
    _store(out, _completed(manifest, spotted), options.overwrite)
    return Completion(out, len(clips), spotted, tuple(sorted(failed, key=lambda one: one[0].line)))


def _spot_all(
    clips: Sequence[Clip], handler: Callable[[], Any], options: RunOptions, stop: Stop
) -> Iterator[tuple[Clip, Spotted | ClipError]]:
    workers = max(1, min(options.cores(options.workers), len(clips)))
    with SupervisedPool(handler, workers=workers, timeout_s=options.timeout_s, window=4 * workers) as pool:
        try:
            for clip, outcome in pool.submit(clips).outcomes(stop.check):
                yield clip, clip_error(clip, outcome) if outcome.value is None else outcome.value
        except WorkerStartError as error:
            raise EnvironmentMissing(
                f"workers: a worker process must be able to start; got: {error}. Run flowkit doctor."
            ) from error


def _nothing_moves(clip: Clip, found: Spotted) -> ClipError:
    return ClipError(
        FailureCode.APEX_MISSING,
        f"{clip.where}: clip must show a movement for an apex to be found; nothing in it rises and falls (confidence "
        f"{found.confidence:.2f}). Look at it, or annotate the apex.",
        clip.path,
    )


def _store(out: Path, content: bytes, overwrite: bool) -> None:
    if overwrite:
        durable_files.replace_file(out, content)
    elif not durable_files.publish_file(out, content):
        raise ConfigError(f"{out}: --out must not exist yet; got a file that has just appeared. Choose another name.")


def _completed(manifest: Path, spotted: Mapping[str, Spotted]) -> bytes:
    """The manifest as it stands, with what was found."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [row for row in reader if any(value.strip() for value in row.values())]
    text = io.StringIO()
    columns = [*columns, *(name for name in (APEX_SOURCE, APEX_CONFIDENCE) if name not in columns)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        found = spotted.get(unicodedata.normalize("NFC", row["clip_id"].strip()))
        writer.writerow(row | (_found_cells(found) if found else _own_cells(row)))
    return text.getvalue().encode()


def _found_cells(found: Spotted) -> dict[str, object]:
    return {
        "apex": found.apex,
        APEX_SOURCE: "spotted",
        APEX_CONFIDENCE: f"{found.confidence:.4f}",
    }


def _own_cells(row: Mapping[str, str]) -> dict[str, object]:
    """Of a row that was not spotted: what it says of itself, or that its apex, if any, was annotated."""
    stated = (row.get(APEX_SOURCE) or "").strip()
    return {
        APEX_SOURCE: stated or ("annotated" if row["apex"].strip() else ""),
        APEX_CONFIDENCE: (row.get(APEX_CONFIDENCE) or "").strip(),
    }
