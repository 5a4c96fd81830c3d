"""Every error of the project, with the exit code that a command ends with.

    FlowkitError                                1
    ├─ ShapeError, ParameterError               2   from flowkit_kernels
    ├─ BackendUnavailable                       3   from flowkit_kernels
    ├─ DeviceOutOfMemory (MemoryError)          3   from flowkit_kernels: a clip's GPU_OOM, never a run's end
    ├─ DeviceLost (RuntimeError)               75   from flowkit_kernels: no GPU of the run works any more; run again
    ├─ ConfigError (ValueError)                 2   a setting is unknown or out of range
    │  └─ SettingsChanged                       2   the folder was made with other settings
    ├─ ManifestError (ValueError)               2   the manifest cannot be used as a whole
    ├─ EnvironmentMissing (RuntimeError)        3   a library, a model or a folder is missing
    ├─ ShardCorrupt (ValueError)                1   a stored byte is not what was committed
    │  └─ SchemaTooNew                          1   written by a newer flowkit
    ├─ TooManyFailures                          1   the share of failed clips passed --max-error-rate
    ├─ ClusterLost (RuntimeError)              75   the cluster could not finish the run; run again
    ├─ DiskFull (OSError)                      74   no space left; free some and run again
    ├─ Interrupted                            130   Ctrl-C
    │  └─ Terminated                           75   SIGTERM: requeue, run again
    └─ ClipError                                -   one clip failed; recorded, never ends a run

Every message reads *where: name must be expectation; got value. Next step.*
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from flowkit_kernels.errors import (
    BackendUnavailable,
    DeviceLost,
    DeviceOutOfMemory,
    FlowkitError,
    ParameterError,
    ShapeError,
)

__all__ = [
    "BackendUnavailable",
    "ClipError",
    "ClusterLost",
    "ConfigError",
    "DeviceLost",
    "DeviceOutOfMemory",
    "DiskFull",
    "EnvironmentMissing",
    "FailureCode",
    "FlowkitError",
    "Interrupted",
    "ManifestError",
    "ParameterError",
    "SchemaTooNew",
    "SettingsChanged",
    "ShapeError",
    "ShardCorrupt",
    "Terminated",
    "TooManyFailures",
]


class ConfigError(FlowkitError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class SettingsChanged(ConfigError):
    """The output folder holds shards made with other settings."""


class ManifestError(FlowkitError, ValueError):
    """The manifest cannot be used; the message lists every problem found, with its line."""

    exit_code = 2


class EnvironmentMissing(FlowkitError, RuntimeError):
    """A system library, a package, a model file or a usable folder is missing."""

    exit_code = 3


class ShardCorrupt(FlowkitError, ValueError):
    """A stored file is not, byte for byte, what was committed, or breaks the schema."""


class SchemaTooNew(ShardCorrupt):
    """The file was written by a newer version of flowkit."""


class TooManyFailures(FlowkitError):
    """The share of failed clips passed the limit, and the run was stopped."""


class ClusterLost(FlowkitError, RuntimeError):
    """The cluster could not finish the run; what was committed stays, the rest runs next time."""

    exit_code = 75


class DiskFull(FlowkitError, OSError):
    """No space (or quota) is left where the shards go."""

    exit_code = 74


class Interrupted(FlowkitError):
    """The user pressed Ctrl-C; what was committed stays, the rest runs next time."""

    exit_code = 130


class Terminated(Interrupted):
    """SIGTERM came (a scheduler, a shutdown); what was committed stays, the rest runs next time."""

    exit_code = 75


class FailureCode(StrEnum):
    """Why a clip failed: the closed list of what can stand in failures.csv, each code with what it means.

    Attributes
    ----------
    meaning : str
        A sentence for people.
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        """Make a member that equals its code and carries its meaning."""
        member = str.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    FRAME_MISSING = "FRAME_MISSING", "No file, or no decodable frame, has that number."
    FRAME_AMBIGUOUS = "FRAME_AMBIGUOUS", "Two files of the folder have that number."
    PATH_REFUSED = "PATH_REFUSED", "A link leads out of the root."
    IMAGE_UNREADABLE = "IMAGE_UNREADABLE", "Not an image, empty, or of a format that is not accepted."
    IMAGE_TRUNCATED = "IMAGE_TRUNCATED", "The image file ends too early."
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE", "The image has more pixels than any camera gives."
    IMAGE_TOO_SMALL = "IMAGE_TOO_SMALL", "The image is too small for a flow that means something."
    IMAGE_DEPTH = "IMAGE_DEPTH", "The bit depth cannot be told; declare it (frames.bit_depth)."
    VIDEO_UNREADABLE = "VIDEO_UNREADABLE", "The video cannot be opened or decoded."
    VIDEO_FORMAT_REFUSED = "VIDEO_FORMAT_REFUSED", "The video's container is outside the allowed list."
    ANNOTATION_RANGE = "ANNOTATION_RANGE", "Apex or offset lies outside its range."
    APEX_MISSING = "APEX_MISSING", "The apex is empty (see frames.missing_apex)."
    OFFSET_MISSING = "OFFSET_MISSING", "The offset is empty (see frames.missing_offset)."
    PHASE_INVALID = "PHASE_INVALID", "A phase has no length, under frames.strict_phases."
    SIZE_MISMATCH = "SIZE_MISMATCH", "The three frames differ in size."
    FACE_NOT_FOUND = "FACE_NOT_FOUND", "No face was found in the onset."
    FACE_LOST = "FACE_LOST", "No face was found in the apex or offset: a cut, or something in front of the face."
    LANDMARKS_MISSING = "LANDMARKS_MISSING", "The landmark file says nothing of this clip."
    REGISTRATION_FAILED = (
        "REGISTRATION_FAILED",
        "Apex or offset does not match the onset's face: the head moved too far.",
    )
    FLOW_NONFINITE = "FLOW_NONFINITE", "The flow holds values that are no numbers."
    FLOW_RANGE = "FLOW_RANGE", "A displacement is larger than the face itself."
    SOURCE_CHANGED = "SOURCE_CHANGED", "The file changed while it was read."
    SOURCE_CHECKSUM = "SOURCE_CHECKSUM", "The content is not what the manifest or the shard says."
    WORKER_CRASH = "WORKER_CRASH", "The worker process died on this clip twice."
    TIMEOUT = "TIMEOUT", "The worker process hung on this clip twice (see flowkit extract --timeout)."
    GPU_OOM = "GPU_OOM", "The clip alone does not fit into the free memory of the GPU."
    INTERNAL = "INTERNAL", "A fault of flowkit: please report it."


class ClipError(FlowkitError):
    """One clip cannot be used: a code of the closed list, and what to do about it.

    Parameters
    ----------
    code : FailureCode
    message : str
        *where: name must be expectation; got value. Next step.*
    path : str
        The file concerned, relative to the root; empty if none is.
    """

    def __init__(self, code: FailureCode, message: str, path: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path

    def __reduce__(self) -> tuple[type[ClipError], tuple[FailureCode, str, str]]:
        """Pickle by the three arguments: it crosses process borders."""
        return (ClipError, (self.code, self.message, self.path))
