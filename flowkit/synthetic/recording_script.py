"""What synthetic people do in a recording of minutes: settings, events, and the slow movement beneath them, drawn by seed.

Time is in seconds, and nothing here depends on the frame rate: the same people at 30 and at 200 frames per second do the same.

An *event* is a path of values through key times: weights of action units for a face, a pose for a head, a gain for the light.
Between keys values change as `draws.smooth` does, so each key is a moment of rest. What is seen at a moment is the sum of all paths
and of the slow wander that never ends.

- Micro- and macro-expressions, one per 8 and 15 s, at least 1 s apart: the combinations of `expressions.py`. They rise, stay a
  while, fall by way of what the movement leaves or brings at its end, and vanish.
- Blinks every 2 to 8 s, talking, turns and shifts of the head, changes of light: at moments of their own, during expressions too.
  Only talking keeps away from macro-expressions: together they would move one mouth further than it goes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from flowkit.face.face_mesh import BLINK, BOTH, LEFT, RIGHT, Array
from flowkit.synthetic.draws import generator, smooth
from flowkit.synthetic.expressions import BOTH_SIDED, Weights, draw_movement
from flowkit.synthetic.scene_settings import LABELS, PEAK_SHARE, SynthConfig, check

Kind = Literal["micro", "macro", "blink", "talking", "turn", "light"]
Rng = np.random.Generator

MICRO_EVERY_S: Final = 8.0
MACRO_EVERY_S: Final = 15.0
APART_S: Final = 1.0
"""Least time between two expressions."""
MACRO_TIMES: Final = 3.0
"""Macro-expressions and speech move so many times further than micro-expressions."""
LEAST_S: Final = 2.0
"""Shortest recording."""
_MARGIN_S = 0.5
"""Nothing happens so soon after the beginning or before the end."""
_MICRO_S, _MACRO_S = (0.2, 0.5), (0.5, 4.0)
_MICRO_PARTS = (0.3, 0.05, 0.25, 0.1), (0.5, 0.1, 0.4, 0.2)
_MACRO_PARTS = (0.15, 0.2, 0.2, 0.1), (0.35, 0.8, 0.4, 0.3)
"""Least and largest lengths of rise, stay, fall and the way back to rest, relative to each other."""
_BLINK_EVERY_S, _CLOSING_S = (2.0, 8.0), (0.06, 0.11)
_TALKING_S, _SILENT_S, _SYLLABLES_HZ = (1.5, 8.0), (4.0, 14.0), (3.0, 6.0)
_TURN_EVERY_S, _TURNING_S, _LOOKING_S = (6.0, 16.0), (0.4, 1.5), (0.3, 4.0)
_LIGHT_EVERY_S, _SUDDEN_S, _SLOW_S, _LIGHT_TIMES = (10.0, 30.0), (0.02, 0.1), (1.5, 5.0), 4.0
_WANDER_SHARE = 0.125
"""The slow movement of the head, relative to the largest turn or shift."""
_WANDER_HZ = (0.03, 0.3)


@dataclass(frozen=True, slots=True)
class RecordingConfig:
    """What a set of recordings looks like, one per synthetic person.

    Attributes
    ----------
    subjects : int
    seconds : float
        Length of each recording, from 2 to 3600.
    classes : tuple of str, optional
        Labels of the expressions, from `LABELS`; all of them by default.
    seed, width, height, pose_deg, exposure, tone, flat, face3d
        As of `SynthConfig`.
    fps : float
        From 10 to 1000. It decides which moments are seen, not what happens.
    format : {"mp4", "mkv"}
        H.264, or FFV1, which is lossless.
    crf : int
        Constant rate factor of H.264, 0 (lossless) to 51 (worst).
    peak_px : (float, float), optional
        Smallest and largest peak of micro-expressions, px; macro-expressions and speech move three times as far. By default 0.5 to
        2, scaled down in frames too small for it.
    noise : float
        Standard deviation of the noise of each frame, grey levels.
    drift_px, drift_deg, drift_scale : float
        Largest shift of the head along each axis, turn in the plane, and change of its relative size. The slow wander has an
        eighth of it.
    turn_deg : float
        Largest turn out of the plane.
    light : float
        Relative change of brightness that goes on all the time, at most; changes at once are up to four times as large.
    lamp_deg : float
        How far the direction of the light wanders.
    stray : float
        Share of expressions with an action unit beside those of their label.
    motion_blur : float
        How long the shutter is open, as a share of the time between frames.
    """

    subjects: int = 5
    seconds: float = 120.0
    classes: tuple[str, ...] | None = None
    seed: int = 0
    width: int = 320
    height: int = 320
    fps: float = 30.0
    format: Literal["mp4", "mkv"] = "mp4"
    crf: int = 10
    peak_px: tuple[float, float] | None = None
    noise: float = 2.0
    drift_px: float = 6.0
    drift_deg: float = 3.0
    drift_scale: float = 0.02
    turn_deg: float = 15.0
    pose_deg: float = 4.0
    light: float = 0.02
    lamp_deg: float = 3.0
    exposure: float = 1.0
    tone: tuple[float, float] = (0.4, 1.05)
    flat: bool = False
    stray: float = 0.25
    motion_blur: float = 0.0
    face3d: str = ""

    def __post_init__(self) -> None:
        check(LEAST_S <= self.seconds <= 3600, "seconds", f"from {LEAST_S:g} to 3600", self.seconds)
        check(10 <= self.fps <= 1000, "fps", "from 10 to 1000 in recordings", self.fps)
        check(self.format in ("mp4", "mkv"), "format", "mp4 or mkv: recordings are videos", self.format)
        _ = self.camera  # checks the rest

    @property
    def camera(self) -> SynthConfig:
        """Those settings that clips have too."""
        known = {field.name for field in dataclasses.fields(SynthConfig)}
        return SynthConfig(**{name: value for name, value in dataclasses.asdict(self).items() if name in known})

    @property
    def frames(self) -> int:
        """Frames of each recording."""
        return round(self.seconds * self.fps)

    def peaks_px(self, kind: Kind) -> tuple[float, float]:
        """Smallest and largest peak of one kind of facial movement."""
        times = 1.0 if kind == "micro" else MACRO_TIMES
        limit = PEAK_SHARE["faces"] * min(self.width, self.height)
        low, high = (min(times * peak, limit) for peak in self.camera.peaks_px)
        return low, high


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Values that change smoothly from key to key: the first before them, the last behind.

    Attributes
    ----------
    times : (n,) float64
        Rising, s.
    values : (n, K) float64
    """

    times: Array
    values: Array

    def at(self, t: float) -> Array:
        """Values (K,) at a moment.

        Examples
        --------
        >>> Path(np.array([0.0, 1.0]), np.array([[0.0], [2.0]])).at(0.5)
        array([1.])
        """
        after = int(np.searchsorted(self.times, t, side="right"))
        if after in (0, len(self.times)):
            return np.asarray(self.values[min(after, len(self.times) - 1)])
        (start, end), (here, there) = self.times[after - 1 : after + 1], self.values[after - 1 : after + 1]
        return np.asarray(here + (there - here) * smooth((t - start) / (end - start)))


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Something that happens.

    Attributes
    ----------
    kind : Kind
    label : str
        The expression; for the others what kind of blink, turn or change of light it is.
    onset, apex, offset : float
        Begin, strongest moment and end, s. A change of light has its apex at its end, and stays.
    peak_px : float
        Largest motion of the skin at the apex. Before `recordings.Recording` fits the event to a face: of those kinds that have
        one drawn, and 0 of the others.
    path : Path
        Weights of `keys`, or the head's pose less the one at rest, (6,), or the gain of the light, (1,).
    keys : tuple of (int, str)
        Action units and sides.
    units : tuple of int
        The action units that count as the event's.
    """

    kind: Kind
    label: str
    onset: float
    apex: float
    offset: float
    peak_px: float
    path: Path
    keys: tuple[tuple[int, str], ...] = ()
    units: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Wander:
    """A slow movement without beginning or end: a sum of waves, (n, K) each.

    Attributes
    ----------
    amplitude, frequency, phase : (n, K) float64
        Frequency in rad/s.
    """

    amplitude: Array
    frequency: Array
    phase: Array

    def at(self, t: float) -> Array:
        """Values (K,) at a moment."""
        return np.asarray((self.amplitude * np.sin(self.frequency * t + self.phase)).sum(axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """All that one person does.

    Attributes
    ----------
    events : tuple of Event
        By onset.
    pose, light, lamp : Wander
        Of the head, (6,); of the gain, (1,); of the direction of the light, (2,), degrees.
    noise_seed : int
    """

    events: tuple[Event, ...]
    pose: Wander
    light: Wander
    lamp: Wander
    noise_seed: int


def draw_script(name: str, config: RecordingConfig) -> Script:
    """Draw what somebody does: the same for the same name and seed, whoever else is in the set, whatever the frame rate.

    Examples
    --------
    >>> script = draw_script("s01", RecordingConfig(seconds=60))
    >>> sorted({event.kind for event in script.events})
    ['blink', 'light', 'macro', 'micro', 'talking', 'turn']
    """
    rng = functools.partial(_generator, config.seed, name)
    expressions = list(_expressions(rng("expressions"), config))
    busy = [(event.onset, event.offset) for event in expressions if event.kind == "macro"]
    events = [
        *expressions,
        *_blinks(rng("blinks"), config),
        *_speech(rng("talking"), config, busy),
        *_turns(rng("turns"), config),
        *_lights(rng("light"), config),
    ]
    largest = np.array(
        [config.turn_deg, 0.6 * config.turn_deg, config.drift_deg, config.drift_px, config.drift_px, config.drift_scale]
    )
    return Script(
        events=tuple(sorted(events, key=lambda event: event.onset)),
        pose=_wander(rng("wander"), _WANDER_SHARE * largest),
        light=_wander(rng("slow light"), np.array([config.light])),
        lamp=_wander(rng("lamp"), np.full(2, config.lamp_deg)),
        noise_seed=int(rng("noise").integers(2**63)),
    )


def _generator(seed: int, name: str, what: str) -> Rng:
    return generator(seed, f"{name}/recording/{what}")


# --- the face


def _expressions(rng: Rng, config: RecordingConfig) -> Iterator[Event]:
    """Micro- and macro-expressions in random order, spread over the recording, at least so far apart."""
    kinds: list[Kind] = ["micro"] * max(1, round(config.seconds / MICRO_EVERY_S))
    kinds += ["macro"] * round(config.seconds / MACRO_EVERY_S)
    rng.shuffle(kinds)
    lengths = [float(rng.uniform(*(_MICRO_S if kind == "micro" else _MACRO_S))) for kind in kinds]
    free = config.seconds - 2 * _MARGIN_S - sum(lengths) - APART_S * (len(kinds) - 1)
    waits = np.diff(np.sort(rng.uniform(0, free, len(kinds))), prepend=0)
    now = _MARGIN_S
    for kind, length, wait in zip(kinds, lengths, waits, strict=True):
        now += float(wait)
        yield _expression(rng, kind, now, length, config)
        now += length + APART_S


def _expression(rng: Rng, kind: Kind, onset: float, length: float, config: RecordingConfig) -> Event:
    """One expression: rise, a while near the apex, the fall as `expressions.draw_movement` has it, and the way back to rest."""
    label = str(rng.choice(LABELS["faces"] if config.classes is None else config.classes))
    movement = draw_movement(rng, label, config.stray, incomplete=0.35, different=0.3)
    keys = tuple({**movement.apex, **movement.offset})
    strongest, left = (_vector(weights, keys) for weights in (movement.apex, movement.offset))
    parts = rng.uniform(*(_MICRO_PARTS if kind == "micro" else _MACRO_PARTS))
    times = onset + length * np.array([0, *np.cumsum(parts) / parts.sum()])
    low, high = config.peaks_px(kind)
    return Event(
        kind=kind,
        label=label,
        onset=onset,
        apex=float(times[1]),
        offset=float(times[-1]),
        peak_px=float(low * (high / low) ** rng.uniform()) if low else float(high * rng.uniform()),
        path=Path(times, np.stack([0 * left, strongest, 0.9 * strongest, 0.7 * left, 0 * left])),
        keys=keys,
        units=movement.units,
    )


def _vector(weights: Weights, keys: tuple[tuple[int, str], ...]) -> Array:
    return np.array([weights.get(key, 0.0) for key in keys])


def _blinks(rng: Rng, config: RecordingConfig) -> Iterator[Event]:
    """Blinks, every fifth of them in part."""
    now = float(rng.uniform(_MARGIN_S, _BLINK_EVERY_S[0]))
    while True:
        closing = float(rng.uniform(*_CLOSING_S))
        closed = float(rng.uniform(0.3, 0.8) if rng.random() < 0.2 else rng.uniform(0.9, 1))
        times = now + closing * np.array([0.0, 1.0, 3.0])
        if times[-1] > config.seconds - _MARGIN_S / 2:
            return
        path = Path(times, np.array([[0, 0], [closed, closed], [0, 0]]))
        label = "whole" if closed > 0.85 else "part"
        onset, apex, offset = times.tolist()
        yield Event("blink", label, onset, apex, offset, 0.0, path, ((BLINK, LEFT), (BLINK, RIGHT)), (BLINK,))
        now += float(rng.uniform(*_BLINK_EVERY_S))


_OPEN = {25: (0.4, 1.0), 26: (0.1, 1.0), 20: (0.0, 0.35)}
_SHUT = {24: (0.0, 0.5), 17: (0.0, 0.5), 25: (0.0, 0.2)}
"""Action units of speech, and least and largest weight of each while the mouth opens and closes."""
_SPEECH_KEYS = tuple(
    (unit, side) for unit in (25, 26, 17, 20, 24) for side in ((BOTH,) if unit in BOTH_SIDED else (LEFT, RIGHT))
)


def _speech(rng: Rng, config: RecordingConfig, busy: list[tuple[float, float]]) -> Iterator[Event]:
    """Talking, between macro-expressions."""
    now = float(rng.uniform(_MARGIN_S, _SILENT_S[0]))
    while now < config.seconds - _MARGIN_S:
        end = min(now + float(rng.uniform(*_TALKING_S)), config.seconds - _MARGIN_S)
        silent = float(rng.uniform(*_SILENT_S))
        begin = now
        for onset, offset in busy:
            if onset < end and offset > begin:
                begin, end = (offset, end) if offset - begin < end - onset else (begin, onset)
        if end - begin >= _TALKING_S[0]:
            yield _talk(rng, begin, end, config)
        now = max(begin, end) + silent


def _talk(rng: Rng, onset: float, end: float, config: RecordingConfig) -> Event:
    """Syllables of uneven length and strength."""
    times, values = [onset], [np.zeros(len(_SPEECH_KEYS))]
    while True:
        half = 0.5 / float(rng.uniform(*_SYLLABLES_HZ))
        if times[-1] + 2 * half > end:
            break
        bounds = _OPEN if len(times) % 2 else _SHUT
        drawn = {unit: float(rng.uniform(*bounds[unit])) for unit in bounds}
        times.append(times[-1] + half)
        values.append(np.array([drawn.get(unit, 0.0) for unit, _ in _SPEECH_KEYS]))
    times.append(times[-1] + 0.5 / _SYLLABLES_HZ[1])
    path = Path(np.array(times), np.stack([*values, np.zeros(len(_SPEECH_KEYS))]))
    widest = int(np.argmax(np.linalg.norm(path.values, axis=1)))
    units = tuple(sorted({unit for unit, _ in _SPEECH_KEYS}))
    peak = float(rng.uniform(*config.peaks_px("talking")))
    return Event("talking", "", onset, times[widest], times[-1], peak, path, _SPEECH_KEYS, units)


# --- the head and the light


def _turns(rng: Rng, config: RecordingConfig) -> Iterator[Event]:
    """Turns out of the plane, and shifts: there, a while, and back."""
    now = float(rng.uniform(_MARGIN_S, _TURN_EVERY_S[0]))
    while True:
        times = now + np.cumsum([0.0, rng.uniform(*_TURNING_S), rng.uniform(*_LOOKING_S), rng.uniform(*_TURNING_S)])
        shifts = rng.random() < 0.3
        turned, tilted, shifted = (0.1, 0.5, 1.0) if shifts else (1.0, 0.5, 0.5)
        largest = np.array(
            [
                *(turned * config.turn_deg, 0.6 * turned * config.turn_deg, tilted * config.drift_deg),
                *(shifted * config.drift_px, shifted * config.drift_px, shifted * config.drift_scale),
            ]
        )
        there = rng.uniform(-1, 1, 6) * largest
        if times[-1] > config.seconds - _MARGIN_S:
            return
        path = Path(times, np.stack([0 * there, there, there, 0 * there]))
        yield Event("turn", "shift" if shifts else "turn", now, float(times[1]), float(times[-1]), 0.0, path)
        now = float(times[-1] + rng.uniform(*_TURN_EVERY_S))


def _lights(rng: Rng, config: RecordingConfig) -> Iterator[Event]:
    """Changes of brightness that stay, at once or within seconds."""
    now, level = float(rng.uniform(_MARGIN_S, _LIGHT_EVERY_S[0])), 0.0
    while True:
        sudden = rng.random() < 0.5
        end = now + float(rng.uniform(*(_SUDDEN_S if sudden else _SLOW_S)))
        following = float(rng.uniform(-1, 1) * _LIGHT_TIMES * config.light)
        if end > config.seconds - _MARGIN_S:
            return
        path = Path(np.array([now, end]), np.array([[0.0], [following - level]]))
        yield Event("light", "sudden" if sudden else "slow", now, end, end, 0.0, path)
        now, level = end + float(rng.uniform(*_LIGHT_EVERY_S)), following


def _wander(rng: Rng, largest: Array) -> Wander:
    """Waves whose sum stays below these values."""
    shape = (5, len(largest))
    shares = rng.dirichlet(np.full(shape[0], 2.0), len(largest)).T
    low, high = _WANDER_HZ
    frequency = 2 * math.pi * low * (high / low) ** rng.uniform(size=shape)
    return Wander(shares * largest, frequency, rng.uniform(0, 2 * math.pi, shape))
