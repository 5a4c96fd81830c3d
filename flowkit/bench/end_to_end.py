"""`flowkit bench --end-to-end`: clips a second of a whole extraction."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from flowkit.bench.options import EXTRACT_BACKENDS, LABELS, OPENCV, BenchOptions, Document, Progress, check
from flowkit.bench.result import heading
from flowkit.config import ExtractConfig, load_config
from flowkit.extraction.options import RunOptions
from flowkit.extraction.pipeline import extract
from flowkit.extraction.summary import Summary
from flowkit.storage.commit import read_records
from flowkit.synthetic.dataset import synthesise
from flowkit.synthetic.scenes import SynthConfig
from flowkit_kernels import warm_up

SUBJECTS = 6
"""Of the data set of the end-to-end mode, eight clips each."""
SHARD_CLIPS = 8
"""Clips a shard there: few, so that the run has several tasks, as a long one has."""


# --- end to end


def run_end_to_end(
    backends: Sequence[str] = (), progress: Progress = lambda _: None, into: Document | None = None
) -> Document:
    """Clips a second of `flowkit extract` as a whole, on a synthetic data set in a temporary folder, for each backend.

    The clips are whole images of 320 x 320 with landmarks beside them, aligned by these (`--align landmarks`) to 224 x 224, and
    stored in shards of `SHARD_CLIPS`.

    `seconds`, and the clips a second that follow from it, are a whole run's: starting the worker processes, and on a GPU the
    device's own process with its context and its kernels' load, are included, for every run pays them. `start_up_s` says how much
    that is: the seconds of a run of one clip. Compiling counts in neither, because a run of one clip goes before both.

    Parameters
    ----------
    backends : sequence of str
        All that run here but the twin, if empty.
    progress : callable, optional
    into : dict, optional
        As in `run`.

    Returns
    -------
    dict
        As `run` returns it, with end_to_end in place of copy_bytes_per_s and rows.

    Raises
    ------
    ConfigError
        extract has no such backend, such as "opencv".
    FlowkitError
        What stopped a run.
    """
    for name in backends:
        expectation = f"one that extract has ({', '.join(EXTRACT_BACKENDS)}), with --end-to-end"
        check(name in EXTRACT_BACKENDS, "backend", expectation, name)
    names = tuple(name for name in BenchOptions(tuple(backends)).concrete_backends() if name != OPENCV)
    document = {} if into is None else into
    document.update(heading(names, {"subjects": SUBJECTS, "shard_clips": SHARD_CLIPS}), end_to_end=[])
    if "cpu" in names:
        warm_up("cpu", progress)
    with tempfile.TemporaryDirectory() as folder:
        progress(f"{8 * SUBJECTS} synthetic clips are being rendered.")
        base = Path(folder)
        every = synthesise(base / "clips", SynthConfig(subjects=SUBJECTS, key_frames_only=True))
        one = synthesise(base / "clip", SynthConfig(subjects=1, classes=LABELS[:1], key_frames_only=True))
        for name in names:
            progress(f"extract: {name}.")
            document["end_to_end"].append(_time_extract(every, one, base / name, name))
    document["interrupted"] = False
    return document


def _time_extract(every: Path, one: Path, out: Path, backend: str) -> Document:
    """What a run of all clips told, and how long one of a single clip took, after another that compiled."""
    _extract(one, out / "compiled", backend)
    start_up = _extract(one, out / "start-up", backend)
    summary = _extract(every, out / "all", backend)
    found = summary.to_dict()
    kept = ("computed", "failed", "failure_codes", "seconds", "clips_per_s", "stage_seconds", "workers", "bound_by")
    return {
        "backend": backend,
        **{name: found[name] for name in kept},
        "start_up_s": round(start_up.seconds, 3),
        "shards": len(read_records(out / "all")),
    }


def _extract(manifest: Path, out: Path, backend: str) -> Summary:
    summary = extract(manifest, out, _extract_config(manifest, backend), RunOptions())
    if summary.stopped is not None:
        raise summary.stopped
    return summary


def _extract_config(manifest: Path, backend: str) -> ExtractConfig:
    landmarks = str(manifest.parent / "landmarks.csv")
    return load_config(backend=backend, align__method="landmarks", align__landmarks=landmarks, shard__clips=SHARD_CLIPS)
