"""Where a single file may be written: what is refused before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.errors import ConfigError


def check_out_file(out: Path, *, overwrite: bool) -> None:
    """Refuse a place where a result cannot go, before it is computed.

    Parameters
    ----------
    out : Path
        What `--out` names.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    ConfigError
    """
    folder = out.absolute().parent
    if out.is_dir():
        raise ConfigError(f"{out}: --out must name a file; got a folder. Add the file's name.")
    if not folder.is_dir():
        raise ConfigError(f"{out}: --out must lie in a folder that exists; got none. Make the folder.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: --out must not exist yet; got a file. Choose another name, or pass --overwrite.")
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            f"{out}: --out must lie in a folder that can be written; got {folder}. Check the permissions."
        )
