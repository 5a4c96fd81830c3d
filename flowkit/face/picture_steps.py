"""What is done to each picture after the motion of the head was undone in it: one `Step` after the other.

`BUNDLED` lists flowkit's own steps, in order. The setting `align.steps` names further ones, which run after them. A step may leave
a record: numbers for each frame. A record that has the name of a shard's column is stored there, any other in the column `extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig
from flowkit.errors import ClipError, ConfigError, FailureCode
from flowkit.face.head_shape import HeadShape
from flowkit.face.registration import Image, match_light
from flowkit.face.shading import match_shading
from flowkit.named_code import load, pinned
from flowkit.storage.schema import COLUMNS, SPOTTED

Record = Mapping[str, Sequence[float]]
"""Numbers of one frame by name of the record."""
SETTING: Final = "align.steps"
MOST_NUMBERS: Final = 256
"""Of all records of a step, in one frame: they are stored as text, whose length is limited."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a step may look at. It changes none of it.

    Attributes
    ----------
    onset : (N, N) float32
        Crop of the onset, grey in [0, 1].
    picture : (N, N) float32
        The other frame on the grid of the onset, as the steps before left it: values may lie a little outside [0, 1].
    face : (N, N) bool
        Pixels that show the face.
    head : HeadShape
        The face at the onset, as a surface over the crop.
    samples : (GRID, GRID) bool
        Where head motion and expression are fitted: see `regions.fit_samples`.
    turn : (2,) float64
        Yaw and pitch of the head that were undone in the picture, radians.
    """

    onset: Image
    picture: Image
    face: npt.NDArray[np.bool_]
    head: HeadShape
    samples: npt.NDArray[np.bool_]
    turn: npt.NDArray[np.float64]


def always(_: AlignConfig) -> bool:
    """Return True: the step is on whatever the settings are."""
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One thing that is done to a picture.

    Attributes
    ----------
    name : str
        What messages call it.
    apply : callable
        Returns the new picture, (N, N) float32, and the record of the frame. It is called for apex and offset, in any order and
        in several processes, and must depend on the view alone. The onset is never changed.
    at_rest : mapping of str to sequence of float
        The record of a frame that nothing was done to: what the step records, under which names, and how many numbers each time.
    is_on : callable
        Whether the step is applied under these settings. Where it is not, `at_rest` is stored.
    version : str
        Of a step outside the package: part of the settings of a run. Change it with everything that changes a result.
    """

    name: str
    apply: Callable[[View], tuple[Image, Record]]
    at_rest: Record = field(default_factory=lambda: MappingProxyType({}))
    is_on: Callable[[AlignConfig], bool] = always
    version: str = ""


def _light(view: View) -> tuple[Image, Record]:
    picture, gain, offset = match_light(view.onset, view.picture, view.face)
    return picture, {"light": (gain, offset)}


def _shading(view: View) -> tuple[Image, Record]:
    return match_shading(view.onset, view.picture, view.head, view.samples, view.turn), {}


def _matches_light(config: AlignConfig) -> bool:
    return config.match_light


BUNDLED: Final = (
    Step("light", _light, {"light": (1.0, 0.0)}, _matches_light),
    Step("shading", _shading, is_on=_matches_light),
)
"""flowkit's own steps, in order."""


def steps_of(config: AlignConfig, columns: Iterable[str] = ()) -> tuple[Step, ...]:
    """Return all steps under these settings, in order: the bundled ones, then those that `align.steps` names.

    Parameters
    ----------
    config : AlignConfig
    columns : iterable of str
        Further columns of the manifest: they are stored under their names, so no record may have one of these.

    Raises
    ------
    ConfigError
        Listing every name that cannot be imported, is no `Step`, has no version or another one, or whose records cannot be stored.
    """
    steps, problems = list(BUNDLED), list[str]()
    for name in config.steps:
        try:
            steps.append(_from_outside(name, steps, columns))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(steps)


def at_rest(steps: Sequence[Step]) -> Record:
    """Return the record of a frame that nothing was done to."""
    return {name: values for step in steps for name, values in step.at_rest.items()}


def applied(steps: Sequence[Step], view: View, where: str) -> tuple[Image, Record]:
    """Apply steps, one after the other.

    Parameters
    ----------
    steps : sequence of Step
        Those that are on.
    view : View
    where : str
        What messages call the frame.

    Returns
    -------
    picture : (N, N) float32
        Not clipped.
    record : mapping of str to sequence of float

    Raises
    ------
    ClipError
        INTERNAL: a step from outside raised something else.
    ConfigError
        A step from outside returned something that is no picture, or another record than it announced.
    """
    found: dict[str, Sequence[float]] = {}
    for step in steps:
        picture, record = step.apply(view) if step in BUNDLED else _applied_from_outside(step, view, where)
        view = replace(view, picture=picture)
        found.update(record)
    return view.picture, found


def _from_outside(name: str, before: Sequence[Step], columns: Iterable[str]) -> Step:
    step = load(name, SETTING)
    if not isinstance(step, Step):
        raise ConfigError(
            f"settings: {SETTING}: {name} must be a flowkit.face.picture_steps.Step; got {type(step).__name__}. Name a Step."
        )
    pinned(name, SETTING)
    reserved = {column.name for column in COLUMNS} | {*SPOTTED, *at_rest(before), *columns}
    if taken := sorted(reserved.intersection(step.at_rest)):
        raise ConfigError(
            f"settings: {SETTING}: {name}: its records must have names of their own; got {', '.join(taken)}, which columns of the "
            "shard or of the manifest, or records of other steps have. Rename them."
        )
    numbers = [np.asarray(values) for values in step.at_rest.values()]
    if any(one.ndim != 1 or one.dtype.kind not in "fiu" for one in numbers) or sum(map(len, numbers)) > MOST_NUMBERS:
        raise ConfigError(
            f"settings: {SETTING}: {name}: at_rest must hold sequences of numbers, at most {MOST_NUMBERS} in all. Correct it."
        )
    return step


def _applied_from_outside(step: Step, view: View, where: str) -> tuple[Image, Record]:
    try:
        result, numbers = step.apply(view)
        picture = np.asarray(result, np.float32)
        record = {name: tuple(map(float, values)) for name, values in numbers.items()}
    except ClipError:
        raise
    except Exception as error:  # code of others may raise anything
        raise ClipError(
            FailureCode.INTERNAL,
            f"{where}: the step {step.name} of {SETTING} raised {type(error).__name__}: {error}. Correct the step.",
        ) from error
    lengths, announced = ({name: len(values) for name, values in one.items()} for one in (record, step.at_rest))
    if picture.shape != view.picture.shape or lengths != announced:
        raise ConfigError(
            f"settings: {SETTING}: the step {step.name} must return a picture of shape {view.picture.shape} and as many numbers as "
            f"its at_rest has ({announced}); got the shape {picture.shape} and {lengths}. Correct the step."
        )
    return picture, record
