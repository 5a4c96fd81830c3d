"""The command line. stdout carries results only; stderr carries progress, notes and errors; the exit code says the rest.

0 all done, or the check passed        3 backend or environment
1 some clips failed, or it found something    74 disk full
2 usage, settings or manifest          75 stopped by SIGTERM, or its GPU lost: run again      130 interrupted
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import click

from flowkit import __version__
from flowkit.cli.common import (
    FOLDER,
    Commands,
    fail,
    progress,
    say,
    setting_options,
    show_mapping,
    show_rows,
    show_settings,
    signals,
    sigterm_as_ctrl_c,
    with_options,
)
from flowkit.cli.dataset_help import ListsDataSets, complete_dataset
from flowkit.cli.printing import (
    show_bench,
    show_check,
    show_completion,
    show_demo,
    show_events,
    show_preview,
    show_reading,
    show_summary,
    show_unfinished,
)
from flowkit.config import FILES, ExtractConfig, load_config
from flowkit.errors import ConfigError, FlowkitError

FILE = click.Path(path_type=Path)


@click.group(
    cls=Commands,
    epilog="flowkit demo\nflowkit extract clips.csv --out out\nflowkit inspect out",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="flowkit")
def main() -> None:
    """Dual-phase optical flow and MM-COF of micro-expression clips.

    A manifest (CSV) names clips and their onset, apex and offset; `flowkit extract` turns it into HDF5 shards.
    """


READ_SETTINGS = [
    click.option(
        "--index-base",
        "frames__index_base",
        type=click.IntRange(0, 1),
        help="Number of a video's first frame.  [default: 0]",
    ),
    click.option(
        "--nearest",
        "frames__nearest",
        is_flag=True,
        default=None,
        help="Read the nearest frame where one is missing from a folder; recorded.",
    ),
    click.option(
        "--follow-symlinks",
        "frames__follow_symlinks",
        is_flag=True,
        default=None,
        help="Accept links that lead out of the root.",
    ),
]
FRAME_SETTINGS = [
    click.option(
        "--missing-apex",
        "frames__missing_apex",
        type=click.Choice(["fail", "midpoint", "offset", "spot"]),
        help="What an empty apex means; spot: find it.  [default: fail]",
    ),
    click.option(
        "--missing-offset",
        "frames__missing_offset",
        type=click.Choice(["fail", "invalid"]),
        help="What an empty offset means.  [default: fail]",
    ),
    click.option(
        "--strict-phases",
        "frames__strict_phases",
        is_flag=True,
        default=None,
        help="Fail clips with a phase of no length, instead of marking it invalid.",
    ),
    *READ_SETTINGS,
]
ALIGN_SETTINGS = [
    click.option(
        "--align",
        "align__method",
        type=click.Choice(["mediapipe", "landmarks", "none"]),
        help="Where the face is: found by mediapipe, in --landmarks FILE, or cropped already.  [default: mediapipe]",
    ),
    click.option("--landmarks", "align__landmarks", help="CSV with clip_id, point, x, y, for --align landmarks."),
    click.option("--face-model", "align__face_model", help="A face_landmarker.task in place of the bundled one."),
    click.option(
        "--stabilise",
        "align__stabilise",
        type=click.Choice(["head", "similarity", "affine", "register", "none"]),
        help="How head motion is taken out; head: in three dimensions, told apart from the expression; similarity: as version 0.1 "
        "did.  [default: head]",
    ),
    click.option(
        "--match-light/--no-match-light",
        "align__match_light",
        default=None,
        help="Match the light of apex and offset to the onset.  [default: match]",
    ),
]
COMPUTE_SETTINGS = [
    *FRAME_SETTINGS,
    click.option("--size", "align__size", type=int, help="Side of the face crop in pixels.  [default: 224]"),
    *ALIGN_SETTINGS,
    click.option(
        "--backend",
        "backend",
        type=click.Choice(["auto", "cuda", "numba-cuda", "cpu", "reference"]),
        help="What computes the flow; never falls back by itself.  [default: auto]",
    ),
]
STORE_SETTINGS = [
    click.option("--shard-clips", "shard__clips", type=int, help="Clips per shard file.  [default: 256]"),
    click.option(
        "--compress", "shard__compress", type=click.Choice(["none", "zstd"]), help="For archives.  [default: none]"
    ),
    click.option(
        "--keep-faces",
        "shard__keep_faces",
        is_flag=True,
        default=None,
        help="Store the aligned faces too: personal data.",
    ),
]
"""With COMPUTE_SETTINGS the flags that decide the bytes of shards, each named after its key in a settings file (dots doubled)."""
SETTINGS = setting_options("tvl1.lambda_=0.1", ExtractConfig)
MANIFEST_ROOT = click.option(
    "--root", type=FOLDER, help="What paths in the manifest are relative to.  [default: its folder]"
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
EXTRACT_PLACES = [
    click.option(
        "--out", type=FOLDER, required=True, help="Folder of the shards; a run that was stopped goes on there."
    ),
    MANIFEST_ROOT,
    click.option("--overwrite", is_flag=True, help="Discard what --out holds."),
    click.option("--retry-failed", is_flag=True, help="Try clips again that failed before."),
    click.option(
        "--verify-sources", is_flag=True, help="Compare the frames of committed clips with what was read then."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing."),
]
EXTRACT_RUN = [
    click.option("--workers", type=int, default=0, help="Processes that read and align.  [default: one per core]"),
    click.option("--threads", type=int, default=0, help="Threads that compute flow.  [default: one per core]"),
    click.option("--batch", type=int, default=16, show_default=True, help="Clips whose flow is computed together."),
    click.option(
        "--timeout",
        type=float,
        default=120.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time to read a clip.",
    ),
    click.option("--device", metavar="INDICES", help="GPUs, such as 0,1; one process each.  [default: the first]"),
    click.option(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="Dask cluster that computes: local, tcp://host:8786, or a scheduler file. --workers and --threads are then for "
        "each of its threads.  [default: this process]",
    ),
    click.option(
        "--shard",
        metavar="i/N|slurm",
        help="Do one share of the tasks, 0/4 to 3/4 for four runs on one --out; slurm: that of this element of a job array.",
    ),
    click.option(
        "--max-error-rate",
        type=float,
        default=0.1,
        show_default=True,
        help="Share of clips that may fail before the run stops, after a shard.",
    ),
]


@main.command(short_help="A small data set, its shards and its report, to try.", epilog="flowkit demo")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("flowkit-demo"),
    show_default=True,
    help="A new folder, or one that a demo began.",
)
@click.option("--overwrite", is_flag=True, help="Discard the data set and the shards of an earlier demo.")
@AS_JSON
def demo(out: Path, overwrite: bool, as_json: bool) -> None:
    """Render 24 clips of a synthetic data set, extract them, and print what they hold and which commands come next.

    Takes about a minute. A demo that was stopped resumes when the same command is run again.

    Exit codes: 0 all done; 1 some clips failed; 2 usage, or --out holds something else; 3 a library is missing: the message says
    how to install it; 74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.demo import make_demo
    from flowkit.execution.stop import Stop

    stop = Stop("demo")
    with progress() as reporter, signals(stop):
        done = make_demo(out, overwrite=overwrite, reporter=reporter, stop=stop)
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_demo(done)
    sys.exit(done.summary.exit_code)


@main.command(
    cls=ListsDataSets,
    short_help="A data set's annotation and frames as a manifest.",
    epilog="flowkit manifest casme2 /data/CASME2 --out casme2.csv",
)
@click.argument("dataset", shell_complete=complete_dataset)
@click.argument("root", type=FOLDER, required=False)
@click.option("--out", type=FILE, required=True, help="The manifest to write; never in ROOT.")
@click.option("--root", "roots", multiple=True, metavar="SET=DIR", help="Folder of one set of megc2019; once for each.")
@click.option(
    "--workbook", "workbooks", multiple=True, metavar="FILE", help="The annotation file, where it is not found in ROOT."
)
@click.option(
    "--frames",
    "frames",
    multiple=True,
    metavar="DIR",
    help="Folder in ROOT of the frames to use, where there are several.",
)
@click.option("--list", "list_file", type=FILE, help="Official list of megc2019.  [default: the one in a root, if any]")
@click.option("--classes", "grouping", metavar="NAME", help="Also show how many clips each class of a grouping gets.")
@click.option(
    "--no-fixes", "fixes", is_flag=True, flag_value=False, default=True, help="Leave known errors as they are."
)
@click.option("--corrections", type=FILE, help="Table of known errors in place of the bundled one.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@AS_JSON
def manifest(dataset: str, root: Path | None, out: Path, as_json: bool, overwrite: bool, **given: Any) -> None:
    """Write the manifest of DATASET, whose files lie in ROOT, in any layout in which it is handed out.

    \b
    DATASET is one of
    {data sets}

    megc2019 takes --root casme2=DIR --root samm=DIR --root smic-hs=DIR in place of ROOT (--workbook and --frames likewise:
    SET=...). Of videos, onset, apex and offset of the strongest movement in each are found, labels are not. Data sets of your own
    come from the folders that the environment variable FLOWKIT_DATASETS names (docs/datasets).

    Known errors are corrected, each only where the file still has it; what was done, and each row that cannot be used, is
    said. The manifest passes `flowkit check`; the commands that come next are printed. Nothing is ever written in ROOT.

    Exit codes: 0 every clip is in the manifest; 1 some are left out; 2 usage, or the data set cannot be read; 3 a package is
    missing; 74 disk full.
    """  # noqa: D301 - click wants the character
    from flowkit.datasets.next_steps import check_out, next_commands
    from flowkit.datasets.own_recordings import NAME as VIDEOS
    from flowkit.inputs.manifest import write_manifest

    if dataset.casefold() == VIDEOS:
        _manifest_of_videos(root, out, as_json, overwrite, given)
    grouping = given.pop("grouping")
    folders = _folders_of(dataset, root, given.pop("roots"))
    check_out(out, folders.values(), overwrite=overwrite)
    if sys.stderr.isatty():  # a large set on a slow disk takes minutes
        say(f"Looking through {', '.join(map(str, folders.values()))} ...")
    reading = _read_set(dataset, folders, given)
    preview = None if grouping is None else _class_counts(reading, grouping)
    write_manifest(out, reading.clips, overwrite=overwrite)
    commands = next_commands(out, reading.root, without_apex=bool(reading.without_apex))
    if as_json:
        groupings = None if preview is None else {"counts": preview.counts, "left_out": preview.left_out}
        document = {"manifest": str(out), **reading.to_dict(), "classes": groupings, "next": commands}
        click.echo(json.dumps(document, indent=1))
    else:
        show_events(reading.events)
        show_reading(reading, out, preview, commands)
    sys.exit(1 if reading.left_out else 0)


@main.command(
    short_help="Clips to shards of flow and MM-COF; goes on where it was stopped.",
    epilog="flowkit extract clips.csv --out out --missing-apex spot\n"
    "flowkit extract clips.csv --out as-0.1 --stabilise similarity --set align.match_contrast=false",
)
@click.argument("manifest", type=FILE)
@with_options(COMPUTE_SETTINGS, "What is computed")
@with_options([*EXTRACT_PLACES, *STORE_SETTINGS], "What is read and written")
@with_options(EXTRACT_RUN, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def extract(manifest: Path, out: Path, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Turn the clips of MANIFEST into shards of dual-phase flow and MM-COF.

    Runs again where it was stopped. A clip that cannot be used goes to failures.csv and never ends the run.

    Exit codes: 0 all done; 1 some clips failed; 2 usage, settings or manifest; 3 backend or environment; 74 disk full;
    75 stopped by SIGTERM, or no GPU works any more: run again; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions, parse_devices
    from flowkit.extraction.pipeline import extract as run
    from flowkit.extraction.pipeline import preview
    from flowkit.extraction.shares import array_warning, parse_share

    devices, shard = given.pop("device"), given.pop("shard")
    if shard is None and (warning := array_warning(os.environ)):
        say(warning)
    options = RunOptions(
        root=given.pop("root"),
        timeout_s=given.pop("timeout"),
        devices=() if devices is None else parse_devices(devices),
        share=None if shard is None else parse_share(shard, os.environ),
        **{name: given.pop(name) for name in ("workers", "threads", "batch", "overwrite", "retry_failed")},
        **{name: given.pop(name) for name in ("verify_sources", "max_error_rate", "cluster")},
    )
    config = load_config(given.pop("config_file"), given.pop("assignments"), **given)
    if dry_run:
        show_preview(preview(manifest, out, config, options), as_json)
        return
    stop = Stop()
    with progress() as reporter, signals(stop):
        reporter.detail(
            f"Manifest {manifest.absolute()}, frames under {(options.root or manifest.parent).absolute()}, shards in "
            f"{out.absolute()}."
        )
        summary = run(manifest, out, config, options, reporter=reporter, stop=stop)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    else:
        show_summary(summary.to_dict())
    if summary.stopped is not None:
        fail(summary.stopped)
    sys.exit(summary.exit_code)


@main.command(
    short_help="Every problem of a manifest and of its frames.",
    epilog="flowkit check clips.csv --missing-apex spot --classes casme2-5",
)
@click.argument("manifest", type=FILE)
@MANIFEST_ROOT
@click.option("--classes", metavar="NAME", help="Grouping whose classes are counted.  [default: 3-class, else raw]")
@click.option("--no-frames", is_flag=True, help="Read no frame: form, annotations and counts only.")
@AS_JSON
@with_options([*SETTINGS, *FRAME_SETTINGS])
def check(
    manifest: Path,
    root: Path | None,
    classes: str | None,
    no_frames: bool,
    as_json: bool,
    config_file: Path | None,
    assignments: Sequence[str],
    **given: Any,
) -> None:
    """Find every problem of MANIFEST, and of the annotations and frames of its clips.

    The form of the file comes first: only when it is right are frames read. Whether a face is found, extract tells. What is odd
    but fails nothing is a note: gaps, phases of no length, clips of more than a second, duplicates. Clips of each class and subject
    are counted; a known data set is compared with what it should hold.

    Exit codes: 0 no problem; 1 some clips have one; 2 the manifest cannot be used.
    """
    from flowkit.checking.check import check_manifest

    config = load_config(config_file, assignments, **given).frames
    with progress() as reporter:
        report = check_manifest(
            manifest, root or manifest.parent, config, _counted(reporter), classes=classes, frames=not no_frames
        )
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        show_check(report)
    sys.exit(1 if report.problems else 0)


@main.command(
    short_help="Find the apex of clips that have none.",
    epilog="flowkit spot clips.csv --out spotted.csv",
)
@click.argument("manifest", type=FILE)
@click.option("--out", type=FILE, required=True, help="The completed manifest, a new file.")
@MANIFEST_ROOT
@click.option(
    "--onset-offset",
    "ends",
    is_flag=True,
    help="The clips are longer than their expression: find onset and offset too, between those given.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with each clip's curve.")
@with_options(SETTINGS)
@click.option("--workers", type=int, default=0, help="Processes.  [default: one per core]")
@click.option(
    "--timeout", type=float, default=120.0, show_default=True, metavar="SECONDS", help="Longest time for a clip."
)
@with_options([*READ_SETTINGS, *ALIGN_SETTINGS])
def spot(manifest: Path, out: Path, ends: bool, as_json: bool, **given: Any) -> None:
    """Find the apex of each clip of MANIFEST whose apex is empty, and write the completed manifest to --out.

    The apex is where brows, eyes and mouth have moved most since the onset, the head's own motion taken out. MANIFEST itself is not
    touched; rows with an apex stay as they are. The columns apex_source and apex_confidence say what was found. The confidence is
    the share of the motion that goes back after the apex; whether anything moved at all, the curve tells (--json).

    Exit codes: 0 all done; 1 written, but some clips failed and have no apex yet; 2 usage, settings or manifest; 3 environment;
    74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.extraction.spot_manifest import complete

    options = RunOptions(
        timeout_s=given.pop("timeout"), **{name: given.pop(name) for name in ("root", "workers", "overwrite")}
    )
    config = load_config(given.pop("config_file"), given.pop("assignments"), **given)
    stop = Stop("spot")
    with progress() as reporter, signals(stop):
        done = complete(manifest, out, config.frames, config.align, options, ends=ends, reporter=reporter, stop=stop)
        root = options.root or manifest.parent
        if root.resolve() != out.absolute().parent.resolve():
            reporter.note(f"Warning: paths in {out} are relative to {root}: pass --root {root} to extract.")
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_completion(done)
    sys.exit(1 if done.failed else 0)


@main.command(
    short_help="What a folder of shards holds.",
    epilog="flowkit inspect out",
)
@click.argument("folder", type=FOLDER)
@AS_JSON
def inspect(folder: Path, as_json: bool) -> None:
    """Say what a folder of shards holds, and with which settings it was made."""
    from flowkit.storage.inspection import inspect as look

    found = look(folder, say)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        how = ("schema", "backend", "fingerprint", "settings", "versions", "machine", "device")
        show_mapping("Made with", {name: found[name] for name in how})
        show_mapping(f"\nShards in {folder}", {name: found[name] for name in found if name not in how})


@main.command(
    short_help="Whether every stored byte is still right.",
    epilog="flowkit verify out",
)
@click.argument("folder", type=FOLDER)
@AS_JSON
def verify(folder: Path, as_json: bool) -> None:
    """Read every byte of a folder of shards and compare it with what was committed; remake index.npz and failures.csv.

    Exit codes: 0 all right; 1 something is not.
    """
    from flowkit.storage.inspection import verify as read_all

    with progress() as reporter:
        result = read_all(folder, lambda done, total: reporter.note(f"shard {done + 1} of {total}"))
    if as_json:
        click.echo(json.dumps({"shards": result.shards, "clips": result.clips, "problems": result.problems}, indent=1))
    else:
        for problem in result.problems:
            click.echo(problem)
        for note in result.notes:
            click.echo(f"Note: {note}")
        click.echo(f"{result.shards} shards, {result.clips} clips read, {len(result.problems)} problems.")
    sys.exit(1 if result.problems else 0)


@main.command(
    short_help="Write report.html into a folder of shards.",
    epilog="flowkit report out --clips 40",
)
@click.argument("folder", type=FOLDER)
@click.option("--clips", type=click.IntRange(0, 200), default=12, show_default=True, help="Clips that are pictured.")
def report(folder: Path, clips: int) -> None:
    """Write report.html into a folder of shards: counts, failures, flow pictures, settings, in one file.

    Exit codes: 0 written; 1 written, but some shards are damaged.
    """
    from flowkit.reports.shard_report import write_report

    result = write_report(folder, clips=clips)
    for problem in result.corrupt:
        click.echo(f"Warning: {problem}", err=True)
    click.echo(result.path)
    sys.exit(1 if result.corrupt else 0)


@main.group(
    "import",
    short_help="Flow that others computed, as shards.",
    epilog="flowkit import stst three_norm_u_v_os --out out",
)
def import_() -> None:
    """Turn flow that others computed into shards, as far as it tells what shards hold; the rest is recorded as unknown."""


@import_.command(
    short_help="The public 28 x 28 pictures of STSTNet, HTNet and CausalNet.",
    epilog="flowkit import stst three_norm_u_v_os --out out",
)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--out", type=FOLDER, required=True, help="Folder of the shards; an import that was stopped goes on there."
)
@click.option(
    "--zero",
    type=click.Choice(["median", "mode"]),
    default="median",
    show_default=True,
    help="Which grey level of a channel means no motion.",
)
@click.option(
    "--scale",
    type=click.Choice(["spread", "range"]),
    default="spread",
    show_default=True,
    help="What one unit of flow is: each channel's standard deviation, or 127 grey levels.",
)
@click.option("--csv", "list_file", type=FILE, help="The list of clips.  [default: the one in DIR]")
@click.option("--pictures", type=FOLDER, help="Folder of the pictures.  [default: found in DIR]")
@click.option("--retry-failed", is_flag=True, help="Read clips again that failed before.")
@AS_JSON
def stst(folder: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Turn the pictures of DIR into shards: 28 x 28 PNG files with u, v and strain, of both phases or of the rise only.

    The clips are those of the CSV file in DIR (dataset, sub, filename_o, label). Magnitude and zero of such flow are relative:
    shards say `units = minmax`, and MM-COF is approximate.

    Exit codes: 0 all done; 1 some clips failed; 2 usage or list; 3 environment; 74 disk full; 130 interrupted.
    """
    from flowkit.interop.stst_import import import_stst

    with progress() as reporter:
        done = import_stst(folder, out, reporter=reporter, **given)
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_mapping("flowkit import stst", done.to_dict())
    sys.exit(done.exit_code)


@main.command(
    short_help="Shards as files that other programs read.",
    epilog="flowkit export out --format npz --out arrays",
)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["stst", "png", "npz"]),
    required=True,
    help="stst: the public 28 x 28 pictures; png: HSV pictures; npz: every column as arrays.",
)
@click.option("--out", type=FOLDER, required=True, help="A new folder; an export that was stopped goes on there.")
@click.option(
    "--folds", is_flag=True, help="With stst: also a folder of links for each subject held out, as the programs read."
)
@AS_JSON
def export(folder: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Write the clips of DIR, a folder of shards, as files of another format, and a list of them (CSV).

    stst: the public layout that `flowkit import stst` reads: for each clip u, v and strain of rise and fall at 28 x 28, each scaled
    to 0..255, and two pictures of direction. Classes are those of the grouping 3-class; clips in none are left out.
    png: rise, fall and MM-COF, in which hue is direction and value magnitude. npz: the columns of the shard, bit for bit.

    Clip ids become file names: all but letters, digits and _ . - ~ becomes %XX. What is there is never written again.

    Exit codes: 0 all done; 1 some clips could not be written so, or shards are damaged; 2 usage, or --out holds something else;
    3 environment; 74 disk full; 75 stopped by SIGTERM: run again; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.interop.export import export as run

    stop = Stop("export")
    with progress() as reporter, signals(stop):
        done = run(folder, out, reporter=reporter, stop=stop, **given)
    for problem in done.corrupt:
        click.echo(f"Damaged: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_mapping("flowkit export", done.to_dict())
    sys.exit(done.exit_code)


@main.command(
    short_help="Synthetic clips whose motion is known exactly.",
    epilog="flowkit synth --out clips --subjects 3",
)
@click.option("--out", type=FOLDER, required=True, help="A new or empty folder.")
@click.option(
    "--level",
    type=click.Choice(["clips", "recordings", "flow"]),
    default="clips",
    show_default=True,
    help="Clips of one expression each; a video of minutes per subject; or flow, degraded as extraction degrades it, to train on.",
)
@click.option("--seconds", type=float, help="Of --level recordings: length of each.  [default: 120]")
@click.option("--samples", type=int, help="Of --level flow: how many.  [default: 1000]")
@click.option("--size", type=int, help="Of --level flow: side of the crop in pixels.  [default: 112]")
@click.option(
    "--form",
    type=click.Choice(["flow", "pictures"]),
    help="Of --level flow: pixels, or what the public 28 x 28 pictures hold.  [default: flow]",
)
@click.option("--per-person", type=int, help="Of --level flow: samples per person.  [default: 25]")
@click.option("--workers", type=int, help="Of --level flow: processes.  [default: one per core]")
@click.option("--subjects", type=int, help="Synthetic subjects.  [default: 5]")
@click.option("--clips", type=int, help="Clips per subject and class.  [default: 1]")
@click.option("--classes", help="Labels, comma-separated.  [default: all eight]")
@click.option("--seed", type=int, help="Another seed, another data set.  [default: 0]")
@click.option("--width", type=int, help="Frame width in pixels.  [default: 320]")
@click.option("--height", type=int, help="Frame height in pixels.  [default: 320]")
@click.option("--fps", type=float, help="Frames per second.  [default: 200]")
@click.option(
    "--format",
    type=click.Choice(["png", "jpg", "mkv", "mp4"]),
    help="Image folders, lossless or JPEG; lossless or H.264 video.  [default: png]",
)
@click.option("--quality", type=int, help="Quality of JPEG images, 1 to 100.  [default: 95]")
@click.option("--crf", type=int, help="Compression of H.264, 0 (none) to 51 (most).  [default: 5]")
@click.option(
    "--cropped", is_flag=True, default=None, help="Frames that are cropped already, for flowkit extract --align none."
)
@click.option("--key-frames-only", is_flag=True, default=None, help="Write onset, apex and offset only.")
@click.option(
    "--peak-px",
    type=(float, float),
    help="Smallest and largest peak of the motion, pixels.  [default: 0.5 2, less in frames below 100 pixels]",
)
@click.option("--noise", type=float, help="Noise of each frame, grey levels.  [default: 1]")
@click.option("--drift-px", type=float, help="Largest shift of the head, pixels.  [default: 2]")
@click.option("--drift-deg", type=float, help="Largest turn of the head in the plane, degrees.  [default: 0.5]")
@click.option("--turn-deg", type=float, help="Largest turn of the head out of the plane, degrees.  [default: 0.5]")
@click.option("--pose-deg", type=float, help="How far to the side a head looks at the onset.  [default: 8]")
@click.option("--light", type=float, help="Largest relative change of brightness.  [default: 0.01]")
@click.option("--lamp-deg", type=float, help="Largest turn of the direction of the light, degrees.  [default: 0]")
@click.option("--exposure", type=float, help="Factor of all grey levels, before the noise.  [default: 1]")
@click.option(
    "--tone",
    type=(float, float),
    help="Darkest and lightest skin, relative to the bundled photograph's.  [default: 0.4 1.05]",
)
@click.option("--flat", is_flag=True, default=None, help="Light from everywhere: no shading.")
@click.option("--stray", type=float, help="Share of clips with an action unit beside the expression.  [default: 0.25]")
@click.option("--incomplete", type=float, help="Share of clips whose movement does not go back.  [default: 0.35]")
@click.option(
    "--different", type=float, help="Share of clips whose fall has an action unit of its own.  [default: 0.3]"
)
@click.option("--blinks", type=float, help="Share of clips with a blink.  [default: 0.2]")
@click.option("--motion-blur", type=float, help="Open shutter, as a share of the time between frames.  [default: 0]")
@click.option(
    "--wander",
    is_flag=True,
    default=None,
    help="Head and light turn round at a moment of their own, not at the apex, which they would give away.",
)
@click.option(
    "--rest-frames", type=int, help="Frames of a still face before the onset and behind the offset.  [default: 0]"
)
@click.option(
    "--motion",
    type=click.Choice(["faces", "bumps"]),
    help="Faces that move by action units, or round bumps on one photograph, for fast tests.  [default: faces]",
)
@click.option(
    "--face3d",
    type=click.Path(path_type=Path),
    help="A folder of ICT-FaceKit (or face3d.npz): its head instead of ours.",
)
def synth(out: Path, level: str, classes: str | None, face3d: Path | None, workers: int | None, **given: Any) -> None:
    """Make a data set of synthetic people whose motion is known exactly.

    People differ in shape and skin, and move by action units in three dimensions. Writes manifest.csv, the frames, landmarks.csv
    and truth/*.npz (the true flow of both phases) into --out. The manifest comes last: a data set that was stopped has none, and
    the same command resumes it.

    With --level recordings, --out gets s01.mp4, s02.mp4 and so on, of people who talk, blink, turn and show expressions of all
    lengths, and events.csv, which lists them. With --level flow, it gets HDF5 files of flow with label, class, subject and action
    units. Options that a level does not have are refused; some defaults differ.

    Exit codes: 0 written; 2 usage, or --out is not empty; 3 environment; 74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.execution.stop import Stop

    if classes is not None:
        given["classes"] = tuple(name.strip() for name in classes.split(","))
    if face3d is not None:
        given["face3d"] = str(face3d)
    write = _synth_level(level, {name: value for name, value in given.items() if value is not None}, workers)
    stop = Stop("synth")
    with progress({"flow": "samples"}.get(level, level)) as reporter, signals(stop):
        written = write(out, reporter=reporter, stop=stop)
    click.echo(written)


def _synth_level(level: str, given: dict[str, Any], workers: int | None) -> Callable[..., Path]:
    """What writes a data set of one level, with its settings."""
    from flowkit.synthetic.dataset import SynthConfig, synthesise
    from flowkit.synthetic.flow_samples import FlowConfig, write_samples
    from flowkit.synthetic.recordings import RecordingConfig, record

    if level == "flow" and "noise" in given:
        given["noise"] = (given["noise"],) * 2
    kind: Any = {"clips": SynthConfig, "recordings": RecordingConfig, "flow": FlowConfig}[level]
    unknown = sorted(given.keys() - {field.name for field in dataclasses.fields(kind)})
    unknown += ["workers"] if workers is not None and level != "flow" else []
    if unknown:
        flags = ", ".join("--" + name.replace("_", "-") for name in unknown)
        raise click.UsageError(f"{flags}: not an option of --level {level}. Leave it out.")
    if level == "flow":
        return functools.partial(write_samples, config=kind(**given), workers=workers or 0)
    return functools.partial(synthesise if level == "clips" else record, config=kind(**given))


@main.command(
    short_help="How fast each backend is, and whether it is right.",
    epilog="flowkit bench --size 224 --batch 16 --out bench.json",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="auto, cuda, numba-cuda, cpu, reference or opencv; again for more.  [default: all that run here but reference]",
)
@click.option(
    "--op", "ops", multiple=True, type=click.Choice(["tvl1", "mmcof"]), help="One operation.  [default: both]"
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="SIZE",
    help="Side, or HEIGHTxWIDTH, in pixels: even, from 64 to 4096.  [default: 64, 128, 224, 480x640]",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    metavar="N",
    help="Pairs or clips a call.  [default: 1, 16 and 64, on a GPU 1, 16 and 256; none above 2^22 pixels, on a GPU 2^24]",
)
@click.option("--preset", type=click.Choice(["fixed", "opencv"]), help="Parameters of TV-L1.  [default: fixed]")
@click.option(
    "--seconds",
    type=float,
    metavar="SECONDS",
    help="Time for each case, but for at least 3 calls and at most 1,000 of them.  [default: 0.3]",
)
@AS_JSON
@click.option("--out", type=FILE, help="File to store the result in, for a later --compare.")
@click.option("--compare", "stored", type=FILE, help="A stored result: print how many times slower each case is now.")
@click.option(
    "--tolerance", type=float, default=0.1, show_default=True, help="By how much a case may get slower, as a share."
)
@click.option("--end-to-end", is_flag=True, help="Time extract as a whole instead, on 48 synthetic clips.")
def bench(out: Path | None, stored: Path | None, tolerance: float, as_json: bool, **given: Any) -> None:
    """Time the operations of every backend, and OpenCV's TV-L1, each after its answer was found to be right.

    Answers are held against the float64 twin or OpenCV. One that is wrong is reported and not timed. With --compare, a case got
    slower if its median did by more than --tolerance and the quartiles do not overlap.

    The defaults take one to two minutes on two cores, most of them for OpenCV. What is stopped prints what it measured so far, and
    stores nothing.

    Exit codes: 0 all right; 1 a wrong answer, a case that failed, or one that got slower; 2 usage; 3 a backend cannot run here;
    75 stopped by SIGTERM, or its GPU lost; 130 interrupted.
    """
    from flowkit.bench import measure as benchmark

    options = _bench_options(given, comparing=stored is not None)
    before = _baseline(out, stored, tolerance, options)
    result: dict[str, Any] = {}
    with sigterm_as_ctrl_c():
        try:
            _measure(options, given["backends"], result)
        except (KeyboardInterrupt, FlowkitError):
            show_unfinished(result, as_json)
            raise
    problems = benchmark.troubles(result)
    compared = benchmark.compare(before, benchmark.Baseline.of(result), tolerance) if before else None
    if as_json:
        click.echo(json.dumps({**result, "compared": compared.to_dict()} if compared else result, indent=1))
    else:
        show_bench(result, compared)
    for problem in problems:
        click.echo(f"Not right: {problem}.", err=True)
    if out is not None and problems:
        click.echo(f"Not stored in {out}: a baseline must be right.", err=True)
    elif out is not None:
        benchmark.write_result(out, result)
    sys.exit(1 if problems or (compared and compared.slower) else 0)


@main.command(
    short_help="What is installed, what is missing, what to do.",
    epilog="flowkit doctor",
)
@click.option("--warm-up", is_flag=True, help="Compile the kernels ahead of the first run, and say how long that took.")
@AS_JSON
def doctor(warm_up: bool, as_json: bool) -> None:
    """Say what is installed, what is missing, and what to do next.

    Reads a small image and a small video, runs a pair through the kernels, which compiles them if need be, and writes a shard.

    Exit codes: 0 extract can run; 3 something it needs is missing.
    """
    from flowkit.doctor.examination import compile_kernels, examine

    with progress() as reporter:  # a pair is run through the kernels, so they are compiled here at the latest
        compile_kernels(reporter.note, say_if_done=warm_up)
    findings = examine()
    if as_json:
        rows = [{"name": f.name, "status": f.status, "detail": f.detail, "next_step": f.next_step} for f in findings]
        click.echo(json.dumps(rows, indent=1))
    else:
        show_rows(
            "flowkit doctor",
            ("what", "status", "found", "next step"),
            [(f.name, f.status, f.detail, f.next_step) for f in findings],
        )
    sys.exit(3 if any(f.status == "missing" for f in findings) else 0)


@main.command(
    short_help="Every setting of extract, with default, unit and effect.", epilog="flowkit settings --out settings.toml"
)
@click.option("--out", type=FILE, help="File to write them into, for flowkit extract --config.  [default: print them]")
@click.option(
    "--of", "folder", type=FOLDER, metavar="DIR", help="Those of a folder of shards, in place of the defaults."
)
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@AS_JSON
def settings(out: Path | None, folder: Path | None, overwrite: bool, as_json: bool) -> None:
    """Print every setting of `flowkit extract`, with its default, unit and effect, as a TOML file that --config takes.

    With --of, the settings are those of the shards in DIR: `flowkit extract --config FILE` then goes on there, or does the same
    elsewhere. Files that a setting names are known by their content only; they are named on stderr, and must be written by hand.
    """
    title = [
        "Settings of flowkit extract: what decides the bytes of shards. flowkit extract ... --config FILE takes this file."
    ]
    if folder is None:
        show_settings(ExtractConfig(), title, {}, out, overwrite, as_json)
        return
    from flowkit.storage.inspection import settings_of

    found = settings_of(folder)
    contents = {f"align.{name}": str(getattr(found.align, name)) for name in FILES if getattr(found.align, name)}
    left_out = {
        name: f"the file has the content {content}; write its path here, or pass flowkit extract --set {name}=FILE."
        for name, content in contents.items()
    }
    show_settings(found, [*title, f"These are the settings of {folder}."], left_out, out, overwrite, as_json)
    for name, why in left_out.items():
        say(f"Warning: {name}: {why[0].upper()}{why[1:]}")


def _manifest_of_videos(
    root: Path | None, out: Path, as_json: bool, overwrite: bool, given: Mapping[str, Any]
) -> NoReturn:
    """List the recordings under a folder, and spot the strongest movement of each."""
    from flowkit.datasets.next_steps import check_out, next_commands
    from flowkit.datasets.own_recordings import NAME, list_videos
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.extraction.spot_manifest import complete
    from flowkit.inputs.manifest import write_manifest

    if root is None or any(value for name, value in given.items() if name != "fixes"):
        raise ConfigError(
            f"{NAME}: a folder alone must follow; got more, or none. Write: flowkit manifest {NAME} DIR --out FILE"
        )
    check_out(out, [root], overwrite=overwrite)
    clips, events = list_videos(root)
    config, stop = load_config(), Stop("manifest")
    with TemporaryDirectory() as folder, progress() as reporter, signals(stop):
        listing = Path(folder) / "videos.csv"
        write_manifest(listing, clips)
        options = RunOptions(root=root, overwrite=overwrite)
        done = complete(listing, out, config.frames, config.align, options, ends=True, reporter=reporter, stop=stop)
    commands = next_commands(out, root, without_apex=False)
    if as_json:
        document = {**done.to_dict(), "events": [dataclasses.asdict(event) for event in events], "next": commands}
        click.echo(json.dumps(document, indent=1))
    else:
        show_events(events)
        show_completion(done)
        click.echo("\n".join(["Next:", *(f"  {command}" for command in commands)]))
    sys.exit(1 if done.failed or events else 0)


def _folders_of(dataset: str, root: Path | None, roots: Sequence[str]) -> dict[str, Path]:
    """Folder of each data set that a manifest is of, by its name."""
    from flowkit.datasets import COMPOSITE, find_dataset

    if dataset.casefold() == COMPOSITE:
        if root is not None:
            raise ConfigError(
                f"{COMPOSITE}: folders must come as --root SET=DIR; got {root}. Write --root casme2={root}, ..."
            )
        return {name: Path(folder) for name, folder in _by_set("--root", roots).items()}
    name = find_dataset(dataset).name
    if root is None or roots:
        raise ConfigError(
            f"{name}: the data set's folder must follow its name; got {'--root' if roots else 'none'}. Write: flowkit manifest "
            f"{name} DIR --out FILE"
        )
    return {name: root}


def _by_set(option: str, values: Sequence[str]) -> dict[str, str]:
    """The values of an option that is given once for each data set."""
    named = [value.partition("=") for value in values]
    for name, sign, value in named:
        if not (name and sign and value):
            raise ConfigError(f"{option}: must look like casme2=...; got {name + sign + value!r}. Correct it.")
    return {name: value for name, _, value in named}


def _read_set(dataset: str, folders: Mapping[str, Path], given: Mapping[str, Any]) -> Any:
    from flowkit.datasets import COMPOSITE, read_dataset, read_megc2019

    common = {name: given[name] for name in ("fixes", "corrections")}
    places = {"workbook": given["workbooks"], "frames": given["frames"]}
    if dataset.casefold() == COMPOSITE:
        workbooks, frames = (_by_set(f"--{name}", values) for name, values in places.items())
        return read_megc2019(folders, list_file=given["list_file"], workbooks=workbooks, frames=frames, **common)
    ((name, root),) = folders.items()
    if given["list_file"] is not None:
        raise ConfigError(f"--list: must come with {COMPOSITE}; got it with {name}. Leave it out.")
    for option, values in places.items():
        if len(values) > 1:
            raise ConfigError(f"--{option}: must be given once; got {', '.join(values)}. Leave all but one out.")
    return read_dataset(name, root, **{option: values[0] for option, values in places.items() if values}, **common)


def _class_counts(reading: Any, grouping: str) -> Any:
    from flowkit.labels import groupings

    return groupings.preview(groupings.grouping(grouping), [(clip.dataset, clip.label) for clip in reading.clips])


def _counted(reporter: Any) -> Callable[[int, int], None]:
    """A callback that is told (done, in all), for a reporter that counts steps."""

    def count(done: int, total: int) -> None:
        if done == 1:
            reporter.start(total)
        reporter.advance(1, 0)

    return count


def _bench_options(given: Mapping[str, Any], comparing: bool) -> Any:
    """What `bench` is to measure; None with --end-to-end, which has nothing but backends to choose."""
    from flowkit.bench.measure import BenchOptions, parse_size

    single = ("ops", "sizes", "batches", "preset", "seconds")
    if given["end_to_end"]:
        if comparing or any(given[name] for name in single):
            raise ConfigError(
                "bench: --end-to-end must come without --op, --size, --batch, --preset, --seconds and --compare; got one of "
                "them. Leave it out."
            )
        return None
    named = {
        name: given[name] for name in ("backends", "ops", "batches", "preset", "seconds") if given[name] is not None
    }
    return BenchOptions(sizes=tuple(parse_size(text) for text in given["sizes"]), **named)


def _baseline(out: Path | None, stored: Path | None, tolerance: float, options: Any) -> Any:
    """What to compare with, if anything; all that can be wrong with these options is found before anything is timed."""
    from flowkit.bench.measure import check_comparable, read_baseline

    if out is not None and out.is_dir():
        raise ConfigError(f"bench: --out must name a file; got the folder {out}. Add the file's name.")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"bench: --out must lie in a folder that exists; got {out}. Make the folder.")
    if out is not None and not os.access(out if out.exists() else out.absolute().parent, os.W_OK):
        raise ConfigError(f"bench: --out must be a file that can be written; got {out}. Check the permissions.")
    if not tolerance >= 0:
        raise ConfigError(f"bench: --tolerance must be 0 or more; got {tolerance}. Correct it.")
    if stored is None:
        return None
    before = read_baseline(stored)
    check_comparable(before, options)
    return before


def _measure(options: Any, backends: Sequence[str], result: dict[str, Any]) -> None:
    """Fill the result of a benchmark."""
    from flowkit.bench.measure import run, run_end_to_end

    with progress() as reporter:
        if options is None:
            run_end_to_end(backends, reporter.note, result)
        else:
            run(options, reporter.note, result)
