"""What can go wrong in the kernels, and the root of the whole project's error tree.

The root lives here because this package imports nothing else of ours; `flowkit.errors` grows the rest of the tree.

    FlowkitError
    ├─ ShapeError (ValueError)            shape, dtype or value of an array
    ├─ ParameterError (ValueError)        a solver parameter out of its range
    └─ BackendUnavailable (RuntimeError)  the chosen backend cannot run on this machine

Every message reads *where: name must be expectation; got value. Next step.*
"""

from __future__ import annotations


class FlowkitError(Exception):
    """Root of every error that the project raises on purpose.

    `exit_code` is what a command returns when the error ends it.
    """

    exit_code = 1


class ShapeError(FlowkitError, ValueError):
    """An array has a shape, dtype or value that the operation cannot take."""

    exit_code = 2


class ParameterError(FlowkitError, ValueError):
    """A parameter lies outside its range."""

    exit_code = 2


class BackendUnavailable(FlowkitError, RuntimeError):
    """The chosen backend cannot run on this machine."""

    exit_code = 3
