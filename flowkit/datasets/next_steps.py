"""Where a manifest may be written, and the commands that come next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from flowkit.errors import ConfigError


def check_out(out: Path, roots: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse what cannot be written, or lies in the folder of a data set, before anything is read.

    Raises
    ------
    ConfigError
    """
    folder = out.absolute().parent
    for root in roots:
        if out.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"--out: file must lie outside the data set; got {out}, in {root}. Nothing is ever written there: choose another "
                "folder."
            )
    if out.is_dir():
        raise ConfigError(f"--out: must name a file; got the folder {out}. Add the file's name.")
    if not folder.is_dir():
        raise ConfigError(f"--out: file must lie in a folder that exists; got {out}. Make the folder.")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out: file must not exist yet; got {out}. Choose another name, or pass --overwrite.")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--out: folder must be writable; got {folder}. Check the permissions.")


def next_commands(out: Path, folder: Path, *, without_apex: bool) -> list[str]:
    """`flowkit check` and `flowkit extract` for a manifest whose paths start from a folder, ready to be typed."""
    apex = ["--missing-apex", "spot"] if without_apex else []
    root = ["--root", str(folder)]
    shards = out.with_name(f"{out.stem}_flow")
    return [
        shlex.join(["flowkit", "check", str(out), *root, *apex]),
        shlex.join(["flowkit", "extract", str(out), *root, "--out", str(shards), *apex]),
    ]
