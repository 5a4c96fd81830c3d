"""Synthetic faces in three dimensions, `flowkit synth`: people who move by action units, with the true flow of both phases.

A person (`people.py`) has a head (`head.py`) and a skin. The points of the head in frame t are

    P_t = P + c(t) (movement at apex and offset) + blink(t),      x_t = view(R_t (P_t - pivot) + pivot + shift_t)

c is a smooth curve, R_t and shift_t the head's pose, and the view a camera at 90 cm. A Numba rasteriser finds what each pixel
shows. The true flow is the motion of the surface that a pixel shows, interpolated in the same triangles that drew it: `flow` with
the head's motion, `flow_local` with every frame in the pose of the onset.

What is missing: gaze, tongue, wrinkles that come with an expression, hair that moves on its own, shadows that one part of the face
casts on another. Everybody's skin starts from one photograph.

"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowkit.face.face_mesh import BLINK, LEFT, RIGHT, Array
from flowkit.face.transforms import fit_similarity
from flowkit.synthetic.camera import FaceSubject, Moment, displaced, motion, photographed, picture, px_per_displacement
from flowkit.synthetic.draws import between, generator
from flowkit.synthetic.expressions import Blink, Movement, draw_movement
from flowkit.synthetic.head import SKIN
from flowkit.synthetic.people import Grey
from flowkit.synthetic.scene_settings import SynthConfig, Truth

_BLINK_S = (0.06, 0.11)
"""Time in which the eyes close."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceDraw:
    """What chance decides about one clip.

    Attributes
    ----------
    movement : Movement
    peak_px : float
        Peak of the local motion of the rise.
    apex, offset, turn : int
        Frames after the onset; the head turns round at `turn`.
    drift : (2, 4) float64
        Head at the turn and at the offset: x and y in px, roll in radians, logarithm of the size.
    turned : (2, 2) float64
        Yaw and pitch there, degrees from the onset.
    light : (2, 2) float64
        Gain and added grey levels there.
    lamp : (2, 2) float64
        Turn of the light there, degrees.
    blinks : tuple of Blink
    noise_seed : int
    """

    movement: Movement
    peak_px: float
    apex: int
    offset: int
    turn: int
    drift: Array
    turned: Array
    light: Array
    lamp: Array
    blinks: tuple[Blink, ...]
    noise_seed: int


@dataclass(frozen=True, eq=False)
class FaceScene:
    """One clip, ready to be rendered."""

    clip_id: str
    subject: FaceSubject
    label: str
    draw: FaceDraw
    config: SynthConfig

    @property
    def landmarks(self) -> Array:
        """Of the onset, (478, 2), px."""
        return self.subject.landmarks

    @property
    def facts(self) -> dict[str, str]:
        """Further columns of the manifest: how far the head turns, and the action units of the expression and its fall."""
        draw = self.draw
        units = {unit for (unit, _), weight in draw.movement.offset.items() if weight} - set(draw.movement.units)
        return {
            "turn_deg": f"{np.hypot(*draw.turned.T).max():.3f}",
            "action_units": "+".join(map(str, draw.movement.units)),
            "other_units": "+".join(map(str, sorted(units))),
            "blink": str(int(bool(draw.blinks))),
        }

    def render(self, t: int, still: bool = False) -> npt.NDArray[np.uint8]:
        """Frame `t` (0 at the onset; the face rests before it and behind the offset) of a clip, (H, W) uint8.

        `still` keeps the head in the pose of the onset: what an alignment would give that knew the head's motion.
        """
        return photographed(functools.partial(self.clean, still=still), t, self.config, self.draw.noise_seed)

    def clean(self, t: float, still: bool = False) -> Grey:
        """Frame `t` without noise, grey levels not rounded; `still` in the pose of the onset.

        Examples
        --------
        >>> scene = make_scene("clip", make_subject("s01", SynthConfig()), "fear", SynthConfig())
        >>> scene.clean(0).shape
        (320, 320)
        """
        return picture(self.subject, self.moment(t, still), self.config)

    def moment(self, t: float, still: bool = False) -> Moment:
        """What there is to see in frame `t`; `still` in the pose of the onset."""
        draw = self.draw
        light, lamp = (
            between(draw.turn, draw.offset, np.zeros(2), at_turn, at_offset, t)
            for at_turn, at_offset in (draw.light, draw.lamp)
        )
        return Moment(self.points(t), self.pose(0 if still else t), light, lamp)

    def truth(self) -> Truth:
        """The true flow of a clip."""
        times = (0, self.draw.apex, self.draw.offset)
        moving, still = ([self.moment(t, at_onset) for t in times] for at_onset in (False, True))
        seen = [motion(self.subject, *pair) for pair in itertools.pairwise(moving)]
        local = [motion(self.subject, *pair) for pair in itertools.pairwise(still)]
        skin = self.subject.person.head.part == SKIN
        rest = [self.projected(moving[0].points, at.pose)[skin, :2].astype(np.float64) for at in moving]
        return Truth(
            flow=np.stack([flow for flow, _ in seen]),
            flow_local=np.stack([flow for flow, _ in local]),
            visible=np.stack([visible for _, visible in seen]),
            visible_local=np.stack([visible for _, visible in local]),
            drift=np.stack([np.eye(2, 3), *(fit_similarity(rest[0], there) for there in rest[1:])]),
            pose_deg=np.stack([at.pose[:3] for at in moving]),
        )

    def points(self, t: float) -> Array:
        """Points of the head in frame `t`, cm, before the head's pose."""
        apex, offset = self._movement
        draw = self.draw
        moved = between(draw.apex, draw.offset, np.zeros_like(apex), apex, offset, t)
        points = self.subject.person.points + moved
        closed = max((blink.at(t) for blink in draw.blinks), default=0.0)
        if closed:
            points += closed * self._closing
        return points

    def pose(self, t: float) -> Array:
        """Yaw, pitch, roll (degrees), x, y (px) and logarithm of the size in frame `t`."""
        draw = self.draw
        turned, offset = (
            np.array([*draw.turned[k], math.degrees(draw.drift[k, 2]), *draw.drift[k, [0, 1, 3]]]) for k in (0, 1)
        )
        return self.subject.rest + between(draw.turn, draw.offset, np.zeros(6), turned, offset, t)

    def projected(self, points: Array, pose: Array) -> npt.NDArray[np.float32]:
        """x, y in px and z in cm of points before the head's pose, (V, 3)."""
        return self.subject.projected(points, pose)

    @functools.cached_property
    def _movement(self) -> tuple[Array, Array]:
        """Displacement at apex and offset, cm."""
        movement, person = self.draw.movement, self.subject.person
        apex, offset = (displaced(person, weights) for weights in (movement.apex, movement.offset))
        peak = px_per_displacement(self.subject, apex)
        scale = self.draw.peak_px / peak if peak else 0.0
        return scale * apex, scale * offset

    @functools.cached_property
    def _closing(self) -> Array:
        """Displacement that closes both eyes."""
        units = self.subject.person.action_units
        return units[BLINK, LEFT] + units[BLINK, RIGHT]


def make_scene(clip_id: str, subject: FaceSubject, label: str, config: SynthConfig) -> FaceScene:
    """One clip of a person."""
    return FaceScene(clip_id, subject, label, draw_clip(clip_id, label, config), config)


def draw_clip(clip_id: str, label: str, config: SynthConfig) -> FaceDraw:
    """What chance decides about a clip: the same for the same id and seed, whatever else is in the data set."""
    rng = generator(config.seed, clip_id)
    rise, fall = rng.integers(config.phase_frames[0], config.phase_frames[1] + 1, 2)
    length = int(rise + fall)
    low, high = config.peaks_px
    strength = rng.uniform()
    bounds = [config.drift_px, config.drift_px, math.radians(config.drift_deg), config.drift_scale]
    drift, turned = rng.uniform(-1, 1, (2, 4)) * bounds, rng.uniform(-1, 1, (2, 2)) * config.turn_deg
    light = rng.uniform(-1, 1, (2, 2)) * config.light * [1, 128]
    lamp = rng.uniform(-1, 1, (2, 2)) * config.lamp_deg
    wandering, blinking = int(rng.integers(1, length)), rng.random() < config.blinks
    blink = Blink(rng.uniform(0, length), rng.uniform(*_BLINK_S) * config.fps, rng.uniform(0.3, 1))
    return FaceDraw(
        movement=draw_movement(
            generator(config.seed, f"{clip_id}/movement"), label, config.stray, config.incomplete, config.different
        ),
        peak_px=float(low * (high / low) ** strength) if low else float(high * strength),
        apex=int(rise),
        offset=length,
        turn=wandering if config.wander else int(rise),
        drift=drift,
        turned=turned,
        light=light,
        lamp=lamp,
        blinks=(blink,) if blinking else (),
        noise_seed=int(rng.integers(2**63)),
    )
