"""What each command of `flowkit` prints for people; `--json` prints the same for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import show_mapping, show_rows, verbosity
from flowkit.listing import listed, word_counts

MAX_LISTED = 20
"""Notes printed for people before the rest is only counted."""
MAX_SPANS = 5
"""Stretches of a recording likewise."""


def show_events(events: Sequence[Any]) -> None:
    """Print what was done, on stderr: rows that are left out first; with --quiet, these only. Estimates are one line."""
    from flowkit.datasets.base import MAX_NAMED

    order = ("left out", "refused", "applied", "note")
    offered = [event.clip for event in events if event.kind == "offered"]
    events = [event for event in events if event.kind in order[:2] or verbosity() != "quiet"]
    texts = [
        str(event) for event in sorted(events, key=lambda e: (*order, "offered").index(e.kind)) if event.kind in order
    ]
    for text in texts[:MAX_LISTED]:
        click.echo(text[0].upper() + text[1:], err=True)
    if len(texts) > MAX_LISTED:
        click.echo(f"... and {len(texts) - MAX_LISTED} more; --json has them all.", err=True)
    if offered and verbosity() != "quiet":
        names = listed(dict.fromkeys(offered), MAX_NAMED)
        click.echo(
            f"Offered: {len(offered)} estimates in place of annotated frames, not taken: {names}. docs/datasets lists them; "
            "--estimates takes them.",
            err=True,
        )


def show_reading(reading: Any, out: Path, preview: Any, commands: Sequence[str]) -> None:
    """The manifest's path, counts, and what comes next."""
    click.echo(out)
    places = ", ".join(str(reading.root) if place == "." else place for place in reading.layouts) or "-"
    near = f", {len(reading.nearest)} with the nearest frame for one that is missing" if reading.nearest else ""
    click.echo(
        f"{reading.title}: {len(reading.clips)} clips of {len(reading.counts('subject'))} subjects, {reading.left_out} left out, "
        f"{reading.without_apex} without an apex{near}; frames in {places}"
    )
    for reason, number in reading.reasons.items():
        click.echo(f"  left out: {number} x {reason}")
    rows = [
        (dataset, label, str(count))
        for dataset in sorted({clip.dataset for clip in reading.clips})
        for label, count in word_counts(clip.label for clip in reading.clips if clip.dataset == dataset).items()
    ]
    show_rows("", ("data set", "label", "clips"), rows)
    if preview is not None:
        rows = [(name, cls, str(count)) for name, counts in preview.counts.items() for cls, count in counts.items()]
        rows += [
            (name, f"({what}: {label})", str(count))
            for what, found in (("left out", preview.left_out), ("not known", preview.unknown))
            for name, counts in found.items()
            for label, count in counts.items()
        ]
        show_rows("", ("data set", "class", "clips"), rows)
    click.echo("\n".join(["Next:", *(f"  {command}" for command in commands)]))


def show_preview(found: Mapping[str, Any], as_json: bool) -> None:
    """What an extraction would do."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        show_mapping("Would do (nothing was written)", found)


def show_demo(done: Any) -> None:
    """What a demo holds, and the commands that come next."""
    from flowkit.demo import SHOWN

    show_mapping("", {name: done.found[name] for name in SHOWN})
    click.echo(f"\nReport, for a browser:\n  {done.report}")
    click.echo("\nNext:")
    for step in done.steps:
        click.echo(f"  {step.about}:")
        for command in step.commands:
            click.echo(f"    {command}")


def show_summary(found: Mapping[str, Any]) -> None:
    """What an extraction did, and what bounded it."""
    of = f"Share {found['shard']}, " if found["shard"] else ""
    click.echo(
        f"{of}{found['planned']} clips: {found['ok']} ok, {found['failed']} failed, {found['not_started']} not done. "
        f"Computed now: {found['computed']} in {found['seconds']:.1f} s ({_rate(found['clips_per_s'])} clips/s)."
    )
    if found["compile_seconds"]:
        click.echo(f"Before that, kernels were compiled, once per machine: {found['compile_seconds']:.1f} s.")
    clips = found["stage_clips"]
    if any(clips.values()):
        per_clip = (f"{name} {1000 * s / clips[name]:.0f}" for name, s in found["stage_seconds"].items() if clips[name])
        click.echo(f"Milliseconds a clip, added up over processes: {', '.join(per_clip)}.")
    if found["bound_by"]:
        click.echo(_bottleneck(found))
    if found["phases_invalid"]:
        click.echo(f"Clips with an invalid phase: {found['phases_invalid']} (see phase_valid).")
    for code, count in found["failure_codes"].items():
        click.echo(f"  {count} x {code}")
    for path in (Path(found["out"]) / name for name in ("shards", "failures.csv", "report.html")):
        if path.exists():
            click.echo(str(path))


def show_profile(found: Mapping[str, Any]) -> None:
    """Where the time of a run went."""
    workers, gatherer = found["workers"], found["gatherer"]
    for title, rows in (("\nPer clip", found["stages"]), ("\nFirst clip of each worker", found["first_clips"])):
        cells = [(r["stage"], r["by"], str(r["clips"]), f"{r['wall_ms']:.2f}", f"{r['cpu_ms']:.2f}") for r in rows]
        if cells:
            show_rows(title, ("stage", "done by", "clips", "wall ms", "CPU ms"), cells)
    click.echo(
        f"Workers: {workers['count']}, busy {workers['busy']:.0%} of {found['seconds']:.1f} s. They waited "
        f"{workers['waited_for_clips_s']:.1f} s for clips, took {workers['handed_over_s']:.1f} s to hand over results, and "
        f"{workers['start_cpu_s']:.1f} s of CPU time to start."
    )
    click.echo(
        f"Gatherer: {gatherer['processes']} process{'es' if gatherer['processes'] > 1 else ''}, waited "
        f"{gatherer['waited_for_clips_s']:.1f} s for clips and {gatherer['waited_for_commits_s']:.1f} s for commits."
    )
    click.echo(f"Compiling, before all that: {found['compile_seconds']:.1f} s.")


def _bottleneck(found: Mapping[str, Any]) -> str:
    """Which stage bounds the run, and what the others could do."""
    from flowkit.extraction.summary import WORKERS

    bound, rates = found["bound_by"], found["stage_clips_per_s"]
    staff = {WORKERS: f" with {found['workers']} worker" + "s" * (found["workers"] > 1)}
    others = [f"{name} {_rate(rate)}{staff.get(name, '')}" for name, rate in rates.items() if name != bound]
    return (
        "; ".join([f"Bound by {bound}: {_rate(rates[bound])} clips/s{staff.get(bound, '')}", ", ".join(others)]) + "."
    )


def _rate(value: float) -> str:
    """Two digits at least, and all before the point: 153, 3.0, 0.015."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"


def show_check(report: Any) -> None:
    """Counts, classes, what is expected, problems and notes, each a table; long ones are cut and say so."""
    counts = ("clips", "subjects", "datasets", "labels", "sizes", "rates")
    found = {name: getattr(report, name) for name in counts}
    kinds = Counter(str(note.kind) for note in report.notes)
    show_mapping("flowkit check", {**found, "problems": len(report.problems), "notes": dict(kinds)})
    show_census(report.census)
    if report.problems:
        rows = [(str(p.line), p.clip_id, str(p.code), p.message) for p in report.problems]
        show_rows(f"\n{len(rows)} problems", ("line", "clip", "code", "what"), rows)
    if report.notes:
        rows = [(str(n.line), n.clip_id, str(n.kind), n.message) for n in report.notes[:MAX_LISTED]]
        show_rows(f"\n{len(report.notes)} notes", ("line", "clip", "kind", "what"), rows)
    if len(report.notes) > MAX_LISTED:
        click.echo(f"... and {len(report.notes) - MAX_LISTED} more notes; --json has them all.")


def show_census(census: Any) -> None:
    """Clips of each class, and of known data sets beside what they should hold."""
    from flowkit.checking.expected_counts import CHECKED

    rows = [
        (dataset, name, n)
        for dataset, counts in census.classes.items()
        if any(counts.values())
        for name, n in counts.items()
    ]
    for what, counts_of in (("left out", census.left_out), ("not known", census.unknown)):
        rows += [(dataset, f"{what}: {name}", n) for dataset, counts in counts_of.items() for name, n in counts.items()]
    rows += [(dataset, "no label", n) for dataset, n in census.unlabelled.items()]
    show_rows(
        f"\nClasses ({census.grouping})",
        ("data set", "class", "clips"),
        [tuple(map(str, row)) for row in rows[: 2 * MAX_LISTED]],
    )
    if len(rows) > 2 * MAX_LISTED:
        click.echo(f"... and {len(rows) - 2 * MAX_LISTED} more; --json has them all.")
    for text in census.why_unknown[:MAX_LISTED]:
        click.echo(f"Not known: {text}")
    for comparison in census.expected:
        edition = comparison.edition
        click.echo(f"\n{comparison.dataset} beside {edition.name}: {edition.about} ({CHECKED[edition.checked]})")
        lines = [("clips", comparison.clips, edition.clips), ("subjects", comparison.subjects, edition.subjects)]
        lines += [(name, found, wanted) for name, (found, wanted) in comparison.counts.items()]
        cells = [(name, str(found), "?" if wanted is None else str(wanted)) for name, found, wanted in lines]
        show_rows("", ("", "found", "expected"), cells)
        if comparison.further:
            click.echo(f"Beside these: {comparison.further}.")
        click.echo("\n".join(comparison.explanations) or "As expected.")


def show_completion(done: Any) -> None:
    """How many apexes were found, and which clips failed."""
    kept = done.clips - len(done.spotted) - len(done.failed)
    click.echo(f"{done.clips} clips: {kept} had an apex, {len(done.spotted)} spotted, {len(done.failed)} failed.")
    if done.spotted:
        ranked = sorted((found.confidence, clip_id) for clip_id, found in done.spotted.items())
        middle = ranked[len(ranked) // 2][0]
        click.echo(f"Confidence: median {middle:.2f}, lowest {ranked[0][0]:.2f} ({ranked[0][1]}).")
    if done.failed:
        rows = [(str(clip.line), clip.clip_id, str(error.code), error.message) for clip, error in done.failed]
        show_rows("", ("line", "clip", "code", "what"), rows)
    click.echo(done.out)


def show_searched(searched: Sequence[Any], files: Sequence[Path], commands: Sequence[str]) -> None:
    """What was found in each recording, and what comes next."""
    rows = []
    for one in searched:
        kinds = Counter(interval.kind for interval in one.intervals)
        unused = f"{100 * (1 - one.used / one.frames):.1f} %" if one.frames else "-"
        counts = (str(kinds[kind]) for kind in ("micro", "macro", "blink"))
        rows.append((one.path, f"{one.seconds:.1f}", *counts, unused, "; ".join(code for code, _ in one.problems)))
    show_rows("", ("recording", "s", "micro", "macro", "blinks", "frames not used", "problem"), rows)
    for one in searched:
        for note in one.notes:
            click.echo(f"{one.path}: {note}.", err=True)
        for span in one.unused[:MAX_SPANS]:
            click.echo(f"{one.path}: {_clock(span.first_s)} to {_clock(span.last_s)}: {span.why}.", err=True)
        if len(one.unused) > MAX_SPANS:
            click.echo(f"{one.path}: ... and {len(one.unused) - MAX_SPANS} more stretches; --json has them.", err=True)
        if one.cuts:
            times = listed([_clock(seconds) for _, seconds in one.cuts], MAX_SPANS)
            click.echo(f"{one.path}: cuts at {times}.", err=True)
    click.echo("\n".join(map(str, files)))
    if commands:
        click.echo("\n".join(["Next:", *(f"  {command}" for command in commands)]))


def _clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(whole), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}"


def show_spot_scores(scores: Any) -> None:
    """The table of a spotting score."""
    rows = [
        (
            kind,
            *map(str, (one.true, one.found, one.hits)),
            *(f"{value:.3f}" for value in (one.precision, one.recall)),
            _with_interval(one.f1, one.f1_interval),
        )
        for kind, one in scores.kinds.items()
    ]
    show_rows("", ("kind", "true", "found", "hits", "precision", "recall", f"F1 (IoU {scores.iou:g})"), rows)
    if scores.strs == scores.strs:
        click.echo(f"STRS {_with_interval(scores.strs, scores.strs_interval)}; F1 of the classes {scores.class_f1:.3f}")
    else:
        click.echo("STRS: both tables must have micro-expressions with labels; got none in one of them.")
    alone = f" ({scores.only_true} only in the truth, {scores.only_found} only in what was found)"
    click.echo(f"{scores.videos} videos{alone if scores.only_true or scores.only_found else ''}")


def _with_interval(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds[0] == bounds[0] else f"{value:.3f}"


def show_unfinished(result: Mapping[str, Any], as_json: bool) -> None:
    """What was measured of a benchmark that was stopped."""
    if as_json and result:
        click.echo(json.dumps(result, indent=1))
    elif result.get("rows") or result.get("end_to_end"):
        show_bench(result, None)


def show_bench(result: Mapping[str, Any], compared: Any) -> None:
    """A benchmark's table, and how it compares with an earlier one."""
    from flowkit.bench import tables

    machine = result["machine"]
    gpus = "".join(f", {name}: {device.get('name', '?')}" for name, device in machine["devices"].items())
    stopped = ", stopped before its end" if result["interrupted"] else ""
    click.echo(f"flowkit bench, {machine['processor']}, {machine['cores']} cores{gpus}{stopped}")
    if "end_to_end" in result:
        show_rows("", tables.END_TO_END_COLUMNS, tables.end_to_end_table(result), whole=True)
        notes = tables.end_to_end_notes(result)
    else:
        show_rows("", tables.COLUMNS, tables.table(result), whole=True)
        notes = tables.notes(result)
    click.echo("\n".join(notes))
    if compared is not None:
        click.echo("\nCompared")
        show_rows("", tables.COMPARED_COLUMNS, tables.comparison_table(compared), whole=True)
        click.echo("\n".join(tables.comparison_notes(compared)))
