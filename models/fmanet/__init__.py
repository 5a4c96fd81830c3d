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
    from fmanet.networks import register_network
    from fmanet.own_networks.naming import own_network
    from fmanet.protocol import Fold, complete, cross, holdout, inner_split, loso, split
    from fmanet.run_options import RunOptions
    from fmanet.scoring.intervals import Difference, Interval, Intervals, paired_difference, subject_interval
    from fmanet.scoring.metrics import Scores, by_seed, score, score_rows, seed_average
    from fmanet.scoring.prediction_table import Prediction, prediction_rows
    from fmanet.settings import AugmentSettings, NetworkConfig, ProtocolSettings, RunSettings, TrainSettings
    from fmanet.training import Trained, predict, train
    from fmanet.training_run import Summary, train_run

_HOME = {
    "AugmentSettings": "fmanet.settings",
    "CheckpointRefused": "fmanet.errors",
    "ClipSource": "fmanet.fold_worker",
    "Clips": "fmanet.dataset",
    "Difference": "fmanet.scoring.intervals",
    "ExportMismatch": "fmanet.errors",
    "Fold": "fmanet.protocol",
    "FoldsMissing": "fmanet.errors",
    "Interval": "fmanet.scoring.intervals",
    "IntervalUndefined": "fmanet.errors",
    "Intervals": "fmanet.scoring.intervals",
    "LeakError": "fmanet.errors",
    "NetworkConfig": "fmanet.settings",
    "Prediction": "fmanet.scoring.prediction_table",
    "ProtocolSettings": "fmanet.settings",
    "RunOptions": "fmanet.run_options",
    "RunSettings": "fmanet.settings",
    "Scores": "fmanet.scoring.metrics",
    "ShardDataset": "fmanet.dataset",
    "Summary": "fmanet.training_run",
    "TableDamaged": "fmanet.errors",
    "TrainSettings": "fmanet.settings",
    "Trained": "fmanet.training",
    "TrainingDiverged": "fmanet.errors",
    "TrainingImpossible": "fmanet.errors",
    "build_network": "fmanet.building",
    "by_seed": "fmanet.scoring.metrics",
    "complete": "fmanet.protocol",
    "cross": "fmanet.protocol",
    "holdout": "fmanet.protocol",
    "inner_split": "fmanet.protocol",
    "loso": "fmanet.protocol",
    "own_network": "fmanet.own_networks.naming",
    "paired_difference": "fmanet.scoring.intervals",
    "predict": "fmanet.training",
    "predict_shards": "fmanet.inference",
    "prediction_rows": "fmanet.scoring.prediction_table",
    "register_network": "fmanet.networks",
    "score": "fmanet.scoring.metrics",
    "score_rows": "fmanet.scoring.metrics",
    "seed_average": "fmanet.scoring.metrics",
    "split": "fmanet.protocol",
    "subject_interval": "fmanet.scoring.intervals",
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
    "own_network",
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
