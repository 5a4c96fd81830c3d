"""`--part`: one of several runs on one folder, each with its share of the tasks; any number of machines, no engine between them.

Every share has the same plan, which whoever is first publishes; a share only chooses among its pending tasks. So the number of
shares may change from run to run, and shares may overlap, die and be run again: the shards are those of one run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flowkit.errors import ConfigError, SettingsChanged
from flowkit.extraction.plan import Plan
from flowkit.storage.commit import Record
from flowkit.storage.row_table import column

SLURM = "slurm"
ELEMENT = "SLURM_ARRAY_TASK_ID"
ARRAY = {name: f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")}
"""Which element of which array a job is, as SLURM puts it into the job's environment."""


@dataclass(frozen=True, slots=True)
class Share:
    """Every `count`-th task, beginning with number `index`; counted from 0."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"options: N of --part i/N must be 1 or more; got {self}. 0/1 is the whole.")
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"options: --part i/N must have i from 0 to N - 1, for it is counted from 0; got {self}. The shares of "
                f"{self.count} are {_all_of(self.count)}."
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, task: int) -> bool:
        """Whether a task belongs to the share."""
        return task % self.count == self.index

    def takes_record(self, path: Path) -> bool:
        """Whether a commit record at a path, valid or not, is that of a task of the share."""
        return path.stem.isdigit() and self.takes(int(path.stem))

    def part_of(self, plan: Plan, records: Iterable[Record]) -> Plan:
        """A plan's pending tasks of this share, and the clips that its other tasks hold; the parts of all shares make the whole.

        Parameters
        ----------
        plan : Plan
        records : iterable of Record
            Those that the plan was made from, by task number.

        Returns
        -------
        Plan
        """
        ok: set[str] = set()
        failed: dict[str, int] = {}  # the last task in which a clip failed
        for record in records:
            if self.takes(record.task):
                ok.update(column(record.content["clips"], "clip_id"))
            failed.update(dict.fromkeys(column(record.content["failures"], "clip_id"), record.task))
        return dataclasses.replace(
            plan,
            pending=tuple(task for task in plan.pending if self.takes(task.index)),
            ok=plan.ok & ok,
            failed=frozenset(name for name in plan.failed if self.takes(failed[name])),
        )

    def what_is_left(self, plan: Plan) -> str:
        """What to tell of the share's part of the plan when a run begins."""
        if not (plan.pending or plan.ok or plan.failed):
            return (
                f"Note: share {self} holds no task. A task is one shard file: where all should compute, choose fewer shares, or a "
                "smaller --shard-clips and another --out."
            )
        clips = sum(len(task.clips) for task in plan.pending)
        return f"Share {self}: {len(plan.pending)} tasks with {clips} clips are left to it."

    def what_comes_next(self, out: Path) -> str:
        """What to tell when a run ends: nothing was written that is about all shares."""
        return (
            f"Share {self} has ended. When all have, flowkit verify {out} makes index.npz and failures.csv, and flowkit report "
            f"{out} the page; flowkit inspect {out} says what is missing."
        )

    def refuse_to_begin_anew(self, out: Path, changes: Sequence[str]) -> SettingsChanged:
        """The error of a share that finds a folder of other settings without a shard: another share may just be beginning it."""
        return SettingsChanged(
            f"{out}: folder must be of the settings of share {self}; got {'; '.join(changes)}, and no shard yet. Run all shares "
            "with the same settings; to begin anew, remove the folder before they start."
        )


def parse_share(text: str, environ: Mapping[str, str]) -> Share:
    """The share that `--part` asks for.

    Parameters
    ----------
    text : str
        "1/4", counted from 0; or "slurm", which asks the environment which element of which array this job is.
    environ : mapping
        The environment.

    Returns
    -------
    Share

    Raises
    ------
    ConfigError
    """
    if text == SLURM:
        return _share_of_array(environ)
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if parts is None:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ConfigError(
            f"options: --part must be i/N, counted from 0, or {SLURM}; got {shown!r}. Pass --part 0/4, 1/4, 2/4 and 3/4 to four "
            "runs."
        )
    return Share(int(parts[1]), int(parts[2]))


def array_warning(environ: Mapping[str, str]) -> str | None:
    """What to say to an element of a job array whose run is not split."""
    if ELEMENT not in environ:
        return None
    return (
        f"Warning: this is element {environ[ELEMENT]} of a SLURM job array, and it takes the whole manifest. Pass --part {SLURM} "
        "where the elements are to share it."
    )


def _share_of_array(environ: Mapping[str, str]) -> Share:
    if ELEMENT not in environ:
        raise ConfigError(
            f"options: --part {SLURM} must be in a SLURM job array; got no {ELEMENT} in the environment. Submit the job with "
            "sbatch --array=0-3, or pass --part i/N."
        )
    found = {name: environ.get(variable, "") for name, variable in ARRAY.items()}
    if not all(re.fullmatch("[0-9]{1,9}", value) for value in found.values()):
        _refuse_array(found)
    element, first, last, step, count = (int(found[name]) for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))
    regular = step > 0 and (last - first) % step == 0 and (last - first) // step + 1 == count
    if not regular or (element - first) % step or not first <= element <= last:
        _refuse_array(found)
    return Share((element - first) // step, count)


def _refuse_array(found: Mapping[str, str]) -> NoReturn:
    got = ", ".join(f"{ARRAY[name]}={value}" for name, value in found.items())
    raise ConfigError(
        f"options: --part {SLURM} must be in a job array of one start, end and step, such as sbatch --array=0-7 or "
        f"--array=5-11:3; got {got}. Submit such an array again: what is done is not done twice."
    )


def _all_of(count: int) -> str:
    if count <= 4:
        return ", ".join(f"{index}/{count}" for index in range(count))
    return f"0/{count}, 1/{count}, ..., {count - 1}/{count}"
