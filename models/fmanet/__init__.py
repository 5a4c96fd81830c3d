"""FMANet: a light network for micro-expressions, trained from flowkit's shards with one subject held out at a time.

    import fmanet

    clips = fmanet.ShardDataset([Path("out")], "3-class").clips()
    for fold in fmanet.loso(clips):
        training, held_out = fmanet.split(clips, fold)
        trained = fmanet.train(training, fmanet.NetworkConfig(), fmanet.TrainSettings(), seed=0)

`fmanet.train_run` does the whole protocol in worker processes, as the command `fmanet train` does; `fmanet.register_network` makes
a network of your own known. Names are loaded on first use: importing this loads neither torch nor the kernels.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmanet.building import build_network
    from fmanet.dataset import Clips, ShardDataset
    from fmanet.errors import (
        CheckpointRefused,
        ExportMismatch,
        FoldsMissing,
        IntervalUndefined,
        LeakError,
        TableDamaged,
        TrainingDiverged,
        TrainingImpossible,
    )
    from fmanet.fold_worker import ClipSource
    from fmanet.inference import predict_shards
    from fmanet.intervals import Difference, Interval, Intervals, paired_difference, subject_interval
    from fmanet.metrics import Scores, by_seed, score, score_rows, seed_average
    from fmanet.networks import register_network
    from fmanet.prediction_table import Prediction, prediction_rows
    from fmanet.protocol import Fold, complete, cross, holdout, inner_split, loso, split
    from fmanet.settings import (
        AugmentSettings,
        NetworkConfig,
        ProtocolSettings,
        RunOptions,
        RunSettings,
        TrainSettings,
    )
    from fmanet.training import Trained, predict, train
    from fmanet.training_run import Summary, train_run

_HOME = {
    "AugmentSettings": "fmanet.settings",
    "CheckpointRefused": "fmanet.errors",
    "ClipSource": "fmanet.fold_worker",
    "Clips": "fmanet.dataset",
    "Difference": "fmanet.intervals",
    "ExportMismatch": "fmanet.errors",
    "Fold": "fmanet.protocol",
    "FoldsMissing": "fmanet.errors",
    "Interval": "fmanet.intervals",
    "IntervalUndefined": "fmanet.errors",
    "Intervals": "fmanet.intervals",
    "LeakError": "fmanet.errors",
    "NetworkConfig": "fmanet.settings",
    "Prediction": "fmanet.prediction_table",
    "ProtocolSettings": "fmanet.settings",
    "RunOptions": "fmanet.settings",
    "RunSettings": "fmanet.settings",
    "Scores": "fmanet.metrics",
    "ShardDataset": "fmanet.dataset",
    "Summary": "fmanet.training_run",
    "TableDamaged": "fmanet.errors",
    "TrainSettings": "fmanet.settings",
    "Trained": "fmanet.training",
    "TrainingDiverged": "fmanet.errors",
    "TrainingImpossible": "fmanet.errors",
    "build_network": "fmanet.building",
    "by_seed": "fmanet.metrics",
    "complete": "fmanet.protocol",
    "cross": "fmanet.protocol",
    "holdout": "fmanet.protocol",
    "inner_split": "fmanet.protocol",
    "loso": "fmanet.protocol",
    "paired_difference": "fmanet.intervals",
    "predict": "fmanet.training",
    "predict_shards": "fmanet.inference",
    "prediction_rows": "fmanet.prediction_table",
    "register_network": "fmanet.networks",
    "score": "fmanet.metrics",
    "score_rows": "fmanet.metrics",
    "seed_average": "fmanet.metrics",
    "split": "fmanet.protocol",
    "subject_interval": "fmanet.intervals",
    "train": "fmanet.training",
    "train_run": "fmanet.training_run",
}

__all__ = [
    "AugmentSettings",
    "CheckpointRefused",
    "ClipSource",
    "Clips",
    "Difference",
    "ExportMismatch",
    "Fold",
    "FoldsMissing",
    "Interval",
    "IntervalUndefined",
    "Intervals",
    "LeakError",
    "NetworkConfig",
    "Prediction",
    "ProtocolSettings",
    "RunOptions",
    "RunSettings",
    "Scores",
    "ShardDataset",
    "Summary",
    "TableDamaged",
    "TrainSettings",
    "Trained",
    "TrainingDiverged",
    "TrainingImpossible",
    "build_network",
    "by_seed",
    "complete",
    "cross",
    "holdout",
    "inner_split",
    "loso",
    "paired_difference",
    "predict",
    "predict_shards",
    "prediction_rows",
    "register_network",
    "score",
    "score_rows",
    "seed_average",
    "split",
    "subject_interval",
    "train",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fmanet' has no attribute {name!r}")
