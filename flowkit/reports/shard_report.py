"""The report of a shard folder: one HTML file that shows what was computed, how well, and with which settings.

It needs no network, no script and no other file, so that it can be mailed or put beside the shards in an archive.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import FailureCode
from flowkit.execution.progress import Reporter
from flowkit.reports.html import Html, document, element, facts, table
from flowkit.reports.parts import card, dotted, long_table, settings_tables
from flowkit.reports.shard_contents import Contents, read
from flowkit.reports.shard_pictures import pictures
from flowkit.reports.shard_quality import quality
from flowkit.storage import durable_files
from flowkit.storage.folder import ShardFolder

FILE = "report.html"
IMPORTED = (
    "This flow was imported (see import.* above), not computed by flowkit: what follows on TV-L1 and alignment does not hold for "
    "it, and its MM-COF is approximate."
)


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where the report lies, and what was damaged: the message of each shard or record that could not be read."""

    path: Path
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
    contents = read(ShardFolder.open(out), clips)
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


def _sections(contents: Contents, name: str) -> Iterator[Html]:
    yield element("h1", "flowkit report ", element("small", name))
    yield element("p", _period(contents.folder), class_="soft")
    if contents.corrupt:
        yield _alarm(contents.corrupt)
    yield _headline(contents)
    yield from _clips(contents)
    yield from _failures(contents)
    yield from quality(contents)
    yield from pictures(contents)
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


def _headline(contents: Contents) -> Html:
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
    shown = (card(value, one if value == 1 else many, look=look if value else "") for one, many, value, look in cards)
    return element("div", *shown, class_="cards")


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _clips(contents: Contents) -> Iterator[Html]:
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
    return long_table(("data set", "subject", "clips", "labels"), rows)


def _failures(contents: Contents) -> Iterator[Html]:
    yield element("h2", "Failures")
    failures = contents.failures
    if not failures:
        yield element("p", "None.")
        return
    counts = Counter(failure["code"] for failure in failures)
    known = {code.value: code.meaning for code in FailureCode}
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
    yield long_table(("clip", "code", "message", "attempts"), rows)


def _settings(run: Mapping[str, Any]) -> Iterator[Html]:
    yield element("h2", "Settings")
    yield element("p", "Fingerprint ", element("code", run["fingerprint"]), ": equal where results may be mixed.")
    yield settings_tables(run["settings"])
    yield element("h2", "Versions and machine")
    yield element(
        "div",
        facts(run["versions"]),
        facts(
            {
                "backend": run["backend"],
                **dotted(run.get("device", {}), "device."),
                **run["machine"],
                "schema": run["shard_schema"],
            }
        ),
        class_="facts-columns",
    )


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
