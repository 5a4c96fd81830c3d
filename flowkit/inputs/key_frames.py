"""The three frames of a clip that will be read, and the policies for those that are missing."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.clip import APEX_SOURCE, SPOT_PROBLEM, ApexSource, Clip


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """The frame numbers that will be read, and what they mean.

    `phase_valid` is (rise, fall): False where the phase has no length, or its frame is missing under
    `missing_offset="invalid"`; `offset` is then None or the number that made it so.
    """

    onset: int
    apex: int
    offset: int | None
    apex_source: ApexSource
    phase_valid: tuple[bool, bool]


def key_frames(
    clip: Clip,
    missing_apex: str = "fail",
    missing_offset: str = "fail",
    strict_phases: bool = False,
    spotted: int | None = None,
) -> KeyFrames:
    """Onset, apex and offset of a clip after the declared policies.

    Parameters
    ----------
    clip : Clip
    missing_apex : {"fail", "midpoint", "offset", "spot"}
        What an empty apex means.
    missing_offset : {"fail", "invalid"}
        What an empty offset means.
    strict_phases : bool
        Whether a phase of no length fails the clip.
    spotted : int, optional
        The apex that was found, for "spot".

    Returns
    -------
    KeyFrames

    Raises
    ------
    ClipError
        ANNOTATION_RANGE, APEX_MISSING, OFFSET_MISSING or PHASE_INVALID.
    """
    reason = dict(clip.extra).get(SPOT_PROBLEM, "")
    if clip.apex is None and reason:
        raise ClipError(
            FailureCode.APEX_MISSING,
            f"{clip.where}: nothing was spotted in this recording: {reason} Leave the row out, or write onset, apex and offset "
            f"into it and empty {SPOT_PROBLEM}.",
        )
    if clip.offset is None and missing_offset == "fail":
        raise ClipError(
            FailureCode.OFFSET_MISSING,
            f"{clip.where}: offset must be a frame number; got an empty cell. Fill it in, or extract into a new folder with "
            "frames.missing_offset=invalid.",
        )
    apex, source = _apex(clip, missing_apex, spotted)
    end = apex if clip.offset is None else clip.offset
    if not clip.onset <= apex <= end:
        raise ClipError(
            FailureCode.ANNOTATION_RANGE,
            f"{clip.where}: apex must lie between onset and offset; got onset={clip.onset}, apex={apex}, "
            f"offset={clip.offset}. Correct the manifest.",
        )
    valid = (apex > clip.onset, clip.offset is not None and clip.offset > apex)
    if strict_phases and not all(valid):
        phase = "rise" if not valid[0] else "fall"
        raise ClipError(
            FailureCode.PHASE_INVALID,
            f"{clip.where}: {phase} must have a length under frames.strict_phases; got onset={clip.onset}, apex={apex}, "
            f"offset={clip.offset}. Correct the manifest, or leave that setting out.",
        )
    return KeyFrames(clip.onset, apex, clip.offset, source, valid)


def _apex(clip: Clip, missing_apex: str, spotted: int | None) -> tuple[int, ApexSource]:
    if clip.apex is not None:
        stated = dict(clip.extra).get(APEX_SOURCE)
        return clip.apex, "spotted" if stated == "spotted" else "annotated"
    if spotted is not None:
        return spotted, "spotted"
    if missing_apex in ("fail", "spot") or clip.offset is None:
        raise ClipError(
            FailureCode.APEX_MISSING,
            f"{clip.where}: apex must be a frame number; got an empty cell. Fill it in, or extract into a new folder with "
            "frames.missing_apex=spot, midpoint or offset (the last two need an offset).",
        )
    if missing_apex == "offset":
        return clip.offset, "offset"
    return (clip.onset + clip.offset) // 2, "midpoint"
