"""Synthetic recordings of minutes, `flowkit synth --level recordings`: a person in front of a camera, every movement known.

What happens is in `recording_script.py`; here it is fitted to a face, rendered, and written as a video, frame by frame.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.face.face_mesh import Array
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import manifest_bytes
from flowkit.storage import durable_files
from flowkit.synthetic.camera import (
    FaceSubject,
    Moment,
    displaced,
    make_subject,
    motion,
    photographed,
    picture,
    px_per_displacement,
)
from flowkit.synthetic.dataset import DATASET, filling, write_video
from flowkit.synthetic.head import SKIN
from flowkit.synthetic.people import Grey
from flowkit.synthetic.recording_script import Event, RecordingConfig, Script, draw_script

__all__ = ["Event", "Recording", "RecordingConfig", "record", "recordings"]

COLUMNS = ("recording", "kind", "label", "onset", "apex", "offset", "peak_px", "action_units")
FACIAL = ("micro", "macro", "blink", "talking")


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording, ready to be rendered. Frames count from 0, and may be parts of one.

    Attributes
    ----------
    subject : FaceSubject
    script : Script
    config : RecordingConfig
    """

    subject: FaceSubject
    script: Script
    config: RecordingConfig

    @property
    def name(self) -> str:
        """The person's."""
        return self.subject.name

    @functools.cached_property
    def events(self) -> tuple[Event, ...]:
        """All that happens, by onset: weights and `peak_px` are those of this face."""
        return tuple(self._fitted(event) for event in self.script.events)

    def frame(self, seconds: float) -> int:
        """The frame nearest to a moment."""
        return min(round(seconds * self.config.fps), self.config.frames - 1)

    def render(self, t: int) -> npt.NDArray[np.uint8]:
        """Frame `t`, (H, W) uint8."""
        return photographed(self.clean, t, self.config.camera, self.script.noise_seed)

    def clean(self, t: float) -> Grey:
        """Frame `t` without noise and motion blur, grey levels not rounded, (H, W)."""
        return picture(self.subject, self.moment(t), self.config.camera)

    def flow(self, t0: float, t1: float, still: bool = False) -> tuple[Grey, npt.NDArray[np.bool_]]:
        """Return the true flow from one frame to another.

        Parameters
        ----------
        t0, t1 : float
            Frames.
        still : bool
            The head's motion undone: frame `t1` in the pose of `t0`.

        Returns
        -------
        (2, H, W) float32
            u to the right and v down, px: `frame_t1(x + flow(x)) = frame_t0(x)`; 0 in the background.
        (H, W) bool
            Whether both frames show what the pixel of the first one shows.

        Examples
        --------
        >>> recording = next(recordings(RecordingConfig(seconds=2, width=64, height=64)))
        >>> flow, visible = recording.flow(0, 30)
        >>> flow.shape, visible.shape
        ((2, 64, 64), (64, 64))
        """
        return motion(self.subject, self.moment(t0), self.moment(t1, t0 if still else t1))

    def landmarks(self, t: float) -> Array:
        """The 478 landmarks in frame `t`, (478, 2), px."""
        person = self.subject.person
        return self.subject.projected(self._points(t), self.pose(t))[person.head.landmark, :2].astype(np.float64)

    def pose(self, t: float) -> Array:
        """Yaw, pitch, roll (degrees), x, y (px) and logarithm of the size in frame `t`."""
        seconds = t / self.config.fps
        turns = (event.path.at(seconds) for event in self.events if event.kind == "turn")
        return self.subject.rest + self.script.pose.at(seconds) + sum(turns, np.zeros(6))

    def moment(self, t: float, pose_of: float | None = None) -> Moment:
        """What there is to see in frame `t`, the head in the pose of another frame if one is given."""
        seconds = t / self.config.fps
        gain = self.script.light.at(seconds)[0]
        gain += sum(event.path.at(seconds)[0] for event in self.events if event.kind == "light")
        pose = self.pose(t if pose_of is None else pose_of)
        return Moment(self._points(t), pose, np.array([gain, 0.0]), self.script.lamp.at(seconds))

    def _points(self, t: float) -> Array:
        """Points of the head, cm, before its pose."""
        seconds, person = t / self.config.fps, self.subject.person
        points = person.points.copy()
        for event in self.events:
            if event.kind in FACIAL and event.onset < seconds < event.offset:
                points += displaced(person, dict(zip(event.keys, event.path.at(seconds), strict=True)))
        return points

    def _fitted(self, event: Event) -> Event:
        """An event with the weights and the peak that it has on this face."""
        if event.kind == "light":
            return event
        at_apex, person = event.path.at(event.apex), self.subject.person
        if event.kind == "turn":
            skin = person.points[person.head.part == SKIN]
            moved = (self.subject.projected(skin, self.subject.rest + by)[:, :2] for by in (at_apex, 0 * at_apex))
            apart = np.subtract(*moved)
            return dataclasses.replace(event, peak_px=float(np.hypot(*apart.T).max()))
        peak = px_per_displacement(self.subject, displaced(person, dict(zip(event.keys, at_apex, strict=True))))
        if event.kind == "blink":
            return dataclasses.replace(event, peak_px=peak)
        scale = event.peak_px / peak if peak else 0.0
        return dataclasses.replace(event, path=dataclasses.replace(event.path, values=scale * event.path.values))


def recordings(config: RecordingConfig) -> Iterator[Recording]:
    """Yield every recording of a set.

    Examples
    --------
    >>> [recording.name for recording in recordings(RecordingConfig(subjects=2))]
    ['s01', 's02']
    """
    for number in range(1, config.subjects + 1):
        name = f"s{number:02d}"
        yield Recording(make_subject(name, config.camera), draw_script(name, config), config)


def record(
    out: Path, config: RecordingConfig | None = None, *, reporter: Reporter | None = None, stop: Stop | None = None
) -> Path:
    """Write one video per person, and a table of all that happens in them.

    Parameters
    ----------
    out : Path
        A folder that is empty or does not exist, or that an interrupted run with the same settings has begun: it is resumed. It
        gets README.txt, s01.mp4 or s01.mkv and so on, manifest.csv, and, last, events.csv. A video has its name once it is whole.
    config : RecordingConfig, optional
    reporter : Reporter, optional
        Told of each recording; silent by default.
    stop : Stop, optional
        Asked before each frame.

    Returns
    -------
    Path
        The table. Same settings and package versions, same bytes.

    Raises
    ------
    ConfigError
        The folder is not empty, or was begun with other settings.
    DiskFull
    Interrupted
    """
    config, reporter, stop = config or RecordingConfig(), reporter or Silent(), stop or Stop("synth")
    out = Path(out)
    try:
        with filling(out, _readme(config), "events.csv"):
            reporter.start(config.subjects)
            rows, clips = [], list[Clip]()
            for recording in recordings(config):
                _write(out / f"{recording.name}.{config.format}", recording, stop)
                rows += _rows(recording)
                clips += _clips(recording)
                reporter.advance(1, 0)
            durable_files.replace_file(out / "manifest.csv", manifest_bytes(clips, "manifest.csv", allow_empty=True))
            durable_files.publish_file(out / "events.csv", _table(rows))
    finally:
        reporter.finish()
    return out / "events.csv"


def _write(path: Path, recording: Recording, stop: Stop) -> None:
    """Write a video under another name, and give it its own when it is whole, unless an earlier run has."""
    if path.exists():
        return
    part = path.with_name(f".part.{path.name}")
    try:
        write_video(part, _frames(recording, stop), recording.config.camera)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _frames(recording: Recording, stop: Stop) -> Iterator[npt.NDArray[np.uint8]]:
    for t in range(recording.config.frames):
        stop.check()
        yield recording.render(t)


def _rows(recording: Recording) -> list[tuple[object, ...]]:
    """What the table says of one recording."""
    return [
        (
            *(recording.name, event.kind, event.label),
            *(recording.frame(seconds) for seconds in (event.onset, event.apex, event.offset)),
            *(f"{event.peak_px:.3f}", "+".join(map(str, event.units))),
        )
        for event in recording.events
    ]


def _clips(recording: Recording) -> list[Clip]:
    """The expressions of one recording, as rows of a manifest."""
    file, name = f"{recording.name}.{recording.config.format}", recording.name
    found = []
    for event in recording.events:
        if event.kind in ("micro", "macro"):
            onset, apex, offset = (recording.frame(seconds) for seconds in (event.onset, event.apex, event.offset))
            extra = (("kind", event.kind), ("peak_px", f"{event.peak_px:.3f}"))
            clip_id = f"{DATASET}/{name}/{onset}-{offset}"
            clip = Clip(
                clip_id, file, onset, apex, offset, name, DATASET, event.label, recording.config.fps, extra=extra
            )
            found.append(clip)
    return found


def _table(rows: list[tuple[object, ...]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return file.getvalue().encode()


def _readme(config: RecordingConfig) -> str:
    settings = json.dumps(dataclasses.asdict(config) | {"peak_px": config.peaks_px("micro")}, indent=2)
    return f"""These recordings are synthetic: `flowkit synth --level recordings` rendered them from one
public-domain photograph (NASA).

s01.{config.format} ...      one video per person, {config.frames} frames
manifest.csv     the expressions, for flowkit extract and flowkit spot-score
events.csv       all that happens in them, by onset; frames count from 0
                 kind          micro, macro: expressions of at most half a second, and longer ones; blink; talking;
                               turn: the head turns or shifts, and comes back; light: brightness changes, and stays
                 label         the expression; turn or shift; whole or part of a blink; sudden or slow
                 onset, apex, offset   begin, strongest moment (the light: its end) and end
                 peak_px       largest motion of the skin at the apex, px
                 action_units  those of the expression itself
Besides, head and light wander slowly all the time. Events of different kinds may overlap; expressions do not.
True flow between any two frames: flowkit.synthetic.recordings.Recording.flow(), with these settings in RecordingConfig:

{settings}
"""
