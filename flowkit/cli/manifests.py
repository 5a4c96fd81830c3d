"""Commands about manifests: `manifest`, `check`, `spot`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from flowkit.cli.common import FOLDER, command, progress, say, signals, with_options
from flowkit.cli.dataset_help import ListsDataSets, complete_dataset
from flowkit.cli.options import ALIGN_SETTINGS, AS_JSON, FILE, FRAME_SETTINGS, MANIFEST_ROOT, READ_SETTINGS, SETTINGS
from flowkit.cli.printing import show_check, show_completion, show_events, show_reading, show_searched
from flowkit.config import load_config
from flowkit.errors import ConfigError


@command(
    "manifest",
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
@click.option(
    "--list",
    "list_file",
    type=FILE,
    help="Official list of megc2019, whose labels count.  [default: the one in a root, if any]",
)
@click.option("--classes", "grouping", metavar="NAME", help="Also show how many clips each class of a grouping gets.")
@click.option("--label-from", metavar="COLUMN", help="Further column that becomes the label, such as objective_class.")
@click.option(
    "--nearest", is_flag=True, help="Keep clips that lack a key frame; check and extract take the nearest one."
)
@click.option(
    "--renumbered",
    is_flag=True,
    help="The images of each clip were renumbered: as many as there are frames from onset to offset.",
)
@click.option("--follow-symlinks", is_flag=True, help="Follow links that lead out of ROOT.")
@click.option(
    "--no-fixes", "fixes", is_flag=True, flag_value=False, default=True, help="Leave known errors as they are."
)
@click.option("--corrections", type=FILE, help="Table of known errors in place of the bundled one.")
@click.option(
    "--estimates",
    is_flag=True,
    help="Take estimates of that table for possible numbers, too; the column estimated names them.",
)
@click.option("--fps", type=float, help="Of videos: frames per second.  [default: those of each video; 30 for images]")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@AS_JSON
def manifest_command(dataset: str, root: Path | None, out: Path, as_json: bool, overwrite: bool, **given: Any) -> None:
    """Write the manifest of DATASET, whose files lie in ROOT, in any layout in which it is handed out.

    \b
    DATASET is one of
    {data sets}

    megc2019 takes --root casme2=DIR --root samm=DIR --root smic-hs=DIR in place of ROOT (--workbook and --frames likewise:
    SET=...). Of videos, onset, apex and offset of the surest expression in each are found, labels are not; spot-intervals finds
    all of them. Data sets of your own come from the folders that the environment variable FLOWKIT_DATASETS names (docs/datasets).

    Known errors are corrected, each only where the file still has it. Corrections, rows that cannot be used, and columns that
    are not read are reported. The manifest passes `flowkit check`; the commands that come next are printed. Nothing is ever
    written in ROOT.

    Exit codes: 0 every clip is in the manifest; 1 some are left out, or videos without an expression; 2 usage, or the data set
    cannot be read; 3 a package is missing; 74 disk full.
    """  # noqa: D301 - click wants the character
    from flowkit.datasets.next_steps import check_out, next_commands
    from flowkit.datasets.own_recordings import NAME as VIDEOS
    from flowkit.inputs.manifest import write_manifest

    if dataset.casefold() == VIDEOS:
        _manifest_of_videos(root, out, as_json, overwrite, given)
    if given.pop("fps") is not None:
        raise ConfigError(
            f"{dataset}: --fps is for videos alone; annotation says how many frames a second has. Leave it out."
        )
    groups = _grouping(given.pop("grouping"))
    folders = _folders_of(dataset, root, given.pop("roots"))
    check_out(out, folders.values(), overwrite=overwrite)
    if sys.stderr.isatty():  # a large set on a slow disk takes minutes
        say(f"Looking through {', '.join(map(str, folders.values()))} ...")
    reading = _read_set(dataset, folders, given)
    write_manifest(out, reading.clips, overwrite=overwrite)
    preview = None if groups is None else _class_counts(reading, groups)
    commands = next_commands(
        out,
        reading.root,
        without_apex=bool(reading.without_apex),
        nearest=bool(reading.nearest),
        follow_symlinks=reading.follow_symlinks,
    )
    if as_json:
        groupings = None if preview is None else dataclasses.asdict(preview)
        document = {"manifest": str(out), **reading.to_dict(), "classes": groupings, "next": commands}
        click.echo(json.dumps(document, indent=1))
    else:
        show_events(reading.events)
        show_reading(reading, out, preview, commands)
    sys.exit(1 if reading.left_out else 0)


@command(
    "check",
    short_help="Every problem of a manifest and of its frames.",
    epilog="flowkit check clips.csv --missing-apex spot --classes casme2-5",
)
@click.argument("manifest", type=FILE)
@MANIFEST_ROOT
@click.option("--classes", metavar="NAME", help="Grouping whose classes are counted.  [default: 3-class, else raw]")
@click.option("--no-frames", is_flag=True, help="Read no frame: form, annotations and counts only.")
@AS_JSON
@with_options([*SETTINGS, *FRAME_SETTINGS])
def check_command(
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


@command(
    "spot",
    short_help="Find the apex of clips that have none.",
    epilog="flowkit spot clips.csv --out spotted.csv",
)
@click.argument("manifest", type=FILE)
@click.option("--out", type=FILE, required=True, help="The completed manifest, a new file.")
@MANIFEST_ROOT
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with each clip's curve.")
@with_options(SETTINGS)
@click.option("--workers", type=int, default=0, help="Processes.  [default: one per core]")
@click.option(
    "--timeout", type=float, default=120.0, show_default=True, metavar="SECONDS", help="Longest time for a clip."
)
@with_options([*READ_SETTINGS, *ALIGN_SETTINGS])
def spot_command(manifest: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Find the apex of each clip of MANIFEST whose apex is empty, and write the completed manifest to --out.

    For clips that begin and end with their expression; spot-intervals searches longer ones. The apex is where the rise of the
    action units ends and their fall begins, the head's own motion taken out. MANIFEST itself is not touched; rows with an apex
    stay as they are. The columns apex_source and apex_confidence say what was found. The confidence is from 0 to 1: low where
    nothing but the head, the light or the lids moved, high where the face did.

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
        done = complete(manifest, out, config.frames, config.align, options, reporter=reporter, stop=stop)
        root = options.root or manifest.parent
        if root.resolve() != out.absolute().parent.resolve():
            reporter.note(f"Warning: paths in {out} are relative to {root}: pass --root {root} to extract.")
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=1))
    else:
        show_completion(done)
    sys.exit(1 if done.failed else 0)


def _manifest_of_videos(
    root: Path | None, out: Path, as_json: bool, overwrite: bool, given: Mapping[str, Any]
) -> NoReturn:
    """List the recordings under a folder, and find the surest expression of each."""
    from flowkit.datasets.next_steps import check_out, next_commands
    from flowkit.datasets.own_recordings import NAME, list_videos
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.spotting.found_files import found_summary, write_strongest
    from flowkit.spotting.run import SpotOptions, discard_parts, spot_all

    follow, fps = given["follow_symlinks"], given["fps"]
    if root is None or any(value for name, value in given.items() if name not in ("fixes", "follow_symlinks", "fps")):
        raise ConfigError(
            f"{NAME}: a folder alone must follow; got more, or none. Write: flowkit manifest {NAME} DIR --out FILE"
        )
    spot = SpotOptions() if fps is None else SpotOptions(fps)
    check_out(out, [root], overwrite=overwrite)
    clips, events = list_videos(root, follow_symlinks=follow)
    show_events(events)
    config, options, stop = (
        load_config(frames__follow_symlinks=follow),
        RunOptions(overwrite=overwrite),
        Stop("manifest"),
    )
    with progress("frames") as reporter, signals(stop):
        searched = spot_all(clips, root, out, config, options, spot, reporter, stop)
        write_strongest(out, clips, searched)
    discard_parts(out)
    commands = next_commands(out, root, without_apex=False, follow_symlinks=follow)
    if as_json:
        click.echo(json.dumps(found_summary(searched, out, commands, events), indent=1))
    else:
        show_searched(searched, [out], commands)
    sys.exit(1 if events or any(not one.expressions or one.problems for one in searched) else 0)


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

    common = {
        name: given[name]
        for name in ("fixes", "corrections", "estimates", "nearest", "renumbered", "follow_symlinks", "label_from")
        if given[name] is not None
    }
    places = {"workbook": given["workbooks"], "frames": given["frames"]}
    if dataset.casefold() == COMPOSITE:
        workbooks, frames = (_by_set(f"--{name}", values) for name, values in places.items())
        return read_megc2019(folders, list_file=given["list_file"], workbooks=workbooks, frames=frames, **common)
    ((name, root),) = folders.items()
    if given["label_from"] == "":
        raise ConfigError("--label-from: must be the name of a column; got nothing. Write one, or leave it out.")
    if given["list_file"] is not None:
        raise ConfigError(f"--list: must come with {COMPOSITE}; got it with {name}. Leave it out.")
    for option, values in places.items():
        if len(values) > 1:
            raise ConfigError(f"--{option}: must be given once; got {', '.join(values)}. Leave all but one out.")
    return read_dataset(name, root, **{option: values[0] for option, values in places.items() if values}, **common)


def _grouping(name: str | None) -> Any:
    """The grouping of a name, before anything is read; None for none."""
    from flowkit.labels import groupings

    return None if name is None else groupings.grouping(name)


def _class_counts(reading: Any, groups: Any) -> Any:
    """Clips of each class; labels that the grouping does not know are counted apart, for the manifest is written."""
    from flowkit.labels import groupings

    return groupings.preview(groups, [(clip.dataset, clip.label) for clip in reading.clips], lenient=True)


def _counted(reporter: Any) -> Callable[[int, int], None]:
    """A callback that is told (done, in all), for a reporter that counts steps."""

    def count(done: int, total: int) -> None:
        if done == 1:
            reporter.start(total)
        reporter.advance(1, 0)

    return count
