"""Where a manifest may be written, and the commands that come next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from flowkit.errors import ConfigError
from flowkit.storage.out_file import check_out_file


def check_out(out: Path, roots: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse what cannot be written, or lies in the folder of a data set, before anything is read.

    Raises
    ------
    ConfigError
    """
    for root in roots:
        if out.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"--out: file must lie outside the data set; got {out}, in {root}. Nothing is ever written there: choose another "
                "folder."
            )
    check_out_file(out, overwrite=overwrite)


def next_commands(
    out: Path,
    folder: Path,
    *,
    without_apex: bool,
    nearest: bool = False,
    follow_symlinks: bool = False,
    index_base: int = 0,
) -> list[str]:
    """`flowkit check` and `flowkit extract` for a manifest whose paths start from a folder, ready to be typed."""
    flags = ["--missing-apex", "spot"] if without_apex else []
    flags += ["--nearest"] * nearest + ["--follow-symlinks"] * follow_symlinks
    flags += ["--index-base", str(index_base)] if index_base else []
    root = ["--root", str(folder)]
    shards = out.with_name(f"{out.stem}_flow")
    return [
        shlex.join(["flowkit", "check", str(out), *root, *flags]),
        shlex.join(["flowkit", "extract", str(out), *root, "--out", str(shards), *flags]),
    ]
