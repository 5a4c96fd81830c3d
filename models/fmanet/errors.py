"""What can go wrong in training and scoring, with the exit code that a command ends with; the rest is in `flowkit.errors`.

    FlowkitError                             1
    ├─ IntervalUndefined (ConfigError)       2   too few draws of subjects hold every class for an interval
    ├─ LeakError (ValueError)                2   something of the held-out side is on the training side
    ├─ TrainingImpossible (ValueError)       2   too few subjects, classes or finite numbers to train or hold out
    ├─ TrainingDiverged (ArithmeticError)    1   the loss is no number any more
    ├─ FoldsMissing                          1   a run lacks results of folds, or holds some twice
    ├─ TableDamaged (ValueError)             1   a table of predictions is not what was written
    ├─ CheckpointRefused (ValueError)        1   weights are damaged, hostile, or of another network
    └─ ExportMismatch                        1   an exported network does not answer as PyTorch does

Every message reads *where: name must be expectation; got value. Next step.*
"""

from __future__ import annotations

from flowkit.errors import ConfigError, FlowkitError

__all__ = [
    "CheckpointRefused",
    "ExportMismatch",
    "FoldsMissing",
    "IntervalUndefined",
    "LeakError",
    "TableDamaged",
    "TrainingDiverged",
    "TrainingImpossible",
]


class IntervalUndefined(ConfigError):
    """A class is in so few subjects that hardly any draw of them holds it: no interval can be given."""


class LeakError(FlowkitError, ValueError):
    """A subject or a source is on the held-out side and on the training side."""

    exit_code = 2


class TrainingImpossible(FlowkitError, ValueError):
    """The clips cannot be trained on, or cannot be parted: one subject, one class, a class without clips, no number."""

    exit_code = 2


class TrainingDiverged(FlowkitError, ArithmeticError):
    """The loss became infinite or no number."""


class FoldsMissing(FlowkitError):
    """Results of folds are missing, doubled, or belong to other clips, so nothing can be scored."""


class TableDamaged(FlowkitError, ValueError):
    """A table of predictions breaks its own rules; the message lists every problem, with its line."""


class CheckpointRefused(FlowkitError, ValueError):
    """Stored weights are damaged, of another network, or not the plain numbers they must be."""


class ExportMismatch(FlowkitError):
    """A network that was exported does not give the answers that it gives here; it is not published."""
