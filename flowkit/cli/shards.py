"""Commands about shards that are there: `inspect`, `verify`, `report`, `import`, `export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, group, progress, say, show_mapping, signals
from flowkit.cli.options import AS_JSON, FILE


@command(
    "inspect",
    short_help="What a folder of shards holds.",
    epilog="flowkit inspect out",
)
@click.argument("folder", type=FOLDER)
@AS_JSON
def inspect_command(folder: Path, as_json: bool) -> None:
    """Say what a folder of shards holds, and with which settings it was made."""
    from flowkit.storage.inspection import inspect

    found = inspect(folder, say)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        how = ("schema", "backend", "fingerprint", "settings", "versions", "machine", "device")
        show_mapping("Made with", {name: found[name] for name in how})
        show_mapping(f"\nShards in {folder}", {name: found[name] for name in found if name not in how})


@command(
    "verify",
    short_help="Whether every stored byte is still right.",
    epilog="flowkit verify out",
)
@click.argument("folder", type=FOLDER)
@AS_JSON
def verify_command(folder: Path, as_json: bool) -> None:
    """Read every byte of a folder of shards and compare it with what was committed; remake index.npz and failures.csv.

    Exit codes: 0 all right; 1 something is not.
    """
    from flowkit.storage.inspection import verify

    with progress() as reporter:
        result = verify(folder, lambda done, total: reporter.note(f"shard {done + 1} of {total}"))
    if as_json:
        click.echo(json.dumps({"shards": result.shards, "clips": result.clips, "problems": result.problems}, indent=1))
    else:
        for problem in result.problems:
            click.echo(problem)
        for note in result.notes:
            click.echo(f"Note: {note}")
        click.echo(f"{result.shards} shards, {result.clips} clips read, {len(result.problems)} problems.")
    sys.exit(1 if result.problems else 0)


@command(
    "report",
    short_help="Write report.html into a folder of shards.",
    epilog="flowkit report out --clips 40",
)
@click.argument("folder", type=FOLDER)
@click.option("--clips", type=click.IntRange(0, 200), default=12, show_default=True, help="Clips that are pictured.")
def report_command(folder: Path, clips: int) -> None:
    """Write report.html into a folder of shards: counts, failures, flow pictures, settings, in one file.

    Exit codes: 0 written; 1 written, but some shards are damaged.
    """
    from flowkit.reports.shard_report import write_report

    result = write_report(folder, clips=clips)
    for problem in result.corrupt:
        click.echo(f"Warning: {problem}", err=True)
    click.echo(result.path)
    sys.exit(1 if result.corrupt else 0)


@group(
    "import",
    short_help="Flow that others computed, as shards.",
    epilog="flowkit import stst three_norm_u_v_os --out out",
)
def import_group() -> None:
    """Turn flow that others computed into shards, as far as it tells what shards hold; the rest is recorded as unknown."""


@import_group.command(
    "stst",
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
def stst_command(folder: Path, out: Path, as_json: bool, **given: Any) -> None:
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


@command(
    "export",
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
def export_command(folder: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Write the clips of DIR, a folder of shards, as files of another format, and a list of them (CSV).

    stst: the public layout that `flowkit import stst` reads: for each clip u, v and strain of rise and fall at 28 x 28, each scaled
    to 0..255, and two pictures of direction. Classes are those of the grouping 3-class; clips in none are left out.
    png: rise, fall and MM-COF, in which hue is direction and value magnitude. npz: the columns of the shard, bit for bit.

    Clip ids become file names: all but letters, digits and _ . - ~ becomes %XX. What is there is never written again.

    Exit codes: 0 all done; 1 some clips could not be written so, or shards are damaged; 2 usage, or --out holds something else;
    3 environment; 74 disk full; 75 stopped by SIGTERM: run again; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.interop.export import export

    stop = Stop("export")
    with progress() as reporter, signals(stop):
        done = export(folder, out, reporter=reporter, stop=stop, **given)
    for problem in done.corrupt:
        click.echo(f"Damaged: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_mapping("flowkit export", done.to_dict())
    sys.exit(done.exit_code)
