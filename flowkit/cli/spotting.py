"""Commands about long recordings: `spot-intervals`, `spot-score`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, progress, say, signals
from flowkit.cli.options import AS_JSON, FILE
from flowkit.cli.printing import show_searched, show_spot_scores
from flowkit.config import load_config


@command(
    "spot-intervals",
    short_help="Find every expression in long recordings.",
    epilog="flowkit spot-intervals interview.mp4 --out found.csv",
)
@click.argument("sources", type=FILE, nargs=-1, required=True, metavar="RECORDING...")
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="The manifest to write, a .csv; a JSON file of the same name comes beside it.",
)
@click.option(
    "--root", type=FOLDER, help="What paths in the manifest are relative to.  [default: the folder they share]"
)
@click.option(
    "--fps", type=float, default=math.nan, help="Frames per second.  [default: those of each video; 30 for images]"
)
@click.option(
    "--least-confidence",
    type=float,
    default=0.4,
    show_default=True,
    help="Leave out what is less sure; above 0, at most 1.",
)
@click.option("--overwrite", is_flag=True, help="Replace the files --out, and discard a search that was stopped.")
@AS_JSON
@click.option("--workers", type=int, default=0, help="Processes.  [default: one per core]")
@click.option(
    "--timeout",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for a minute of video, or 4000 frames.",
)
@click.option(
    "--index-base",
    "frames__index_base",
    type=click.IntRange(0, 1),
    help="Number of a video's first frame.  [default: 0]",
)
@click.option(
    "--follow-symlinks",
    "frames__follow_symlinks",
    is_flag=True,
    default=None,
    help="Accept links that lead out of the root.",
)
@click.option("--face-model", "align__face_model", help="A face_landmarker.task in place of the bundled one.")
def spot_intervals_command(
    sources: Sequence[Path], out: Path, root: Path | None, overwrite: bool, as_json: bool, **given: Any
) -> None:
    """Find every micro- and macro-expression in each RECORDING: a video, a folder of numbered images, or a folder of such.

    The manifest has a row for each expression: onset, apex, offset, kind (micro: at most half a second), region of the face,
    confidence. `flowkit extract` takes it. The JSON file also has the blinks, the motion of the face over time, the frames that
    could not be used, and cuts. Movements of the head, changes of light, blinks and speech are told apart from expressions.

    The confidence is from 0 to 1. It was fitted to synthetic people: on real ones it ranks, and is no probability.

    A search that was stopped is resumed by the same command.

    Exit codes: 0 all done; 1 written, but some recordings could not be searched, or not wholly; 2 usage, or no recording;
    3 environment; 74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.datasets.next_steps import next_commands
    from flowkit.datasets.own_recordings import find_recordings
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.spotting.found_files import check_places, curves_file, found_summary, write_found
    from flowkit.spotting.run import SpotOptions, discard_parts, spot_all

    spot = SpotOptions(given.pop("fps"), given.pop("least_confidence"))
    options = RunOptions(timeout_s=given.pop("timeout"), workers=given.pop("workers"), overwrite=overwrite)
    config = load_config(None, (), **given)
    check_places(out, overwrite=overwrite)
    root, clips, events = find_recordings(sources, root, follow_symlinks=config.frames.follow_symlinks)
    for event in events:
        say(f"Warning: {event}")
    stop = Stop("spot-intervals")
    with progress("frames") as reporter, signals(stop):
        searched = spot_all(clips, root, out, config, options, spot, reporter, stop)
        write_found(out, clips, searched)
    discard_parts(out)
    follow, base = config.frames.follow_symlinks, config.frames.index_base
    commands = next_commands(out, root, without_apex=False, follow_symlinks=follow, index_base=base)[1:]
    if not any(one.expressions for one in searched):
        commands = []
    if as_json:
        click.echo(json.dumps(found_summary(searched, out, commands, events), indent=1))
    else:
        show_searched(searched, [out, curves_file(out)], commands)
    sys.exit(1 if events or any(one.problems for one in searched) else 0)


@command(
    "spot-score",
    short_help="Score what was found in recordings against the truth.",
    epilog="flowkit spot-score truth.csv found.csv",
)
@click.argument("truth", type=FILE)
@click.argument("found", type=FILE)
@click.option("--iou", type=float, default=0.5, show_default=True, help="Least intersection over union of a hit.")
@click.option(
    "--classes",
    default="raw",
    show_default=True,
    metavar="NAME",
    help="Grouping that makes classes of labels, for STRS.",
)
@click.option("--fps", type=float, default=math.nan, help="Frames per second, where a table has neither kind nor fps.")
@AS_JSON
def spot_score_command(truth: Path, found: Path, iou: float, classes: str, fps: float, as_json: bool) -> None:
    """Score the intervals of FOUND against those of TRUTH, as the Micro-Expression Grand Challenges (MEGC) do.

    Both are manifests that name the same videos in the column path; the column kind says micro or macro. `flowkit manifest`
    writes the truth of the data sets samm-lv, casme-sq-lv and casme3-a-lv, `flowkit spot-intervals` what was found.

    An interval is a hit if its intersection over union with a true one of its kind is at least --iou; F1 is of hits, false alarms
    and misses over all videos. STRS, spot then recognise, also wants the right class of micro-expressions: both tables need labels.
    In brackets: 95 % bootstrap intervals over videos.

    A row without an offset ends with its apex. Rows of the kind blink are left out, and those whose spot_problem says that nothing
    was found.

    Exit codes: 0 all done; 2 usage, or a table cannot be used.
    """
    from flowkit.errors import ConfigError
    from flowkit.spotting.run import SpotOptions
    from flowkit.spotting.scores import read_expressions, score_spotting

    if not 0 < iou <= 1:
        raise ConfigError(f"--iou: must lie above 0 and be at most 1; got {iou:g}. Correct it.")
    SpotOptions(fps)  # refuses what is no rate
    tables = [read_expressions(path, fps=fps, classes=classes) for path in (truth, found)]
    scores = score_spotting(*tables, iou=iou)
    if as_json:
        click.echo(json.dumps(scores.to_dict(), indent=1))
    else:
        show_spot_scores(scores)
