"""`flowkit extract --profile`: where the time of a run went, as plain values."""

from __future__ import annotations

from typing import Any

from flowkit.extraction.stage_times import Spent
from flowkit.extraction.summary import WORKERS, Summary


def profile(summary: Summary) -> dict[str, Any]:
    """Return where the time of a run went.

    Parameters
    ----------
    summary : Summary

    Returns
    -------
    dict
        Plain values, for JSON. "stages": per stage who did it, clips, wall and CPU milliseconds per clip, without the first
        clip of each worker. "first_clips": the same of these alone, which load compiled code and the
        landmark model. "workers": how many, the share of the run in which they were busy, and the seconds they waited for clips,
        took to hand them over, and needed to start. "gatherer": the seconds in which the process that gathers and stores waited for
        clips and for commits. "compile_seconds" and "bound_by" as of the summary.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flowkit.extraction.stage_times import Spent, TaskTimes
    >>> times = TaskTimes()
    >>> times.stages.add("read", Spent(2.0, 1.5, 100))
    >>> profile(Summary(Path("out"), times=times))["stages"][0]["wall_ms"]
    20.0
    """
    times = summary.times
    stages = times.stages.without(times.first)
    of_workers = sum(spent.wall_s for name, spent in times.stages.items() if name in summary.by_workers)
    available = summary.workers * summary.seconds
    return {
        "seconds": round(summary.seconds, 3),
        "compile_seconds": round(summary.compile_seconds, 3),
        "stages": [_row(name, spent, summary) for name, spent in stages.items()],
        "first_clips": [_row(name, spent, summary) for name, spent in times.first.items()],
        "workers": {
            "count": summary.workers,
            "busy": round((of_workers + times.handed_over.wall_s) / available, 3) if available else 0.0,
            "waited_for_clips_s": round(times.workers_waited_s, 3),
            "handed_over_s": round(times.handed_over.wall_s, 3),
            "started": times.started.clips,
            "start_cpu_s": round(times.started.cpu_s, 3),
        },
        "gatherer": {
            "processes": summary.processes,
            "waited_for_clips_s": round(times.waited_for_clips_s, 3),
            "waited_for_commits_s": round(times.waited_for_commits_s, 3),
        },
        "clips_per_s": summary.to_dict()["stage_clips_per_s"],
        "bound_by": summary.bound_by,
    }


def _row(name: str, spent: Spent, summary: Summary) -> dict[str, Any]:
    clips = max(spent.clips, 1)
    return {
        "stage": name,
        "by": WORKERS if name in summary.by_workers else "gatherer",
        "clips": spent.clips,
        "wall_ms": round(1000 * spent.wall_s / clips, 2),
        "cpu_ms": round(1000 * spent.cpu_s / clips, 2),
    }
