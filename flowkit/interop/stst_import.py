"""Flow that others computed, as shards: `flowkit import stst` reads the public 28 x 28 layout of STSTNet, HTNet and CausalNet.

A CSV lists the clips (dataset, sub, filename_o, label). A clip has a picture of its rise, `{sub}_{filename_o} .png`, and in the
layout of both phases one of its fall, `{sub}_{filename_o}_1 .png`: red is u, green v, blue optical strain. Each channel of each
picture was min-max scaled to 0..255, so the grey level of "no motion", the magnitude, and how u compares with v are lost. They are
estimated for each channel of each picture, and flow is stored as (value - zero) / scale with the file attribute
`units = "minmax"`. What is unknown stands in run.json under `settings.import`; numbers that only an extraction knows (frame
numbers, alignment, residual) are -1 or NaN. Strain can be computed from the flow and is not stored.

Zero is the median by default. On 309 clips of the public files rise and fall should oppose each other: their cosine has a median
of -0.42 with it, against -0.33 with the mode, which holds 4 % of a channel's pixels only and so jumps.

Scale is the standard deviation by default, so that u and v weigh alike. With 127 grey levels for all ("range"), the one pixel that
moved most, often at the border, sets the scale of its channel, and networks learn less: benchmarks/tuning.py.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import io
import json
import math
import platform
import re
import struct
import time
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from flowkit.errors import ClipError, ConfigError, FailureCode, ManifestError, SettingsChanged
from flowkit.execution.progress import Reporter, Silent
from flowkit.extraction.plan import Plan, Task, make_plan
from flowkit.extraction.task import record_content
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import MAX_LISTED, MAX_TEXT
from flowkit.provenance import processor, versions
from flowkit.reports.shard_report import refresh_report
from flowkit.settings_io import differences
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.generations import publish_generation, read_generations
from flowkit.storage.index import Index, finalise
from flowkit.storage.quality import Flag
from flowkit.storage.run_file import read_run, refuse_older
from flowkit.storage.safe_files import lines, regular
from flowkit.storage.schema import ACTION_UNITS, DEPTH_MODES, FACE, SHARD_SCHEMA, Sample
from flowkit.storage.shard_writer import shard_image
from flowkit_kernels import MMCOFParams, mmcof

Zero = Literal["mode", "median"]
Scale = Literal["spread", "range"]
Layout = Literal["both phases", "rise only"]

LIST_FILE: Final = "combined_3_class2_for_optical_flow.csv"
PICTURE_FOLDERS: Final = ("datasets/STSNet_whole_norm_u_v_os", "STSNet_whole_norm_u_v_os", ".")
COLUMNS: Final = ("dataset", "sub", "filename_o", "label")
LABELS: Final = {"0": "negative", "1": "positive", "2": "surprise"}
DATASETS: Final = {"casme2": "casme2", "casmeii": "casme2", "smic": "smic-hs", "smichs": "smic-hs", "samm": "samm"}
"""By name in lower case, without blanks, hyphens and underscores."""
SIDE: Final = 28
GREY_LEVELS: Final = 127
"""Grey levels that make one unit of the stored flow with the scale "range"."""
UNITS: Final[dict[Scale, str]] = {
    "spread": "1 is the standard deviation of a channel of a picture; no pixels",
    "range": f"1 is {GREY_LEVELS} grey levels of a channel that was min-max scaled to 0..255; no pixels",
}
SHARD_CLIPS: Final = 256
BACKEND: Final = "reference"
"""What computes MM-COF: at this size the float64 twin is fast, and the same on every machine."""
MAX_FILE_BYTES: Final = 1 << 20
SUFFIXES: Final = (" .png", "_1 .png", "_2 .png", "_3 .png")
"""Rise, fall, and the direction maps of both, which are not read."""
UNKNOWN: Final = (
    "magnitude (each channel of each picture was scaled by itself), the grey level of no motion (estimated), the ratio of u to v, "
    "frame numbers, how the apex was found, frame rate, alignment, residual motion, the outline of the face"
)
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged PNG files."""


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
    source = _Source.find(Path(folder), list_file, pictures)
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


# --- what is there


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder in the layout: its list of clips, and which pictures there are."""

    root: Path
    list_file: Path
    pictures: Path
    clips: tuple[Clip, ...]
    layout: Layout
    extra_pictures: int

    @classmethod
    def find(cls, root: Path, list_file: Path | None, pictures: Path | None) -> _Source:
        if not root.is_dir():
            raise ManifestError(f"{root}: DIR must be a folder; got none there. Check the path.")
        list_file = list_file or _find_list(root)
        clips = tuple(_read_list(list_file))
        pictures = pictures or _find_pictures(root)
        there = {path.name for path in pictures.glob("[!.]*.png")}
        rises = {clip.path + SUFFIXES[0] for clip in clips}
        falls = {clip.path + SUFFIXES[1] for clip in clips} - rises
        known = {clip.path + suffix for clip in clips for suffix in SUFFIXES}
        layout: Layout = "both phases" if falls & there else "rise only"
        return cls(root, list_file, pictures, clips, layout, len(there - known))


def _find_list(root: Path) -> Path:
    found = sorted(root.glob("[!.]*.csv"))
    named = [path for path in found if path.name == LIST_FILE]
    if len(named or found) == 1:
        return (named or found)[0]
    names = ", ".join(path.name for path in found) or "none"
    raise ManifestError(
        f"{root}: folder must hold the list of clips, {LIST_FILE} or one CSV file alone; got {names}. Name it with --csv."
    )


def _find_pictures(root: Path) -> Path:
    for name in PICTURE_FOLDERS:
        if any((root / name).glob("[!.]*.png")):
            return root / name
    raise ManifestError(
        f"{root}: pictures must lie in {', '.join(PICTURE_FOLDERS[:-1])} or in the folder itself; got no PNG file there. Name "
        "their folder with --pictures."
    )


def _read_list(path: Path) -> list[Clip]:
    """Every clip of the list, sorted by id; `path` of a clip is the common beginning of its pictures' names."""
    problems: list[str] = []
    by_picture: dict[str, Clip] = {}
    try:
        for clip in _rows(path, problems):
            first = by_picture.setdefault(clip.path, clip)
            if first is not clip:
                problems.append(
                    f"{path.name}:{clip.line}: sub and filename_o must name another clip than every other row; got those of line "
                    f"{first.line} ({first.clip_id}). Remove one of the two."
                )
    except OSError as error:
        raise ManifestError(f"{path}: list must be a readable CSV file; got {error.strerror}. Check it.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: list must be CSV in UTF-8; got {error}. Save it as such.") from error
    if not by_picture and not problems:
        problems.append(f"{path}: list must name at least one clip; got none. Add rows.")
    if problems:
        more = f"\n... and {len(problems) - MAX_LISTED} more." if len(problems) > MAX_LISTED else ""
        raise ManifestError("\n".join(problems[:MAX_LISTED]) + more)
    return sorted(by_picture.values(), key=lambda clip: clip.clip_id)


def _rows(path: Path, problems: list[str]) -> Iterator[Clip]:
    with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
        reader = csv.DictReader(lines(file), skipinitialspace=True, strict=True)
        header = [name.strip() for name in reader.fieldnames or []]
        if missing := [name for name in COLUMNS if name not in header]:
            problems.append(_header_problem(path, header, missing))
            return
        reader.fieldnames = header
        for row in reader:
            if None in row or None in row.values():
                problems.append(
                    f"{path.name}:{reader.line_num}: row must have as many fields as the header; got another number. Check commas "
                    "and quotes."
                )
                continue
            cells = {name: value.strip() for name, value in row.items() if name}
            if any(cells.values()):
                found = list(_row_problems(cells, f"{path.name}:{reader.line_num}"))
                problems.extend(found)
                if not found:
                    yield _clip(cells, reader.line_num)


def _header_problem(path: Path, header: Sequence[str], missing: Sequence[str]) -> str:
    plain = {name.casefold().replace(" ", "_"): name for name in header}
    near = {name: difflib.get_close_matches(name, plain, 1, 0.7) for name in missing}
    advice = [f"rename {plain[found[0]]!r} to {name}" if found else f"add {name}" for name, found in near.items()]
    return (
        f"{path.name}:1: header must name {', '.join(COLUMNS)}; got {', '.join(header) or 'nothing'}. In it, "
        f"{', '.join(advice)}."
    )


def _row_problems(cells: Mapping[str, str], where: str) -> Iterator[str]:
    for name in ("sub", "filename_o"):
        if not cells[name] or _UNSAFE.search(cells[name]) or len(cells[name].encode()) > MAX_TEXT // 4:
            yield (
                f"{where}: {name} must be a short name without slashes and control characters; got {cells[name]!r:.80}. "
                "Correct the cell."
            )
    if _plain(cells["dataset"]) not in DATASETS:
        known = ", ".join(dict.fromkeys(DATASETS.values()))
        yield f"{where}: dataset must be one of {known}; got {cells['dataset']!r:.80}. Correct the cell, or remove the row."
    if cells["label"] not in LABELS:
        known = ", ".join(f"{number} ({word})" for number, word in LABELS.items())
        yield f"{where}: label must be one of {known}; got {cells['label']!r:.80}. Correct the cell, or remove the row."
    if sum(map(len, cells.values())) > MAX_TEXT * 4:
        yield f"{where}: row must hold at most {MAX_TEXT * 4} characters; got more. Shorten its further columns."


def _plain(name: str) -> str:
    return re.sub("[ _-]", "", name.casefold())


def _clip(cells: Mapping[str, str], line: int) -> Clip:
    dataset = DATASETS[_plain(cells["dataset"])]
    subject, name = (unicodedata.normalize("NFC", cells[column]) for column in ("sub", "filename_o"))
    return Clip(
        clip_id=f"{dataset}/{subject}/{name}",
        path=f"{cells['sub']}_{cells['filename_o']}",
        onset=-1,
        apex=None,
        offset=None,
        subject=subject,
        dataset=dataset,
        label=LABELS[cells["label"]],
        extra=tuple(sorted((name, value) for name, value in cells.items() if name not in COLUMNS and value)),
        line=line,
    )


# --- the output folder


def _settings(source: _Source, zero: Zero, scale: Scale) -> dict[str, Any]:
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


def _run_task(task: Task, source: _Source, settings: Mapping[str, Any], out: Path, reporter: Reporter) -> None:
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


def _sample(clip: Clip, source: _Source, settings: Mapping[str, Any]) -> Sample:
    both = source.layout == "both phases"
    files = [_read_file(clip, source, suffix) for suffix in SUFFIXES[: 1 + both]]
    pixels = [_decode(content, name) for name, content in files]
    zeros = [_zero(picture, settings["import"]["zero"]) for picture in pixels]
    scales = [_scale(picture, settings["import"]["scale"]) for picture in pixels]
    flow = np.zeros((2, 2, SIDE, SIDE), np.float32)
    for phase, (picture, zero, scale) in enumerate(zip(pixels, zeros, scales, strict=True)):
        flow[phase] = ((picture[..., :2] - zero) / scale).transpose(2, 0, 1)
    combined = mmcof(flow[None], MMCOFParams(**settings["mmcof"]), mask=np.ones((1, SIDE, SIDE), bool), backend=BACKEND)
    still = not all(flow[phase].any() for phase in range(len(files)))
    estimates = {"zero": zeros, "scale": scales}
    listed = {name: " ".join(f"{value:g}" for pair in pairs for value in pair) for name, pairs in estimates.items()}
    extra = {**dict(clip.extra), **listed}
    return {
        **_unknown(),
        **{name: getattr(clip, name) for name in ("clip_id", "dataset", "subject", "label", "fps")},
        "flow": flow.astype(np.float16),
        "mmcof": combined[0].astype(np.float16),
        "regions": np.full((SIDE, SIDE), FACE, np.uint8),
        "phase_valid": np.array([True, both]),
        "qc": int(Flag.ZERO_MOTION if still else Flag(0)),
        "source_hash": xxhash.xxh3_128_hexdigest(b"".join(content for _, content in files)),
        "extra": json.dumps(extra, ensure_ascii=False),
    }


def _unknown() -> dict[str, Any]:
    """The columns of which such a folder says nothing."""
    return {
        "onset": -1,
        "apex": -1,
        "offset": -1,
        "apex_source": "unknown",
        "n_faces": 0,
        "transform": np.full((2, 3), math.nan),
        "registration": np.full((2, 2, 3), math.nan),
        "light": np.full((2, 2), math.nan),
        "removed": np.full((2, 2, 3), math.nan),
        "residual": np.full(2, math.nan),
        "turn": np.full((2, 2), math.nan),
        "removed_turn": np.full((2, 2), math.nan),
        "depth": np.full((2, DEPTH_MODES), math.nan),
        "separation": np.full(2, math.nan),
        "au_hint": np.full((2, len(ACTION_UNITS)), math.nan),
        "noise": math.nan,
        "contrast": math.nan,
        "data_weight": 1.0,
        "landmarks": np.full((478, 2), math.nan),
    }


def _read_file(clip: Clip, source: _Source, suffix: str) -> tuple[str, bytes]:
    """Name and content of a clip's picture."""
    name = clip.path + suffix
    path = source.pictures / name
    if not path.is_file():
        raise _failed(FailureCode.FRAME_MISSING, name, "picture must be there", "none", "Restore it")
    homes = (source.root.resolve(), source.pictures.resolve())
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise _failed(FailureCode.PATH_REFUSED, name, "picture must lie in DIR", "a link that leads out", "Copy it")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise _failed(FailureCode.IMAGE_UNREADABLE, name, "picture must be readable", reason, "Restore it") from error
    if len(content) > MAX_FILE_BYTES:
        limit = f"file must be at most {MAX_FILE_BYTES} bytes"
        raise _failed(FailureCode.IMAGE_TOO_LARGE, name, limit, "more", "Restore it")
    return name, content


def _decode(content: bytes, name: str) -> npt.NDArray[np.float32]:
    """(28, 28, 3): u, v, strain as grey levels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at before decoding
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.size != (SIDE, SIDE):
                    size = "{} x {}".format(*image.size)
                    wanted = f"picture must be {SIDE} x {SIDE} pixels"
                    raise _failed(FailureCode.SIZE_MISMATCH, name, wanted, size, "Restore the original")
                if image.mode != "RGB":
                    wanted = "picture must have the mode RGB"
                    raise _failed(FailureCode.IMAGE_UNREADABLE, name, wanted, image.mode, "Restore the original")
                return np.asarray(image, np.float32)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = f"{len(content)} bytes that are none ({error})"
        raise _failed(FailureCode.IMAGE_UNREADABLE, name, "picture must be a PNG file", reason, "Restore it") from error


def _zero(picture: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
    """(2,): the grey level of no motion in u and v; of several equally frequent ones the lowest."""
    channels = picture[..., :2].reshape(-1, 2)
    if how == "median":
        return np.median(channels, axis=0).astype(np.float32)
    return np.array([np.bincount(channel.astype(int)).argmax() for channel in channels.T], np.float32)


def _scale(picture: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
    """(2,): the grey levels that make one unit of u and of v."""
    if how == "range":
        return np.full(2, GREY_LEVELS, np.float32)
    spread = picture[..., :2].reshape(-1, 2).astype(np.float64).std(axis=0)
    return np.where(spread > 0, spread, 1).astype(np.float32)  # one grey level alone is its own zero: nothing moves


def _failed(code: FailureCode, name: str, expectation: str, got: str, step: str) -> ClipError:
    return ClipError(code, f"{name}: {expectation}; got {got}. {step}, then import again with --retry-failed.", name)


def _summary(source: _Source, zero: Zero, scale: Scale, plan: Plan, out: Path, index: Index) -> Imported:
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
