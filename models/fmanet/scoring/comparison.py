"""Runs beside each other: scores with intervals, and paired differences from the first; as a table, CSV, LaTeX or a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError, EnvironmentMissing
from flowkit.listing import listed
from fmanet import run_folder
from fmanet.results import gather
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.metrics import METRICS, by_seed, spread

COLUMNS: Final = ("run", "network", "seeds", "UF1", "UAR", "ACC", "UF1 minus that of the first", "share not above 0")
NOTE: Final = (
    "Means of seeds; in brackets 95 % bootstrap intervals over subjects, differences paired over the same draws. Several "
    "comparisons at once are not corrected for."
)
FIGURES: Final = (".png", ".pdf", ".svg")
_SPECIAL: Final = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\^{}", "\\": r"\textbackslash{}"}
)


def compare_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """Return scores of several runs, and how each differs from the first.

    Parameters
    ----------
    runs : sequence of Path
        Run folders over the same clips and classes.

    Returns
    -------
    dict
        `classes`, `clips`, `subjects`, and `rows`, one for each run: name, network, seeds, scores as value, low and high, and
        `against_first`, the paired difference in UF1 (None for the first).

    Raises
    ------
    ConfigError
        Fewer than two runs, one named twice, or runs of other clips or classes.
    FoldsMissing, ShardCorrupt, TableDamaged

    Examples
    --------
    >>> compare_runs([Path("lda"), Path("fmanet")])["rows"][1]["against_first"]["value"]  # doctest: +SKIP
    0.039
    """
    if len(runs) < 2 or len({path.resolve() for path in runs}) < len(runs):
        raise ConfigError(
            f"compare: two or more different runs must be named; got {listed(runs) or 'none'}. Name others."
        )
    found = [(name, path, *gather(path)) for name, path in zip(_names(runs), runs, strict=True)]
    _, first, reference, classes = found[0]
    rows = []
    for name, path, own, own_classes in found:
        if own_classes != classes:
            raise ConfigError(
                f"compare: runs must have the classes of {first} ({', '.join(classes)}); got {', '.join(own_classes)} in {path}. "
                "Compare runs of one grouping."
            )
        settings = run_folder.open_run(path)[1]
        intervals = subject_interval(own, classes)
        uf1 = spread(by_seed(own, classes))
        rows.append(
            {
                "run": name,
                "network": settings.network.network,
                "inputs": settings.network.inputs,
                "protocol": settings.protocol.name,
                "seeds": settings.seeds,
                "uf1_of_seeds": {"mean": uf1.mean, "std": None if settings.seeds < 2 else uf1.std},
                **{str(metric): getattr(intervals, metric)._asdict() for metric in METRICS},
                "against_first": None if path == first else asdict(paired_difference(own, reference, classes)),
            }
        )
    return {
        "classes": list(classes),
        "clips": len({(row.dataset, row.clip_id) for row in reference}),
        "subjects": len({row.subject for row in reference}),
        "rows": rows,
        "note": NOTE,
    }


def table(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the comparison as a table for people, in the order of `COLUMNS`."""
    rows = []
    for row in compared["rows"]:
        scores = [_bounds(row[metric]) for metric in METRICS]
        against = row["against_first"]
        network = row["network"] if row["inputs"] == "both" else f"{row['network']}, {row['inputs']}"
        rows.append(
            (
                *(row["run"], network, str(row["seeds"]), *scores),
                "" if against is None else _bounds(against, "+"),
                "" if against is None else f"{against['share_not_above']:.3f}",
            )
        )
    return rows


def as_csv(compared: Mapping[str, Any]) -> str:
    """Return the comparison as CSV, a run per line, numbers as they are."""
    header = ["run", "network", "inputs", "protocol", "seeds", "clips", "subjects"]
    header += [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    header += ["uf1_minus_first", "uf1_minus_first_low", "uf1_minus_first_high", "share_not_above"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in compared["rows"]:
        against = row["against_first"] or {}
        writer.writerow(
            [
                *(row[name] for name in header[:5]),
                *(compared["clips"], compared["subjects"]),
                *(row[metric][end] for metric in METRICS for end in ("value", "low", "high")),
                *(against.get(name, "") for name in ("value", "low", "high", "share_not_above")),
            ]
        )
    return text.getvalue()


def as_latex(compared: Mapping[str, Any]) -> str:
    """Return the comparison as a LaTeX table; its document needs the package booktabs."""
    columns = ("run", "UF1", "UAR", "ACC", "UF1 minus first")
    lines = [
        f"% {compared['clips']} clips of {compared['subjects']} subjects. {NOTE}",
        r"\begin{tabular}{lllll}",
        r"\toprule",
        " & ".join(columns) + r" \\",
        r"\midrule",
    ]
    for row in compared["rows"]:
        against = row["against_first"]
        cells = [str(row["run"]).translate(_SPECIAL), *(_bounds(row[metric]) for metric in METRICS)]
        cells.append("" if against is None else _bounds(against, "+").replace("-", "$-$").replace("+", "$+$"))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_figure(compared: Mapping[str, Any], path: Path) -> None:
    """Draw UF1 of each run, and its difference from the first, with their intervals.

    Parameters
    ----------
    compared : mapping
        What `compare_runs` gave.
    path : Path
        Ends in .png, .pdf or .svg; replaced if it exists.

    Raises
    ------
    ConfigError
        Another ending.
    EnvironmentMissing
        The extra `figures` is not installed.
    """
    if path.suffix not in FIGURES:
        raise ConfigError(
            f"{path}: figure must end in {', '.join(FIGURES)}; got {path.suffix or 'nothing'}. Rename it."
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentMissing(
            "compare: matplotlib must be installed for a figure; got none. Install flowkit-mer with the extra figures."
        ) from error
    rows = list(reversed(compared["rows"]))
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    scores, differences = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        _interval(scores, place, row["uf1"])
        if row["against_first"] is not None:
            _interval(differences, place, row["against_first"])
    scores.set_yticks(range(len(rows)), [row["run"] for row in rows])
    scores.set_ylim(-0.6, len(rows) - 0.4)
    scores.set_xlabel("UF1")
    differences.axvline(0, color="0.6", linewidth=1)
    differences.set_xlabel(f"UF1 minus that of {compared['rows'][0]['run']}")
    for axes in (scores, differences):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _interval(axes: Any, place: int, found: Mapping[str, float]) -> None:
    axes.plot([found["low"], found["high"]], [place, place], color="0.35", linewidth=2, solid_capstyle="butt")
    axes.plot([found["value"]], [place], "o", color="tab:blue", markersize=6)


def _bounds(found: Mapping[str, float], sign: str = "") -> str:
    return f"{found['value']:{sign}.3f} [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"


def _names(runs: Sequence[Path]) -> list[str]:
    """Names of the folders; whole paths where two are alike."""
    short = [path.resolve().name for path in runs]
    return short if len(set(short)) == len(short) else [str(path) for path in runs]
