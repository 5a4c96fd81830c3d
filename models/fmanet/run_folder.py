"""The run folder: what lies where, how a trained fold is committed, and what counts as one.

    run.json                       settings, shards, versions: what the run is
    folds.json                     the plan
    folds/smic.s01/seed-0.json     commit record of one network, which is also its checkpoint: names, by size and hash,
                   seed-0-<hash>.safetensors   its weights
                   seed-0-<hash>.csv           what it predicts of the held-out clips
                   seed-0-<hash>.log.csv       its epochs
                   seed-0-<hash>.epochs.csv    with --keep-epochs: what each epoch predicts; `results.leaky_scores` alone reads it
    predictions.csv, scores.json   derived from the records, once all are there
    README.md                      of a run that held out nobody: the model card, in place of scores

Files are published with `flowkit.storage.commit`: whole, durable, never overwritten; a fold without a valid record was not trained.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ConfigError, DiskFull, EnvironmentMissing, SettingsChanged, ShardCorrupt
from flowkit.listing import listed
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.record_forms import MAX_TIME, are_texts, is_count, is_tree
from flowkit.storage.safe_files import NotRegular, read_regular
from fmanet import checkpoint
from fmanet.errors import CheckpointRefused
from fmanet.networks import registered
from fmanet.plan import PLAN_FILE, Member, Plan, read_plan
from fmanet.settings import REMOVED, RunSettings

if TYPE_CHECKING:  # who reads a run needs no torch
    from fmanet.training import LogRow

KIND = "fmanet run"
FOLDS = "folds"
PREDICTIONS_FILE, SCORES_FILE, CARD_FILE = "predictions.csv", "scores.json", "README.md"
OWN = (FOLDS, "quarantine", PREDICTIONS_FILE, SCORES_FILE, "report.html", CARD_FILE, PLAN_FILE, commit.RUN_FILE)
"""run.json comes last: until it is removed, the folder is known as ours."""
EPOCH_COLUMNS = ("epoch", "clip_id", "subject", "dataset")
"""Before the classes, in a table of what each epoch predicts."""
FACTS = ("settings", "clips", "versions", "device", "machine")
"""What run.json tells of the run."""
MAX_TABLE_BYTES = 1 << 30
MAX_SIDE_PX = 4096
FILES = ("weights", "log")
"""Under these names a record names its files."""
PREDICTED = "predictions"
"""The same, where somebody was held out."""
MAY_BE = "every_epoch"
"""The same, with --keep-epochs."""


def fold_folder(out: Path, plan: Plan, member: Member) -> Path:
    """Where the files of a network lie."""
    return out / FOLDS / plan.folds[member.fold].name


def record_path(out: Path, plan: Plan, member: Member) -> Path:
    """Where the commit record of a network lies."""
    return fold_folder(out, plan, member) / f"seed-{member.seed}.json"


def commit_fold(
    out: Path, plan: Plan, member: Member, files: Mapping[str, tuple[str, bytes]], content: Mapping[str, Any]
) -> None:
    """Publish the files of a trained network, then its record; where there is a record already, that one stays.

    Parameters
    ----------
    out : Path
    plan : Plan
    member : Member
    files : mapping
        By the name under which the record names them: suffix and bytes.
    content : mapping
        The rest of the record; must hold `key`.

    Raises
    ------
    DiskFull
    ShardCorrupt
        The record on disk is of other settings.
    """
    folder = fold_folder(out, plan, member)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: durable_files.publish_hashed(folder, f"seed-{member.seed}-{{}}{suffix}", bytes_)
        for name, (suffix, bytes_) in files.items()
    }
    path = record_path(out, plan, member)
    die_here(plan.folds[member.fold].name, "files")
    durable_files.publish_file(path, hashed_json.encode({"schema": hashed_json.SCHEMA, **content, **stored}))
    die_here(plan.folds[member.fold].name, "record")
    if read_record(out, plan, member, str(content["key"])) is None:
        raise ShardCorrupt(
            f"{path}: record must be of this run's settings; got another's. Two runs with different settings worked on this "
            "folder: use an --out for each."
        )


def read_record(out: Path, plan: Plan, member: Member, key: str) -> dict[str, Any] | None:
    """The record of a network, or None if it is missing or torn, of another key, or a file that it names is not there whole."""
    path = record_path(out, plan, member)
    try:
        content = hashed_json.decode(read_regular(path))
    except (FileNotFoundError, NotRegular):
        return None
    if content is None or content.get("key") != key or not _is_record(content):
        return None
    return content if all(_is_there(path.parent, entry) for entry in named_files(content)) else None


def named_files(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries (name, bytes, sha256) of the files that a record names."""
    return [value for value in record.values() if isinstance(value, Mapping) and "sha256" in value]  # type: ignore[misc]


def read_table(out: Path, plan: Plan, member: Member, entry: Mapping[str, Any]) -> str:
    """Text of a file that a record names, compared with its hash.

    Raises
    ------
    ShardCorrupt
    """
    path = fold_folder(out, plan, member) / str(entry["name"])
    try:
        return checkpoint.read_file(path, entry, MAX_TABLE_BYTES).decode()
    except CheckpointRefused as error:
        raise ShardCorrupt(str(error)) from error
    except UnicodeDecodeError as error:
        raise ShardCorrupt(f"{path}: table must be UTF-8; got {error.reason}. Do not trust this folder.") from error


def quarantine_invalid(out: Path, plan: Plan, keys: Mapping[Member, str]) -> list[Path]:
    """Move records out of the way that are there but not valid; where they lie now. Their networks are trained again.

    Files are compared with their hashes here, so that what says "train again" of a damaged file is right.
    """
    moved = []
    for member, key in keys.items():
        path = record_path(out, plan, member)
        if path.exists() and not _is_whole(path.parent, read_record(out, plan, member, key)):
            moved.append(durable_files.quarantine(path))
    return moved


def _is_whole(folder: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether every byte of the files that a record names is as it was written."""
    if record is None:
        return False
    try:
        for entry in named_files(record):
            checkpoint.read_file(folder / str(entry["name"]), entry, MAX_TABLE_BYTES)
    except CheckpointRefused as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, NotRegular):  # no proof of damage
            raise
        return False
    return True


def has_records(out: Path) -> bool:
    """Whether anything was trained here."""
    return any(out.glob(f"{FOLDS}/*/seed-*.json"))


def read_run(out: Path) -> dict[str, Any] | None:
    """Content of run.json, or None where there is none.

    Raises
    ------
    ConfigError
        The folder is that of another tool.
    ShardCorrupt, SchemaTooNew
    """
    path = out / commit.RUN_FILE
    try:
        content = hashed_json.decode(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotRegular:
        content = None
    if content is None:
        raise ShardCorrupt(f"{path}: must be as it was written; got something else. Restore it from a copy.")
    if content.get("kind") != KIND:
        raise ConfigError(f"{out}: folder must be one of fmanet train; got another tool's. Give another folder.")
    if not _is_run(content):
        raise ShardCorrupt(
            f"{path}: run must be told by {', '.join(FACTS)}; got another form. Do not trust this folder, or begin anew elsewhere."
        )
    return content


def open_run(out: Path) -> tuple[dict[str, Any], RunSettings, Plan]:
    """Content of run.json, its settings, and the plan.

    Raises
    ------
    ConfigError
        No run began here.
    ShardCorrupt, SchemaTooNew
    """
    facts, plan = read_run(out), read_plan(out)
    if facts is None or plan is None:
        raise ConfigError(f"{out}: folder must hold a run; got none. Give the --out of fmanet train.")
    registered(
        facts["settings"]["network"].get("network"), str(out / commit.RUN_FILE)
    )  # says what to do where it is not
    return facts, RunSettings.from_dict(_of_today(facts["settings"]), str(out / commit.RUN_FILE)), plan


def refuse_earlier(out: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a run whose networks this version cannot build, because another version had other settings.

    Parameters
    ----------
    out : Path
    facts : mapping
        Of `open_run`.

    Raises
    ------
    SettingsChanged
    """
    if others := other_settings(facts["settings"]):
        raise SettingsChanged(
            f"{out}: the run was trained by an earlier version of flowkit, whose networks had other parts ({listed(others)}). "
            "fmanet evaluate still scores it. For what needs its weights, install that version, or train again into another folder."
        )


def other_settings(stored: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of settings that only one of a stored run and this version knows."""
    return sorted(_names(stored) ^ _names(RunSettings().to_dict()))


def _names(settings: Mapping[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in settings.items():
        found |= _names(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}"}
    return found


def _of_today(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings without those that are no more."""
    return {
        name: {key: one for key, one in value.items() if f"{name}.{key}" not in REMOVED}
        if isinstance(value, Mapping)
        else value
        for name, value in stored.items()
    }


def prepare(out: Path) -> None:
    """Try what a commit does, and remove what killed runs left half written.

    Raises
    ------
    EnvironmentMissing, DiskFull
    """
    try:
        (out / FOLDS).mkdir(parents=True, exist_ok=True)
        durable_files.publish_file(out / FOLDS / f".probe-{os.getpid()}", b"fmanet")
        for probe in (out / FOLDS).glob(".probe-*"):  # a killed run may have left one
            probe.unlink(missing_ok=True)
    except DiskFull:
        raise
    except OSError as error:
        raise EnvironmentMissing(
            f"{out}: --out must be a folder where files can be created and hard-linked; got {error.strerror}. Choose another."
        ) from error
    remove_temporaries(out)


def remove_temporaries(out: Path) -> None:
    """Remove what processes that no longer run left half written."""
    for folder in (out, out / FOLDS, *(out / FOLDS).glob("*/")):
        durable_files.remove_stale_temporaries(folder)


def discard(out: Path) -> None:
    """Remove what fmanet put into a folder, and nothing else.

    Raises
    ------
    ConfigError
        It has something under these names and is no run folder; nothing was removed.
    """
    found = [out / name for name in OWN if (out / name).exists()]
    if found and read_run(out) is None:
        raise ConfigError(
            f"{out}: --overwrite must find a folder that fmanet made, with its run.json; got one without that holds "
            f"{', '.join(path.name for path in found)}. Use another --out, or empty the folder yourself."
        )
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def log_table(log: Sequence[LogRow]) -> bytes:
    """Epochs as CSV."""
    names = ("stage", "epoch", "rate", "loss", "accuracy", "validation_loss")
    return table(names, ([getattr(row, name) for name in names] for row in log))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """CSV; floats so that they read back exactly, None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def die_here(fold: str, step: str) -> None:
    """Fault hook of the tests: end the process at a named step of a fold, as a crash would."""
    if os.environ.get("FMANET_TEST_DIE_AT") == f"{fold}:{step}":
        os._exit(139)


def _is_there(folder: Path, entry: Mapping[str, Any]) -> bool:
    name = str(entry["name"])
    if not re.fullmatch(r"seed-\d+-[0-9a-f]{12}\.[a-z.]+", name):
        return False
    try:
        return bool((folder / name).stat().st_size == entry["bytes"])
    except FileNotFoundError:
        return False


# Which form run.json and the records must have: a hash in a file does not prove that fmanet wrote it.


def _is_run(content: Mapping[str, Any]) -> bool:
    """Whether this is what `train_run` stores as run.json, except its settings, which have checks of their own."""
    try:
        clips = content["clips"]
        phases, components, *shape = clips["shape"]
        texts = [content["fingerprint"], clips["digest"], clips["units"], *clips["subjects"], *clips["classes"]]
        return (
            are_texts(texts)
            and are_texts(text or "" for text in (*clips["folders"], *clips["folders"].values()))
            and (phases, components, len(shape)) == (2, 2, 2)
            and all(type(side) is int and 0 < side <= MAX_SIDE_PX for side in shape)
            and is_count(clips["count"])
            # What runs of earlier versions do not say:
            and all(is_count(clips.get(name, 0)) for name in ("carried", "with_action_units"))
            and all(map(is_tree, clips.get("alignment", [])))
            and all(is_tree(content[name]) for name in ("settings", "versions", "device", "machine"))
            and len(clips["classes"]) == content["settings"]["network"]["classes"]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _is_record(content: Mapping[str, Any]) -> bool:
    """Whether this is what `fold_worker` commits of a network, as far as readers rely on it before they look at its weights."""
    try:
        return (
            all(_is_file(content[name]) for name in FILES)
            and (content.get("held_out") == [] or _is_file(content[PREDICTED]))
            and (MAY_BE not in content or _is_file(content[MAY_BE]))
            and is_count(content["epochs"])
            and type(content["seconds"]) in (int, float)
            and 0 <= content["seconds"] < MAX_TIME
            and are_texts([content["host"]])
        )
    except (KeyError, TypeError, ValueError):
        return False


def _is_file(entry: Mapping[str, Any]) -> bool:
    return are_texts([entry["name"], entry["sha256"]]) and type(entry["bytes"]) is int
