"""The command line. stdout carries results only; stderr carries progress, notes and errors; the exit code says the rest.

0 all done, or the check passed        3 backend or environment
1 some clips failed, or it found something    74 disk full
2 usage, settings or manifest          75 stopped by SIGTERM, or its GPU lost: run again      130 interrupted
"""

from __future__ import annotations

import click

from flowkit._version import __version__
from flowkit.cli.common import Commands
from flowkit.cli.extraction import demo_command, extract_command, settings_command
from flowkit.cli.machine import bench_command, doctor_command
from flowkit.cli.manifests import check_command, manifest_command, spot_command
from flowkit.cli.shards import export_command, import_group, inspect_command, report_command, verify_command
from flowkit.cli.spotting import spot_intervals_command, spot_score_command
from flowkit.cli.synthesis import synth_command


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


for _command in (  # in the order in which a user needs them
    demo_command,
    manifest_command,
    extract_command,
    check_command,
    spot_command,
    spot_intervals_command,
    spot_score_command,
    inspect_command,
    verify_command,
    report_command,
    import_group,
    export_command,
    synth_command,
    bench_command,
    doctor_command,
    settings_command,
):
    main.add_command(_command)
