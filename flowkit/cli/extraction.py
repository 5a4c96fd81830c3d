"""Commands that extract: `extract`, `demo`, `settings`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, fail, progress, say, show_settings, signals, with_options
from flowkit.cli.options import AS_JSON, COMPUTE_SETTINGS, EXTRACT_PLACES, EXTRACT_RUN, FILE, SETTINGS, STORE_SETTINGS
from flowkit.cli.printing import show_demo, show_preview, show_profile, show_summary
from flowkit.config import FILES, ExtractConfig, load_config
from flowkit.errors import ConfigError


@command("demo", short_help="A small data set, its shards and its report, to try.", epilog="flowkit demo")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("flowkit-demo"),
    show_default=True,
    help="A new folder, or one that a demo began.",
)
@click.option("--overwrite", is_flag=True, help="Discard the data set and the shards of an earlier demo.")
@AS_JSON
def demo_command(out: Path, overwrite: bool, as_json: bool) -> None:
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


@command(
    "extract",
    short_help="Clips to shards of flow and MM-COF; resumable.",
    epilog="flowkit extract clips.csv --out out --missing-apex spot\n"
    "flowkit extract clips.csv --out as-0.1 --stabilise similarity --set align.match_contrast=false",
)
@click.argument("manifest", type=FILE)
@with_options(COMPUTE_SETTINGS, "What is computed")
@with_options([*EXTRACT_PLACES, *STORE_SETTINGS], "What is read and written")
@with_options(EXTRACT_RUN, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def extract_command(manifest: Path, out: Path, as_json: bool, dry_run: bool, profile: bool, **given: Any) -> None:
    """Turn the clips of MANIFEST into shards of dual-phase flow and MM-COF.

    Runs again where it was stopped. A clip that cannot be used goes to failures.csv and never ends the run.

    Exit codes: 0 all done; 1 some clips failed; 2 usage, settings or manifest; 3 backend or environment; 74 disk full;
    75 stopped by SIGTERM, or no GPU works any more: run again; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions, parse_devices
    from flowkit.extraction.pipeline import extract, preview
    from flowkit.extraction.profile import profile as profile_of
    from flowkit.extraction.shares import array_warning, parse_share

    devices, part = given.pop("device"), _part(given.pop("part"), given.pop("shard"))
    if part is None and (warning := array_warning(os.environ)):
        say(warning)
    options = RunOptions(
        root=given.pop("root"),
        timeout_s=given.pop("timeout"),
        devices=() if devices is None else parse_devices(devices),
        share=None if part is None else parse_share(part, os.environ),
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
        summary = extract(manifest, out, config, options, reporter=reporter, stop=stop)
    times = {"profile": profile_of(summary)} if profile else {}
    if as_json:
        click.echo(json.dumps({**summary.to_dict(), **times}, indent=1))
    else:
        show_summary(summary.to_dict())
        if profile:
            show_profile(times["profile"])
    if summary.stopped is not None:
        fail(summary.stopped)
    sys.exit(summary.exit_code)


@command(
    "settings",
    short_help="Every setting of extract, with default, unit and effect.",
    epilog="flowkit settings --out settings.toml",
)
@click.option("--out", type=FILE, help="File to write them into, for flowkit extract --config.  [default: print them]")
@click.option(
    "--of", "folder", type=FOLDER, metavar="DIR", help="Those of a folder of shards, in place of the defaults."
)
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@AS_JSON
def settings_command(out: Path | None, folder: Path | None, overwrite: bool, as_json: bool) -> None:
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
    from flowkit.config import settings_of

    found = settings_of(folder)
    contents = {f"align.{name}": str(getattr(found.align, name)) for name in FILES if getattr(found.align, name)}
    left_out = {
        name: f"the file has the content {content}; write its path here, or pass flowkit extract --set {name}=FILE."
        for name, content in contents.items()
    }
    show_settings(found, [*title, f"These are the settings of {folder}."], left_out, out, overwrite, as_json)
    for name, why in left_out.items():
        say(f"Warning: {name}: {why[0].upper()}{why[1:]}")
    if found.align.steps:
        named = ", ".join(found.align.steps)
        say(
            f"Warning: align.steps: flowkit extract --config imports and runs {named}. Use the file only if you trust that code."
        )


def _part(part: str | None, shard: str | None) -> str | None:
    """Return what --part says, or its old name."""
    if shard is None:
        return part
    if part is not None:
        raise ConfigError("options: --shard is the old name of --part; got both. Leave --shard out.")
    say(f"Warning: --shard is called --part now and will be removed in version 0.3. Write --part {shard}.")
    return shard
