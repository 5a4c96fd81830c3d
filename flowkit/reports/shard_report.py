"""The report of a shard folder: one HTML file that shows what was computed, how well, and with which settings.

It needs no network, no script and no other file, so that it can be mailed or put beside the shards in an archive.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import FailureCode, ShardCorrupt
from flowkit.execution.progress import Reporter
from flowkit.motion.head_removed import RemovedMotion, removed_motion
from flowkit.reports.html import Html, document, element, facts, histogram, joined, table
from flowkit.reports.pictures import RGB, clip_panels, colour_wheel, data_uri, head_panels, mmcof_wheel, png_bytes
from flowkit.storage import durable_files
from flowkit.storage.folder import ShardFolder
from flowkit.storage.quality import (
    EXPLAINED_LIMIT_PX,
    RESIDUAL_LIMIT_PX,
    SEPARATION_LIMIT_PX,
    TURN_LIMIT_DEG,
    Flag,
    names,
    residual_limit_px,
)
from flowkit.storage.schema import FACE
from flowkit.storage.shard_reader import Shard

FILE = "report.html"
MAX_ROWS = 200
"""Rows of the longest tables; the rest is only counted."""
PHASES = ("rise", "fall")
SCALE_SHARE = 0.999
"""Share of the pictured face pixels whose motion lies within the colour scale."""
RESIDUAL_EDGES_PX = tuple(number / 10 for number in range(21))
WHEEL_SIDE = 168

FAILURES = {
    FailureCode.FRAME_MISSING: "No file, or no decodable frame, has that number.",
    FailureCode.FRAME_AMBIGUOUS: "Two files of the folder have that number.",
    FailureCode.PATH_REFUSED: "A link leads out of the root.",
    FailureCode.IMAGE_UNREADABLE: "Not an image, empty, or of a format that is not accepted.",
    FailureCode.IMAGE_TRUNCATED: "The image file ends too early.",
    FailureCode.IMAGE_TOO_LARGE: "The image has more pixels than any camera gives.",
    FailureCode.IMAGE_TOO_SMALL: "The image is too small for a flow that means something.",
    FailureCode.IMAGE_DEPTH: "The bit depth cannot be told; declare it (frames.bit_depth).",
    FailureCode.VIDEO_UNREADABLE: "The video cannot be opened or decoded.",
    FailureCode.VIDEO_FORMAT_REFUSED: "The video's container is outside the allowed list.",
    FailureCode.ANNOTATION_RANGE: "Apex or offset lies outside its range.",
    FailureCode.APEX_MISSING: "The apex is empty (see frames.missing_apex).",
    FailureCode.OFFSET_MISSING: "The offset is empty (see frames.missing_offset).",
    FailureCode.PHASE_INVALID: "A phase has no length, under frames.strict_phases.",
    FailureCode.SIZE_MISMATCH: "The three frames differ in size.",
    FailureCode.FACE_NOT_FOUND: "No face was found in the onset.",
    FailureCode.LANDMARKS_MISSING: "The landmark file says nothing of this clip.",
    FailureCode.FACE_LOST: "No face was found in the apex or offset: a cut, or something in front of the face.",
    FailureCode.REGISTRATION_FAILED: "Apex or offset does not match the onset's face: the head moved too far.",
    FailureCode.FLOW_NONFINITE: "The flow holds values that are no numbers.",
    FailureCode.FLOW_RANGE: "A displacement is larger than the face itself.",
    FailureCode.SOURCE_CHANGED: "The file changed while it was read.",
    FailureCode.SOURCE_CHECKSUM: "The content is not what the manifest or the shard says.",
    FailureCode.WORKER_CRASH: "The worker process died on this clip twice.",
    FailureCode.TIMEOUT: "The worker process hung on this clip twice (see flowkit extract --timeout).",
    FailureCode.GPU_OOM: "The clip alone does not fit into the free memory of the GPU.",
    FailureCode.INTERNAL: "A fault of flowkit: please report it.",
}
NOTES = {
    Flag.ZERO_MOTION: "nothing at all moves in a valid phase: the same frame twice, or a frozen video",
    Flag.BLANK: "a frame has no texture inside the face",
    Flag.RESIDUAL: f"residual above {EXPLAINED_LIMIT_PX:g} px ({RESIDUAL_LIMIT_PX:g} px unless align.stabilise is head): head "
    "motion was left, or something moved that is neither head nor expression",
    Flag.MANY_FACES: "several faces in the onset; the largest was taken",
    Flag.ROTATED: "the image or video asked for a rotation, which was applied",
    Flag.NEAREST: "a missing frame was replaced by its nearest neighbour",
    Flag.TURNED: f"the head turned by more than {TURN_LIMIT_DEG:g} degrees out of the image plane",
    Flag.LANDMARK_START: "registration of a frame started from that frame's own landmarks: the head moved far",
    Flag.UNCERTAIN: f"head and expression could hardly be told apart (separation above {SEPARATION_LIMIT_PX:g} px)",
    Flag.DARK: "too little contrast beside the noise: the flow may be too short",
}
IMPORTED = (
    "This flow was imported (see import.* above), not computed by flowkit: what follows on TV-L1 and alignment does not hold for "
    "it, and its MM-COF is approximate."
)
SPREAD_HEADER = ("", "", "median", "95th percentile", "largest")
TOLD_APART = (
    "The separation is the uncertainty of the head's motion in the face (standard deviation): small where head and expression "
    f"could be told apart. Above {SEPARATION_LIMIT_PX:g} px a clip carries the note UNCERTAIN. Where the head turned by more than "
    f"{TURN_LIMIT_DEG:g} degrees, it carries the note TURNED."
)
UNEXPLAINED = (
    "Median length, inside the face, of what is neither the head's motion nor an expression's: noise, turns that the depth of the "
    "face does not explain, and what moves in its own way, such as a hand."
)
STILL_PART = (
    "Median length of the stored flow where expressions move the face least: noise, head motion that is left, and broad "
    "expressions, which move that part too (a smile lifts the cheeks)."
)
HEAD_LEGEND = (
    "Head in rise and fall: the motion of the head that was taken out, undone in the pictures and subtracted from the flow "
    "together. The lengths beside the pictures are means over the face. Full colour, at the rim: {:g} px."
)
CAPTIONS = {"mmcof": "MM-COF"}
"""What a panel is called where its name is not what a reader expects."""


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where the report lies, and what was damaged: the message of each shard or record that could not be read."""

    path: Path
    corrupt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Measures:
    """Small columns of the shards that could be read, one row per clip; NaN where older shards have no such column."""

    phase_valid: npt.NDArray[np.bool_]
    residual: npt.NDArray[np.float64]
    registration: npt.NDArray[np.float64]
    turn: npt.NDArray[np.float64]
    removed_turn: npt.NDArray[np.float64]
    separation: npt.NDArray[np.float64]


_MEASURED: Final[Mapping[str, tuple[int, ...]]] = {
    "phase_valid": (2,),
    "residual": (2,),
    "registration": (2, 2, 3),
    "turn": (2, 2),
    "removed_turn": (2, 2),
    "separation": (2,),
}
"""Shape of each for one clip."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """All that the page shows."""

    folder: ShardFolder
    clips: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    measures: _Measures
    pictured: list[tuple[dict[str, Any], dict[str, Any]]]
    corrupt: tuple[str, ...]


def write_report(out: str | Path, *, clips: int = 12) -> ReportResult:
    """Write report.html into a folder of shards, in place of an older one.

    Parameters
    ----------
    out : str or Path
        The `--out` of an extraction.
    clips : int
        Clips to be pictured, at most; spread over data sets, labels and subjects, always the same ones.

    Returns
    -------
    ReportResult
        A damaged shard is named here and, in red, on the page; it does not keep the rest from being shown.

    Raises
    ------
    ConfigError
        The folder holds no run.
    ShardCorrupt
        run.json is damaged.
    DiskFull
    """
    contents = _read(ShardFolder.open(out), clips)
    name = contents.folder.path.resolve().name
    page = document(f"flowkit report: {name}", *_sections(contents, name))
    path = contents.folder.path / FILE
    durable_files.replace_file(path, page)
    return ReportResult(path, contents.corrupt)


def refresh_report(out: Path, computed: int, reporter: Reporter) -> None:
    """Write report.html unless it is there and nothing was computed since; tell where it is, and which shards are damaged.

    Parameters
    ----------
    out : Path
        A folder of shards.
    computed : int
        Clips that the run has just computed.
    reporter : Reporter

    Raises
    ------
    ConfigError, ShardCorrupt, DiskFull
        As `write_report`.
    """
    if not computed and (out / FILE).exists():
        return
    result = write_report(out)
    for problem in result.corrupt:
        reporter.note(f"Warning: {problem}")
    reporter.note(f"Report: {result.path}")


# --- reading


def _read(folder: ShardFolder, wanted: int) -> _Contents:
    corrupt = [
        f"{path}: commit record and its shard must be whole; got something else. Run extract again: it redoes the task."
        for path in folder.invalid
    ]
    sound: dict[int, Shard] = {}
    measured = []
    for shard in folder.shards():
        try:
            with shard:
                measured.append([_measured(shard, name) for name in _MEASURED])
            sound[shard.record.task] = shard
        except ShardCorrupt as error:
            corrupt.append(str(error))
    clips = folder.clips()
    chosen = _spread([clip for clip in clips if clip["task"] in sound], wanted)
    pictured = list(_samples(chosen, sound, corrupt))
    return _Contents(folder, clips, folder.failures(), _measures(measured), pictured, tuple(corrupt))


def _measured(shard: Shard, name: str) -> npt.NDArray[Any]:
    try:
        return shard.column(name)
    except KeyError:  # of an older schema
        return np.full((len(shard), *_MEASURED[name]), math.nan)


def _measures(columns: Sequence[Sequence[npt.NDArray[Any]]]) -> _Measures:
    empty = [np.empty((0, *shape), bool if name == "phase_valid" else float) for name, shape in _MEASURED.items()]
    return _Measures(*(np.concatenate(parts) for parts in zip(empty, *columns, strict=True)))


def _spread(clips: Iterable[dict[str, Any]], wanted: int) -> list[dict[str, Any]]:
    """At most `wanted` clips: data sets and labels take turns, each with a clip of the subject that was shown least."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: str(clip["clip_id"])):
        groups[clip["dataset"], clip["label"]].append(clip)
    shown: Counter[tuple[str, str]] = Counter()
    chosen: list[dict[str, Any]] = []
    while len(chosen) < wanted and any(groups.values()):
        for _, group in sorted(groups.items()):
            if group and len(chosen) < wanted:
                clip = min(group, key=lambda clip: shown[clip["dataset"], clip["subject"]])
                group.remove(clip)
                shown[clip["dataset"], clip["subject"]] += 1
                chosen.append(clip)
    return chosen


def _samples(
    chosen: Iterable[dict[str, Any]], shards: Mapping[int, Shard], corrupt: list[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for clip in chosen:
        try:
            with shards[clip["task"]] as shard:
                yield clip, shard.sample(clip["position"])
        except ShardCorrupt as error:
            corrupt.append(str(error))


# --- the page


def _sections(contents: _Contents, name: str) -> Iterator[Html]:
    yield element("h1", "flowkit report ", element("small", name))
    yield element("p", _period(contents.folder), class_="soft")
    if contents.corrupt:
        yield _alarm(contents.corrupt)
    yield _headline(contents)
    yield from _clips(contents)
    yield from _failures(contents)
    yield from _quality(contents)
    yield from _pictures(contents)
    yield from _settings(contents.folder.run)
    if "import" in contents.folder.run["settings"]:
        yield element("p", IMPORTED, class_="note")
    yield from _method()


def _period(folder: ShardFolder) -> str:
    if not folder.records:
        return "Nothing was committed yet."
    began = min(record.content["began"] for record in folder.records)
    ended = max(record.content["ended"] for record in folder.records)
    hosts = sorted({record.content["host"] for record in folder.records})
    return f"Computed from {_utc(began)} to {_utc(ended)} on {', '.join(hosts)}."


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _alarm(corrupt: Sequence[str]) -> Html:
    title = f"{len(corrupt)} damaged: what follows leaves it out where it could not be read"
    return element(
        "section",
        element("h2", title),
        element("ul", *(element("li", message) for message in corrupt)),
        class_="alarm",
        role="alert",
    )


def _headline(contents: _Contents) -> Html:
    clips, failures = contents.clips, contents.failures
    files = [record.content["file"] for record in contents.folder.records if record.content["file"]]
    invalid = sum(not all(clip["phase_valid"]) for clip in clips)
    noted = sum(clip["qc"] != 0 for clip in clips)
    cards = [
        ("clip ok", "clips ok", len(clips), ""),
        ("clip failed", "clips failed", len(failures), "alarming"),
        ("data set", "data sets", len({clip["dataset"] for clip in clips}), ""),
        ("subject", "subjects", len({(clip["dataset"], clip["subject"]) for clip in clips}), ""),
        ("label", "labels", len({clip["label"] for clip in clips}), ""),
        ("with an invalid phase", "with an invalid phase", invalid, "noted"),
        ("with a quality note", "with a quality note", noted, "noted"),
        ("shard", "shards", len(files), ""),
        ("in shards", "in shards", _size(sum(file["bytes"] for file in files)), ""),
    ]
    if contents.corrupt:
        cards.append(("damaged", "damaged", len(contents.corrupt), "alarming"))
    return element("div", *(_card(*card) for card in cards), class_="cards")


def _card(one: str, many: str, value: int | str, look: str) -> Html:
    name = element("span", one if value == 1 else many)
    return element("div", element("b", value), name, class_=f"card {look}" if look and value else "card")


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _clips(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Clips")
    clips = contents.clips
    if not clips:
        yield element("p", "None.")
        return
    datasets = sorted({clip["dataset"] for clip in clips})
    counts = Counter((clip["label"], clip["dataset"]) for clip in clips)
    rows: list[list[object]] = []
    for label in sorted({clip["label"] for clip in clips}):
        row = [counts[label, dataset] for dataset in datasets]
        rows.append([label or "(empty)", *row, sum(row)])
    totals = [sum(counts[row] for row in counts if row[1] == dataset) for dataset in datasets]
    rows.append(["all", *totals, sum(totals)])
    yield element(
        "div",
        element("div", element("h3", "By label"), table(["label", *datasets, "all"], rows)),
        element("div", element("h3", "By subject"), _subjects(clips)),
        class_="columns",
    )


def _subjects(clips: Sequence[Mapping[str, Any]]) -> Html:
    labels: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for clip in clips:
        labels[clip["dataset"], clip["subject"]][clip["label"] or "(empty)"] += 1
    rows = [
        (dataset, subject, counts.total(), ", ".join(f"{label} {n}" for label, n in sorted(counts.items())))
        for (dataset, subject), counts in sorted(labels.items())
    ]
    return _limited(("data set", "subject", "clips", "labels"), rows)


def _limited(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    shown = table(header, rows[:MAX_ROWS])
    if len(rows) <= MAX_ROWS:
        return shown
    return joined([shown, element("p", f"... and {len(rows) - MAX_ROWS} more.", class_="soft")])


def _failures(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Failures")
    failures = contents.failures
    if not failures:
        yield element("p", "None.")
        return
    counts = Counter(failure["code"] for failure in failures)
    known = {str(code): meaning for code, meaning in FAILURES.items()}
    yield table(
        ("code", "clips", "what it means"),
        [(element("code", code), n, known.get(code, "")) for code, n in counts.most_common()],
    )
    yield element(
        "p",
        "Correct the rows or files and run the same command again: a corrected row is tried again by itself, others with ",
        element("code", "--retry-failed"),
        ". All of them stand in ",
        element("a", "failures.csv", href="failures.csv"),
        ".",
    )
    rows = [(f["clip_id"], element("code", f["code"]), f["message"], f["attempt"]) for f in failures]
    yield _limited(("clip", "code", "message", "attempts"), rows)


def _quality(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Quality")
    yield from _notes(contents.clips)
    measures = contents.measures
    if not len(measures.residual):
        return
    stabilise = contents.folder.run["settings"]["align"]["stabilise"]
    limit = residual_limit_px(stabilise)
    yield element("h3", "Motion that is left to explain (residual)")
    yield element(
        "p",
        UNEXPLAINED if stabilise == "head" else STILL_PART,
        f" A large residual is a reason to look. Above {limit:g} px (dashed line) a clip carries the note RESIDUAL. Invalid phases "
        "are left out.",
    )
    yield element("div", *(_residuals(measures, number, limit) for number in range(2)), class_="columns")
    yield element("h3", "Head motion that was taken out of the images (drift)")
    if stabilise == "none":
        yield element("p", "Not estimated: align.stabilise is none.")
    else:
        yield _drifts(measures, contents.folder.run["settings"]["align"]["size"])
    if np.isfinite(measures.separation).any():
        yield element("h3", "Turns of the head, and how well they could be told from an expression")
        yield element("p", TOLD_APART)
        yield _turns(measures)


def _notes(clips: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    invalid = [sum(not clip["phase_valid"][phase] for clip in clips) for phase in range(2)]
    rows: list[tuple[object, ...]] = [
        (
            f"invalid {name}",
            count,
            f"the {name} has no length, or its frame is missing; its flow is zero and does not count",
        )
        for name, count in zip(PHASES, invalid, strict=True)
        if count
    ]
    rows += [
        (element("code", flag.name), count, meaning)
        for flag, meaning in NOTES.items()
        if (count := sum(bool(clip["qc"] & flag) for clip in clips))
    ]
    if rows:
        yield table(("note", "clips", "what it means"), rows)
    else:
        yield element("p", "No clip has a note.")


def _residuals(measures: _Measures, phase: int, limit: float) -> Html:
    values = measures.residual[measures.phase_valid[:, phase], phase]
    values = values[np.isfinite(values)]
    name = PHASES[phase]
    if not len(values):
        return element("div", element("p", f"{name}: no valid phase whose residual is known."))
    above = int((values > limit).sum())
    text = (
        f"{name}: median {np.median(values):.2f} px, 95th percentile {np.quantile(values, 0.95):.2f} px, largest "
        f"{values.max():.2f} px; above {limit:g} px: {above} of {len(values)}"
    )
    picture = histogram(values, RESIDUAL_EDGES_PX, limit, "px", f"Histogram of the residual of the {name}")
    return element("figure", picture, element("figcaption", text), style="margin:.5rem 0 1rem")


def _drifts(measures: _Measures, size: int) -> Html:
    """How far the registration moves the middle of the crop, and how far it turns it, of each frame but the onset."""
    centre = (size - 1) / 2
    rows: list[tuple[str, ...]] = []
    for frame, name in enumerate(("apex", "offset")):
        there = measures.phase_valid[:, frame]
        moved = measures.registration[there, frame]
        shift = np.hypot(*(moved @ [centre, centre, 1] - centre).T)
        turn = np.abs(np.degrees(np.arctan2(moved[:, 1, 0], moved[:, 0, 0])))
        for what, values, unit in (("shift", shift, "px"), ("turn", turn, "deg")):
            rows += _spread_row(f"onset to {name}", what, values, unit)
    return table(SPREAD_HEADER, rows)


def _spread_row(where: str, what: str, values: npt.NDArray[Any], unit: str) -> list[tuple[str, ...]]:
    """Return the row of a table of `SPREAD_HEADER`, none where there are no values."""
    if not len(values):
        return []
    figures = (np.median(values), np.quantile(values, 0.95), values.max())
    return [(where, what, *(f"{value:.2f} {unit}" for value in figures))]


def _turns(measures: _Measures) -> Html:
    """How far the head turned out of the image plane at apex and offset, and the separation of rise and fall."""
    turns = np.abs(measures.turn + measures.removed_turn.cumsum(axis=1))
    rows: list[tuple[str, ...]] = []
    for frame, name in enumerate(("apex", "offset")):
        there = measures.phase_valid[:, frame] & np.isfinite(measures.separation[:, frame])
        for axis, word in enumerate(("yaw", "pitch")):
            rows += _spread_row(f"onset to {name}", word, turns[there, frame, axis], "deg")
        rows += _spread_row(PHASES[frame], "separation", measures.separation[there, frame], "px")
    return table(SPREAD_HEADER, rows)


def _pictures(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Flow pictures")
    if not contents.pictured:
        yield element("p", "None.")
        return
    samples = [sample for _, sample in contents.pictured]
    removed = [removed_motion(sample) for sample in samples]
    scale_px = _scale_px(zip([sample["flow"] for sample in samples], samples, strict=True))
    head_scale_px = _scale_px(
        (motion.undone + motion.subtracted, sample) for motion, sample in zip(removed, samples, strict=True) if motion
    )
    shown = f"{len(contents.pictured)} of {len(contents.clips)} clips, spread over data sets, labels and subjects."
    with_faces = "faces" in samples[0]
    yield element("p", shown, " The grey line runs round the face.")
    if with_faces:
        yield element(
            "p", "This page shows faces, because the shards keep them: treat it as personal data.", class_="note"
        )
    yield _legend(scale_px, head_scale_px if any(removed) else 0, contents.folder.run["settings"].get("units", "px"))
    figures = (
        _figure(clip, sample, scale_px, _head(motion, sample, head_scale_px))
        for (clip, sample), motion in zip(contents.pictured, removed, strict=True)
    )
    yield element("div", *figures, class_="clips faces" if with_faces else "clips")


def _scale_px(motions: Iterable[tuple[npt.NDArray[np.floating[Any]], Mapping[str, Any]]]) -> float:
    """One colour scale for all motions (2, 2, N, N) of clips, so that they can be compared: a round number that fits nearly all."""
    lengths = [
        np.hypot(*phase.astype(np.float32))[(sample["regions"] & FACE) > 0]
        for motion, sample in motions
        for phase in motion
    ]
    largest = max(0.05, float(np.quantile(np.concatenate(lengths), SCALE_SHARE)) if lengths else 0)
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if largest <= step * power)


def _legend(scale_px: float, head_scale_px: float, units: str) -> Html:
    texts = [
        (
            colour_wheel(WHEEL_SIDE),
            f"Rise and fall: the colour points where the face moves, from the middle of the wheel outwards. White: no motion; "
            f"full colour, at the rim: {scale_px:g} {units}; darker: more. One scale for all clips.",
        ),
        (
            mmcof_wheel(WHEEL_SIDE),
            "MM-COF: the same for the combined direction. Black: no motion; brightest, at the rim: the largest modulated "
            "magnitude, 1. Scaled for each clip on its own.",
        ),
    ]
    if head_scale_px:
        texts.append((colour_wheel(WHEEL_SIDE), HEAD_LEGEND.format(head_scale_px)))
    return element(
        "div",
        *(element("figure", _image(wheel, "colour wheel"), element("figcaption", text)) for wheel, text in texts),
        class_="legend",
    )


def _image(picture: RGB, alt: str) -> Html:
    return element("img", src=data_uri(png_bytes(picture)), alt=alt)


def _head(removed: RemovedMotion | None, sample: Mapping[str, Any], scale_px: float) -> Html:
    """Pictures and figures of the head's motion that was taken out of a clip; nothing where none was told apart."""
    if removed is None:
        return Html()
    inside = (sample["regions"] & FACE) > 0
    mean = {
        what: [np.hypot(*phase)[inside].mean() for phase in motion]
        for what, motion in (("undone", removed.undone), ("subtracted", removed.subtracted))
    }
    panels = head_panels(removed, sample["regions"], scale_px)
    valid = [number for number in range(2) if sample["phase_valid"][number]]
    return element(
        "div",
        *(
            element(
                "figure",
                _image(panels[number], f"head in {PHASES[number]}"),
                element("figcaption", f"head in {PHASES[number]}"),
            )
            for number in valid
        ),
        element(
            "div",
            *(
                element(
                    "p",
                    f"{PHASES[number]}: {mean['undone'][number]:.2f} px undone, {mean['subtracted'][number]:.2f} px subtracted; "
                    f"separation {sample['separation'][number]:.2f} px",
                )
                for number in valid
            ),
        ),
        class_="panels head",
    )


def _figure(clip: Mapping[str, Any], sample: Mapping[str, Any], scale_px: float, head: Html) -> Html:
    panels = clip_panels(sample, scale_px)
    offset = "none" if sample["offset"] < 0 else sample["offset"]
    frames = "frames unknown" if sample["onset"] < 0 else f"frames {sample['onset']}, {sample['apex']}, {offset}"
    invalid = [name for name, valid in zip(PHASES, sample["phase_valid"], strict=True) if not valid]
    noted = [f"invalid {name}" for name in invalid] + names(int(sample["qc"]))
    captions = {**CAPTIONS, **{name: f"{name} (invalid)" for name in invalid}}
    return element(
        "article",
        element("h3", clip["clip_id"]),
        element(
            "p",
            f"{clip['label'] or '(empty)'} · {clip['dataset']}/{clip['subject']} · {frames}",
            *([" · ", element("span", ", ".join(noted), class_="note")] if noted else []),
        ),
        element(
            "div",
            *(
                element("figure", _image(panel, name), element("figcaption", captions.get(name, name)))
                for name, panel in panels.items()
            ),
            class_="panels",
        ),
        head,
        class_="clip",
    )


def _settings(run: Mapping[str, Any]) -> Iterator[Html]:
    yield element("h2", "Settings")
    yield element("p", "Fingerprint ", element("code", run["fingerprint"]), ": equal where results may be mixed.")
    settings = dict(_dotted(run["settings"]))
    tables = sorted({name.partition(".")[0] for name in settings if "." in name})
    parts = [facts({name: value for name, value in settings.items() if "." not in name})]
    parts += [
        facts({n: value for n, value in settings.items() if n.startswith(f"{table_name}.")}) for table_name in tables
    ]
    yield element("div", *parts, class_="facts-columns")
    yield element("h2", "Versions and machine")
    yield element(
        "div",
        facts(run["versions"]),
        facts(
            {
                "backend": run["backend"],
                **dict(_dotted(run.get("device", {}), "device.")),
                **run["machine"],
                "schema": run["shard_schema"],
            }
        ),
        class_="facts-columns",
    )


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "(none)" if value == "" else value


def _method() -> Iterator[Html]:
    yield element("h2", "Method, limits, how to cite")
    yield element(
        "p",
        "The method is that of arXiv 2510.07810 (FMANet), of which only the abstract and third-party summaries could be read, "
        "not the body. So this is an implementation of the method, not a reproduction of that paper's numbers.",
    )
    yield table(
        ("source", "what rests on it"),
        [
            (
                "paper",
                "flow of both phases, onset to apex and apex to offset; modulation of its magnitude",
            ),
            (
                "summary",
                "magnitudes scaled from 0 to 1 for each clip and phase; their weighted sum; a threshold-based modulation",
            ),
            (
                "ours",
                "the form of the modulation and every mmcof.* value; the face as the region that is measured; the floor below "
                "which a phase counts as still; turning the fall round before it is added; TV-L1's default schedule of iterations; "
                "alignment and stabilisation",
            ),
        ],
    )
    yield element(
        "p",
        "Flow is TV-L1 (Zach, Pock, Bischof 2007; Sánchez Pérez, Meinhardt-Llopis, Facciolo, IPOL 2013), in pixels of the crop. "
        "The rise lies on the onset's grid, the fall on the apex's: MM-COF adds rise and fall unregistered, at most a pixel apart.",
    )
    yield element(
        "p",
        "Cite flowkit (CITATION.cff), the paper above, TV-L1, and each data set as its licence asks. Flow colours: Baker et al., "
        "IJCV 2011.",
    )
