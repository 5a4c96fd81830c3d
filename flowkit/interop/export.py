"""Shards as files that other programs read: `flowkit export DIR --format stst|png|npz --out OUT`.

One clip at a time: its files are written whole or not at all, those that are there stay, and the list of clips comes last. So an
export that was stopped goes on where it was. What the files hold is a matter of export_formats.py.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from flowkit.errors import ConfigError, SettingsChanged, ShardCorrupt
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.interop.export_formats import FORMATS, Format, Refused, Stst
from flowkit.settings_io import differences
from flowkit.storage import durable_files, hashed_json
from flowkit.storage.folder import ShardFolder
from flowkit.storage.generations import read_generations
from flowkit.storage.safe_files import read_regular
from flowkit.storage.schema import Sample
from flowkit.storage.shard_reader import Shard

FormatName = Literal["stst", "png", "npz"]
MARKER: Final = "export.json"
"""Says of which export a folder is; written first."""
FOLDS: Final = "datasets/three_norm_u_v_os"
"""Folder in which the published programs look for who is held out; STSTNet calls it norm_u_v_os."""


@dataclass(slots=True)
class Exported:
    """What an export did. `clips == written + there + left_out + refused`, where no shard is damaged.

    Attributes
    ----------
    out : Path
    format : str
    clips : int
        In the shards.
    written, there : int
        Clips whose files were written now, and whose files were there already.
    folds : int
        Subjects for whom there are folders of training and test clips.
    left_out, refused : Counter of str
        By reason, clips that the format leaves out by design, and those it has no place for.
    corrupt : list of str
        What is wrong with damaged shards, of which only clips before the damage were exported.
    """

    out: Path
    format: FormatName
    clips: int = 0
    written: int = 0
    there: int = 0
    folds: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    corrupt: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done; 1 some clips were refused, or shards are damaged."""
        return 1 if self.refused or self.corrupt else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        counts = {name: dict(sorted(values[name].items())) for name in ("left_out", "refused")}
        return {**values, **counts, "out": str(self.out), "exit_code": self.exit_code}


def export(
    folder: str | Path,
    out: str | Path,
    format_name: FormatName,
    *,
    folds: bool = False,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Exported:
    """Every clip of a folder of shards, as files of another format.

    Parameters
    ----------
    folder : str or Path
        The `--out` of an extraction or import.
    out : str or Path
        New, empty, or begun by the same export, which then goes on. Files that are there are never written again.
    format_name : {"stst", "png", "npz"}
    folds : bool
        With "stst", also link the rises into a folder for each subject held out, as the published programs read them.
    reporter : Reporter, optional
        Told of the course; silent by default.
    stop : Stop, optional
        Asked before each clip: no exception is raised in a signal handler, where Python may lose it.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError, SettingsChanged
        No such format, no shards, or `out` holds something else.
    ShardCorrupt
        run.json or the plan is damaged.
    DiskFull
    Interrupted
        What is written stays, whole.
    """
    if format_name not in FORMATS:
        known = ", ".join(get_args(FormatName))
        raise ConfigError(f"export: format must be one of {known}; got {format_name!r}. Correct it.")
    if folds and format_name != "stst":
        raise ConfigError(f"export: --folds must come with --format stst; got {format_name}. Leave one out.")
    source, out = ShardFolder.open(folder), Path(out)
    reporter, stop = reporter or Silent(), stop or Stop("export")
    form: Format = FORMATS[format_name]()
    _take_folder(out, source, form, format_name)
    done = Exported(out, format_name, clips=source.clip_count)
    rows: list[tuple[object, ...]] = []
    reporter.start(done.clips)
    try:
        for shard in source.shards():
            _export_shard(shard, form, done, rows, reporter, stop)
    finally:
        reporter.finish()
    durable_files.replace_file(out / form.list_file, _csv([form.columns, *sorted(rows, key=str)]))
    if isinstance(form, Stst) and folds:
        done.folds = _link_folds(out, [form.rise(row) for row in rows])
    return done


def _export_shard(
    shard: Shard, form: Format, done: Exported, rows: list[tuple[object, ...]], reporter: Reporter, stop: Stop
) -> None:
    try:
        with shard:
            units = shard.units
            for sample in shard.samples():
                stop.check()
                try:
                    rows.append(_export_clip(sample, units, form, done))
                except Refused as refusal:
                    (done.left_out if refusal.by_design else done.refused)[refusal.reason] += 1
                    reporter.advance(1, int(not refusal.by_design))
                else:
                    reporter.advance(1, 0)
    except ShardCorrupt as error:
        done.corrupt.append(str(error))


def _export_clip(sample: Sample, units: str, form: Format, done: Exported) -> tuple[object, ...]:
    """Write the files of a clip that are not there; its row in the list."""
    paths = [done.out / form.folder / name for name in form.names(sample)]
    if all(path.exists() for path in paths):
        done.there += 1
    else:
        for path, content in zip(paths, form.contents(sample, units), strict=True):
            if not path.exists():
                durable_files.replace_file(path, content)
        done.written += 1
    return form.row(sample, units)


def _link_folds(out: Path, rises: Sequence[tuple[str, str, str]]) -> int:
    """For each subject, links to its pictures by class under u_test, and to those of all others under u_train."""
    subjects = sorted({subject for subject, _, _ in rises})
    for held_out in subjects:
        for subject, label, name in rises:
            link = out / FOLDS / held_out / ("u_test" if subject == held_out else "u_train") / label / name
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(Path("../../../..") / Path(Stst.folder).name / name)
    return len(subjects)


def _take_folder(out: Path, source: ShardFolder, form: Format, format_name: str) -> None:
    """Begin an export, or take it up again; a folder of anything else is refused and left alone."""
    wanted = {"format": format_name, "source": _identity(source)}
    marker = out / MARKER
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: --out must be a folder; got a file. Choose another.")
    if marker.exists():
        content = hashed_json.decode(read_regular(marker))
        if content is None or not isinstance(content.get("export"), dict):
            raise ConfigError(f"{marker}: file must be as it was written; got something else. Use another --out.")
        if changes := differences(content["export"], wanted):
            raise SettingsChanged(
                f"{out}: --out must be new or of the same export; got one of another ({'; '.join(changes)}). Use another --out."
            )
    elif others := sorted(path.name for path in out.glob("[!.]*")):
        raise ConfigError(
            f"{out}: --out must be new, empty or of the same export; got one that holds {', '.join(others[:3])}. Use another "
            "--out."
        )
    (out / form.folder).mkdir(parents=True, exist_ok=True)
    durable_files.remove_stale_temporaries(out, (".", form.folder))
    if not marker.exists():
        durable_files.replace_file(marker, hashed_json.encode({"schema": hashed_json.SCHEMA, "export": wanted}))


def _identity(source: ShardFolder) -> str:
    """Names the run that made the shards: its settings and first clips, which never change."""
    first = [generation.tasks for generation in read_generations(source.path)[:1]]
    return hashlib.sha256(json.dumps([source.run["fingerprint"], first]).encode()).hexdigest()[:16]


def _csv(rows: Sequence[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
