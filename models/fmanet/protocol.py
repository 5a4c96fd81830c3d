"""Who is held out while what is trained: folds by subject, and the one gate through which training clips come.

A subject is "dataset/subject". `split` is the only way from a fold to clips; it looks at subjects and at the hashes of the
files that clips were made from, whatever made the fold, and refuses what is on both sides. The trainer is given its first
part alone.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from flowkit.errors import ConfigError
from flowkit.labels.groupings import dataset_name
from flowkit.listing import listed
from fmanet.errors import FoldsMissing, LeakError, TrainingImpossible

if TYPE_CHECKING:  # what parts clips needs no torch
    from fmanet.dataset import Clips
    from fmanet.scoring.prediction_table import Prediction

__all__ = ["Fold", "complete", "cross", "everybody", "holdout", "inner_split", "loso", "split"]

LONGEST_NAME: Final = 60
INNER_ATTEMPTS: Final = 200
_PLAIN: Final = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Fold:
    """One training: who is held out, and which clips are on which side.

    Attributes
    ----------
    name : str
        Safe as the name of a file, and no other fold's of the protocol.
    held_out : frozenset of str
        Subjects.
    train, test : tuple of int
        Rows of the clips; those of neither are not used.
    """

    name: str
    held_out: frozenset[str]
    train: tuple[int, ...]
    test: tuple[int, ...]


def loso(clips: Clips) -> list[Fold]:
    """Return one fold per subject, who is held out, in sorted order.

    Parameters
    ----------
    clips : Clips

    Returns
    -------
    list of Fold

    Raises
    ------
    TrainingImpossible
        There is one subject only, or none.
    """
    return [_fold(clips, file_name(subject), [subject]) for subject in _subjects(clips)]


def holdout(clips: Clips, subjects: Sequence[str] = (), *, share: float | None = None, seed: int = 0) -> list[Fold]:
    """Return one fold that holds out these subjects, or a share of all.

    Parameters
    ----------
    clips : Clips
    subjects : sequence of str
        As "dataset/subject".
    share : float, optional
        In place of `subjects`: of the subjects, between 0 and 1, rounded to at least one on each side.
    seed : int
        Chooses among equal shares. A subject who is added moves few others.

    Returns
    -------
    list of Fold
        Of one.

    Raises
    ------
    ConfigError
        A subject is not among the clips, or neither or both of `subjects` and `share` are given.
    TrainingImpossible
    """
    known = _subjects(clips)
    if bool(subjects) == (share is not None):
        raise ConfigError(
            f"holdout: subjects or a share must be given, and not both; got {list(subjects)} and {share}. Give one of them."
        )
    if share is not None:
        subjects = _share_of(known, share, str(seed))
    _refuse_unknown("holdout: held-out subject", subjects, known)
    if set(subjects) == set(known):
        raise TrainingImpossible(
            f"holdout: a subject must be left to train on; got all {len(known)} held out. Hold out fewer."
        )
    return [_fold(clips, "holdout", subjects)]


def cross(clips: Clips, train_on: Sequence[str], test_on: Sequence[str]) -> list[Fold]:
    """Return one fold that trains on some data sets and is tested on others; clips of neither are not used.

    Parameters
    ----------
    clips : Clips
    train_on, test_on : sequence of str
        Data sets.

    Returns
    -------
    list of Fold
        Of one.

    Raises
    ------
    ConfigError
        A data set is not among the clips, or on both sides.
    """
    for what, names in (("train_on", train_on), ("test_on", test_on)):
        if not names:
            raise ConfigError(f"cross: {what} must name a data set; got none. Give one.")
        _refuse_unknown(f"cross: {what}", names, sorted(set(clips.dataset)))
    both = sorted(set(train_on) & set(test_on))
    if both:
        raise ConfigError(
            f"cross: a data set must be on one side; got {listed(both)} on both. Take it from train_on or test_on."
        )
    train = tuple(row for row, name in enumerate(clips.dataset) if name in train_on)
    test = tuple(row for row, name in enumerate(clips.dataset) if name in test_on)
    name = file_name(f"{'+'.join(sorted(set(train_on)))}/{'+'.join(sorted(set(test_on)))}")
    return [Fold(name, frozenset(clips.subject[row] for row in test), train, test)]


def everybody(clips: Clips) -> list[Fold]:
    """Return one fold that trains on all clips and holds out nobody: for a network to be used, not to be scored.

    Parameters
    ----------
    clips : Clips

    Returns
    -------
    list of Fold
        Of one.
    """
    return [Fold("everybody", frozenset(), tuple(range(len(clips))), ())]


def split(clips: Clips, fold: Fold) -> tuple[Clips, Clips]:
    """Return training clips and held-out clips of a fold, proven to have no subject and no source in common.

    Parameters
    ----------
    clips : Clips
    fold : Fold
        Not trusted: all is looked up in the clips.

    Returns
    -------
    Clips
        All that the trainer may see.
    Clips
        The held-out ones; none, if the fold holds out nobody.

    Raises
    ------
    LeakError
        A subject or a source (by its hash) is on both sides, named; or a source is not known.
    TrainingImpossible
        A side is empty, or a class has no clip to train on.
    """
    for side, rows in (("training", fold.train), ("held-out", fold.test)):
        if not rows and side == "held-out" and not fold.held_out:
            continue
        if not rows:
            raise TrainingImpossible(
                f"fold {fold.name}: {side} side must hold a clip; got none. Hold out other subjects."
            )
        if len(set(rows)) < len(rows) or min(rows) < 0 or max(rows) >= len(clips):
            raise ConfigError(
                f"fold {fold.name}: rows of the {side} side must be different ones below {len(clips)}; got others. Make the "
                "folds anew from these clips."
            )
    _check_subjects(clips, fold)
    _check_sources(clips, fold)
    _check_classes(clips, fold)
    return clips.select(fold.train), clips.select(fold.test)


def inner_split(train: Clips, share: float, seed: int) -> tuple[Clips, Clips]:
    """Split training clips once more, by subject, for model selection; every class is on both sides.

    Parameters
    ----------
    train : Clips
        First part of `split`: the held-out subjects are not among them.
    share : float
        Of the subjects that are set aside, between 0 and 1.
    seed : int

    Returns
    -------
    Clips
        To train on.
    Clips
        Set aside, to choose by.

    Raises
    ------
    TrainingImpossible
        No choice of subjects that was tried leaves every class on both sides.
    ConfigError, LeakError
    """
    subjects = _subjects(train)
    wanted = set(train.classes) - set(train.lacking())
    for attempt in range(INNER_ATTEMPTS):
        fold = _fold(train, "inner", _share_of(subjects, share, f"{seed}/{attempt}"))
        if not wanted & {*train.lacking(fold.train), *train.lacking(fold.test)}:
            return split(train, fold)
    raise TrainingImpossible(
        f"inner split: a share of {share:g} of {len(subjects)} subjects must leave each of {len(wanted)} classes on both sides; "
        f"got no such choice in {INNER_ATTEMPTS}. Give clips of more subjects, or change the share."
    )


def complete(
    clips: Clips, folds: Sequence[Fold], rows: Sequence[Prediction], seeds: Iterable[int] | None = None
) -> None:
    """Refuse predictions that are not exactly one a seed for each held-out clip of each fold.

    Parameters
    ----------
    clips : Clips
    folds : sequence of Fold
    rows : sequence of Prediction
    seeds : iterable of int, optional
        That must be there; by default, those that are.

    Raises
    ------
    FoldsMissing
        Naming folds and seeds that are missing, partial, doubled or of other clips.
    """
    doubled = [name for name, number in Counter(fold.name for fold in folds).items() if number > 1]
    twice = [clips.clip_id[row] for row, n in Counter(row for fold in folds for row in fold.test).items() if n > 1]
    if doubled or twice:
        raise FoldsMissing(
            f"folds: each name and each held-out clip must occur once; got {listed(doubled + twice)} twice. Make the folds anew."
        )
    expected = {fold.name: {_key(clips, row) for row in fold.test} for fold in folds}
    found: dict[tuple[str, int], Counter[tuple[str, str, str]]] = {}
    for row in rows:
        found.setdefault((row.fold, row.seed), Counter())[row.dataset + "/" + row.clip_id, row.subject, row.truth] += 1
    wanted = sorted(set(seeds if seeds is not None else (row.seed for row in rows)))
    problems = list(_fold_problems(expected, found, wanted))
    if problems or not rows:
        raise FoldsMissing(
            f"folds: predictions must be whole, once a seed; got {listed(problems, between='; ') or 'none at all'}. Run the same "
            "fmanet train again to complete them."
        )


def file_name(subject: str) -> str:
    """A name that is safe in any file system and no other subject's: "casme2/sub01" becomes "casme2.sub01".

    Whatever else than letters, digits, - and _ is in a subject's name is replaced, and a hash put behind it.
    """
    parts = subject.split("/", 1)
    plain = ".".join(re.sub("[^A-Za-z0-9_-]", "-", part) for part in parts)
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    if all(_PLAIN.fullmatch(part) for part in parts) and len(plain) <= LONGEST_NAME and not plain.startswith("-"):
        return plain
    stem = plain.replace(".", "-").strip("-")[: LONGEST_NAME - 13]
    return f"{stem or 'subject'}.x.{digest}"


def _fold(clips: Clips, name: str, held_out: Sequence[str]) -> Fold:
    chosen = frozenset(held_out)
    test = tuple(row for row, subject in enumerate(clips.subject) if subject in chosen)
    train = tuple(row for row, subject in enumerate(clips.subject) if subject not in chosen)
    return Fold(name, chosen, train, test)


def _subjects(clips: Clips) -> list[str]:
    found = sorted(set(clips.subject))
    if len(found) < 2:
        raise TrainingImpossible(
            f"clips: two subjects or more must be there, one to hold out and one to train on; got {listed(found) or 'none'}. Add "
            "clips of other subjects."
        )
    return found


def _share_of(subjects: Sequence[str], share: float, seed: str) -> list[str]:
    """A share of the subjects, in an order that only seed and name decide."""
    if not (math.isfinite(share) and 0 < share < 1):
        raise ConfigError(f"held out: share of subjects must lie between 0 and 1; got {share}. Correct it.")
    number = min(max(1, round(share * len(subjects))), len(subjects) - 1)
    return sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())[:number]


def _check_subjects(clips: Clips, fold: Fold) -> None:
    train, test = ({clips.subject[row] for row in rows} for rows in (fold.train, fold.test))
    unheld = sorted(test - fold.held_out)
    if unheld:
        raise LeakError(
            f"fold {fold.name}: held-out clips must be of held-out subjects; got clips of {listed(unheld)}. Make the folds anew."
        )
    held = {_person(subject) for subject in fold.held_out | test}
    both = sorted(subject for subject in train if _person(subject) in held)
    if both:
        raise LeakError(
            f"fold {fold.name}: training side must hold no clip of a held-out subject, however it is written; got clips of "
            f"{listed(both)}. Make the folds anew, or write subject and data set alike in every manifest."
        )


@cache
def _person(subject: str) -> str:
    """One name however it is written: capitals, blanks, other names of the data set and leading zeros do not count."""
    dataset, _, name = subject.partition("/")
    return f"{dataset_name(dataset)}/{re.sub('(?<![0-9])0+(?=[0-9])', '', name.strip().casefold())}"


def _check_sources(clips: Clips, fold: Fold) -> None:
    unknown = [clips.clip_id[row] for row in (*fold.train, *fold.test) if not clips.source_hash[row]]
    if unknown:
        raise LeakError(
            f"fold {fold.name}: hash of a clip's source must be known, to prove that it is on one side only; got none of "
            f"{listed(unknown)}. Extract or import the clips again."
        )
    train = {clips.source_hash[row]: row for row in fold.train}
    pairs = [
        f"{clips.clip_id[row]} of {clips.subject[row]} (held out) and {clips.clip_id[twin]} of {clips.subject[twin]} (training)"
        for row in fold.test
        if (twin := train.get(clips.source_hash[row])) is not None
    ]
    if pairs:
        raise LeakError(
            f"fold {fold.name}: a source must be on one side only; got the same files behind {listed(pairs, between='; ')}. Give "
            "the clips their true subject in the manifest, or remove one of each pair."
        )


def _check_classes(clips: Clips, fold: Fold) -> None:
    if missing := clips.lacking(fold.train):
        raise TrainingImpossible(
            f"fold {fold.name}: each class must have a clip to train on; got none of {listed(missing)} without "
            f"{listed(sorted(fold.held_out))}. Choose a grouping of labels without it, or hold out fewer subjects."
        )
    if len(clips.classes) < 2:
        raise TrainingImpossible(
            f"fold {fold.name}: two classes or more must be trained on; got {listed(clips.classes)}. Choose other labels."
        )


def _key(clips: Clips, row: int) -> tuple[str, str, str]:
    return clips.dataset[row] + "/" + clips.clip_id[row], clips.subject[row], clips.truth(row)


def _fold_problems(
    expected: Mapping[str, set[tuple[str, str, str]]],
    found: Mapping[tuple[str, int], Counter[tuple[str, str, str]]],
    seeds: Sequence[int],
) -> Iterator[str]:
    for name, clips in expected.items():
        for seed in seeds:
            rows = found.get((name, seed), Counter())
            missing, others = len(clips - set(rows)), len(set(rows) - clips)
            if any(number > 1 for number in rows.values()):
                yield f"{name}, seed {seed}: twice"
            elif missing == len(clips) and not others:
                yield f"{name}, seed {seed}: missing"
            elif missing or others:
                yield f"{name}, seed {seed}: {missing} of {len(clips)} clips missing, {others} that do not belong to it"
    for name, seed in sorted(found):
        if name not in expected or seed not in seeds:
            yield f"{name}, seed {seed}: not of this run"


def _refuse_unknown(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.5)
        near = near or [name for name in known if name.endswith(f"/{unknown[0]}")][:3]
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"{what} must be one of {listed(known)}; got {listed(unknown)}.{guess} Correct the name.")
