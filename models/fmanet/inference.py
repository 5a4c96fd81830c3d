"""Classes of clips that nobody has labelled: the mean of what all networks of a run say, or what a pretrained one says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from flowkit.errors import ConfigError
from flowkit.storage import durable_files
from fmanet import checkpoint, run_folder
from fmanet.dataset import Clips, ShardDataset
from fmanet.errors import CheckpointRefused
from fmanet.flow_origin import refuse_unknown
from fmanet.pretrained.model_folder import Model, read_model, refuse_unfit
from fmanet.pretrained.trust import real_trust, share_right, synthetic_trust, temperature_of, with_temperature
from fmanet.results import require_records
from fmanet.scoring.prediction_table import answer
from fmanet.settings import Face, TrainSettings
from fmanet.training import predict

COLUMNS = ("clip_id", "subject", "dataset", "prediction")
NO_GPU = "This run was trained on a GPU and none is here: probabilities come from the CPU, which rounds otherwise."


def predict_shards(run: Path, shards: Sequence[Path], out: Path, *, mixed_alignment: bool = False) -> list[str]:
    """Write a table of predictions of every clip of some shard folders.

    Columns: clip_id, subject, dataset, prediction, and p:CLASS for each class, averaged over all folds and seeds of the run.

    Parameters
    ----------
    run : Path
        A run folder, every fold of which was trained.
    shards : sequence of Path
        Labels need not be known.
    out : Path
        CSV file; replaced if it exists, and its folder is made if need be.
    mixed_alignment : bool
        Take shards that are aligned otherwise than those that the run was trained on.

    Returns
    -------
    list of str
        What a reader of the table should know.

    Raises
    ------
    FoldsMissing, CheckpointRefused, ShardCorrupt, ConfigError
    """
    facts, settings, plan = run_folder.open_run(run)
    run_folder.refuse_earlier(run, facts)
    records = require_records(run, facts, plan)
    side = facts["clips"]["shape"][-1]
    clips = ShardDataset(shards, None, size=side, face=settings.face, mixed_alignment=True).clips()
    if clips.units != facts["clips"]["units"]:
        raise ConfigError(
            f"predict: flow must be in {facts['clips']['units']!r}, as the run was trained on; got {clips.units!r}. Extract alike."
        )
    known = facts["clips"].get("alignment")
    if known and not mixed_alignment:
        refuse_unknown(shards, known)
    here = _on_this_machine(settings.train)
    classes = tuple(facts["clips"]["classes"])
    total = np.zeros((len(clips), settings.network.classes))
    for member in records:
        loaded = checkpoint.load(run_folder.record_path(run, plan, member))
        if loaded.classes != classes:
            raise CheckpointRefused(
                f"{run_folder.record_path(run, plan, member)}: classes must be those of the run ({', '.join(classes)}); got "
                f"{', '.join(loaded.classes)}. Do not trust this folder."
            )
        total += predict(loaded.model, clips, here)
    shares = total / len(records)
    _write(out, clips, classes, shares)
    elsewhere = here.device != settings.train.device
    return [*([NO_GPU] if elsewhere else []), *_notes(clips, facts["clips"])]


def predict_by_model(folder: Path, shards: Sequence[Path], out: Path, *, mixed_alignment: bool = False) -> list[str]:
    """Write a table of what a model folder, such as a pretrained one, says of every clip of some shard folders.

    Columns: clip_id, subject, dataset, prediction, p:CLASS for each class, and how often answers of such a probability are right:
    `right_synthetic` on synthetic people (`trust.synthetic_trust`), `right_real` on real clips, where it was measured.

    Parameters
    ----------
    folder : Path
        Of `fmanet pretrain`, or `fmanet.pretrained.model_folder.shipped`.
    shards : sequence of Path
        Labels need not be known.
    out : Path
        CSV file; replaced if it exists, and its folder is made if need be.
    mixed_alignment : bool
        Take shards that are aligned otherwise than those that the model is made for.

    Returns
    -------
    list of str
        What a reader of the table should know.

    Raises
    ------
    CheckpointRefused, ShardCorrupt, ConfigError
    """
    model = read_model(folder)
    refuse_unfit(model, shards, mixed_alignment=mixed_alignment)
    clips = ShardDataset(shards, None, size=model.size, face=cast(Face, model.face), mixed_alignment=True).clips()
    network = checkpoint.load(model.path).model
    settings = TrainSettings(flip_test=bool(model.content["flip_test"]))
    shares = with_temperature(predict(network, clips, settings), temperature_of(folder, model.content))
    known = {"synthetic": synthetic_trust(folder, model.content), "real": real_trust(folder)}
    columns = {f"right_{kind}": share_right(shares, found) for kind, found in known.items()}
    _write(out, clips, model.classes, shares, columns)
    return [*model_notes(known), *_unlike(clips, model)]


def model_notes(known: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return what whoever reads a pretrained network's answers should know."""
    real = known["real"]
    worth = f"on real clips UF1 {_score(real['uf1'])}" if real else "on real clips it was not measured"
    return [
        "This network has seen synthetic faces only. Its probabilities are calibrated on synthetic people (UF1 "
        f"{_score(cast(Any, known['synthetic'])['uf1'])}); {worth}. Its model card says what it is not for."
    ]


def _score(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found:.3f}"


def _unlike(clips: Clips, model: Model) -> list[str]:
    without = clips.carried.count(False)
    if model.face == "own" or not without:
        return []
    return [
        f"{without} of {len(clips)} clips have no landmarks, by which flow is carried onto the canonical face: trust these "
        "predictions less. Extract them with landmarks."
    ]


def _write(
    out: Path,
    clips: Clips,
    classes: Sequence[str],
    shares: npt.NDArray[np.float64],
    columns: Mapping[str, Sequence[float | None]] | None = None,
) -> None:
    """Write a table of predictions; `columns` come last."""
    more = columns or {}
    rows = (
        [
            *(clips.clip_id[n], clips.subject[n], clips.dataset[n], answer(own.tolist(), classes)),
            *own.tolist(),
            *(values[n] for values in more.values()),
        ]
        for n, own in enumerate(shares)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    header = [*COLUMNS, *(f"p:{name}" for name in classes), *more]
    durable_files.replace_file(out, run_folder.table(header, rows))


def _on_this_machine(settings: TrainSettings) -> TrainSettings:
    """The settings, or those of the CPU where the run had a GPU and there is none here."""
    if settings.device == "cpu" or torch.cuda.is_available():
        return settings
    return replace(settings, device="cpu", mixed_precision=False)


def _notes(clips: Clips, run: Mapping[str, Any]) -> list[str]:
    notes = []
    known = set(run["subjects"])
    if trained_on := sum(subject in known for subject in clips.subject):
        notes.append(
            f"{trained_on} of {len(clips)} clips are of subjects of the run itself: some networks were trained on them, so these "
            "predictions say nothing about accuracy. For that, see predictions.csv of the run."
        )
    lacks = {
        "carried": "landmarks, by which the run carried the flow",
        "with_action_units": "strengths of action units, which the run knew",
    }
    for name, what in lacks.items():
        without, had = getattr(clips, name).count(False), run.get(name, 0)
        if without and had:
            notes.append(
                f"{without} of {len(clips)} clips have no {what} of {had} of {run['count']} training clips: trust these "
                "predictions less. Extract them as those of the run."
            )
    return notes
