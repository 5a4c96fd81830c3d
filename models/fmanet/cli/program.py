"""The command line. stdout carries results only; stderr carries progress, notes and errors; the exit code says the rest.

torch, which takes seconds to load, is loaded only when a command has found nothing wrong.

0 all done                                     3 a library, a GPU or a folder is missing
1 some networks failed, or stored files are damaged or missing    74 disk full
2 usage, settings, or clips that cannot be trained on    75 stopped by SIGTERM: run again      130 interrupted
"""

from __future__ import annotations

import click

from flowkit._version import __version__
from flowkit.cli.common import Commands
from fmanet.cli.models import export_command, predict_command, pretrain_command
from fmanet.cli.runs import compare_command, evaluate_command, report_command, settings_command
from fmanet.cli.training import ablate_command, train_command


class _Commands(Commands):
    """Of fmanet."""

    program = "fmanet"
    extra = "train"
    packages = ("torch", "safetensors")


@click.group(
    cls=_Commands,
    epilog="fmanet train out --out run\nfmanet predict run new-shards --out classes.csv",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="fmanet")
def main() -> None:
    """Train and judge FMANet on shards of dual-phase optical flow.

    `flowkit extract` makes the shards; `fmanet train` trains a network for each person held out and scores them together.
    """


for _command in (  # in the order in which a user needs them
    train_command,
    evaluate_command,
    compare_command,
    predict_command,
    report_command,
    export_command,
    pretrain_command,
    ablate_command,
    settings_command,
):
    main.add_command(_command)
