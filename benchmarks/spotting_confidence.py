"""The weights of `flowkit.spotting.confidence`, fitted to the people for tuning of `scenes/recordings.toml`.

    python benchmarks/spotting_confidence.py --folder /data/recordings --write

A movement that overlaps a true expression by half (intersection over union) counts as one, any other as none; the measures of all
movements that are found in ten recordings at 30, four at 60 and two at 200 frames per second are the samples of a logistic
regression. Printed first: F1 of micro- and macro-expressions of each person by weights that were fitted without that person, for
several least confidences. `--write` stores the weights of all in flowkit/assets. Nobody of benchmarks/intervals.py is among them.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import intervals
import machine
from flowkit.config import AlignConfig, FrameConfig
from flowkit.face.align import Aligner
from flowkit.inputs.recording_frames import frames_of, survey
from flowkit.spotting.confidence import MEASURES, WEIGHTS, measured
from flowkit.spotting.course import Course
from flowkit.spotting.face_track import FaceTrack
from flowkit.spotting.intervals import MICRO_S, overlap, resolved
from flowkit.spotting.movements import Movement, find_movements, without_blinks
from flowkit.spotting.scores import Expression, read_expressions, score_spotting

SUBJECTS = {"30 fps": 10, "60 fps": 4, "200 fps": 2}
LEAST = (0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
INVERSE_PENALTY = 0.3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The movements of one recording.

    Attributes
    ----------
    group, person : str
    fps : float
    movements : list of Movement
    measures : (n, M) float64
    truth : list of Expression
    """

    group: str
    person: str
    fps: float
    movements: list[Movement]
    measures: Array
    truth: list[Expression]

    @property
    def is_expression(self) -> npt.NDArray[np.bool_]:
        """Whether each movement overlaps a true expression by half."""
        shares = [
            [overlap((one.onset, one.offset), (true.onset, true.offset)) for true in self.truth]
            for one in self.movements
        ]
        return np.array(shares).max(axis=1) >= 0.5


def work(task: tuple[str, Path]) -> list[Sample]:
    """Follow the face through one recording, and measure its movements."""
    group, video = task
    course = course_of(video)
    units, lids, turn = (course.frames[name].astype(np.float64) for name in ("units", "lids", "turn"))
    skin = without_blinks(units, lids, course.fps)
    movements = find_movements(skin, course.fps)
    measures = np.array([measured(one, skin, lids, turn, course.fps).measures for one in movements])
    truth = [one for one in read_expressions(video.with_name("manifest.csv")) if one.video == video.name]
    return [Sample(group, video.stem, course.fps, movements, measures, truth)]


def course_of(video: Path) -> Course:
    """The course of a whole video, which must be one run."""
    recording = survey(video.name, video.parent, FrameConfig())
    course = None
    with Aligner(AlignConfig()) as aligner:
        for part in recording.parts:
            track = FaceTrack(aligner, video.name, recording.fps)
            found = track.course(frames_of(recording, part, video.parent, FrameConfig()))
            course = found if course is None else course.followed_by(found)
    if course is None or course.problems or course.frames["run"].any():
        raise SystemExit(f"{video}: the face was lost, or the video cannot be read")
    return course


def fit(samples: Sequence[Sample]) -> tuple[float, Array]:
    """Bias and weights of the measures."""
    from sklearn.linear_model import LogisticRegression

    measures = np.concatenate([sample.measures for sample in samples])
    target = np.concatenate([sample.is_expression for sample in samples])
    mean, spread = measures.mean(axis=0), measures.std(axis=0)
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=5000).fit((measures - mean) / spread, target)
    weights = model.coef_[0] / spread
    return float(model.intercept_[0] - weights @ mean), weights


def found_in(sample: Sample, bias: float, weights: Array, least: float) -> list[Expression]:
    """The expressions of a recording by these weights."""
    sure = 1 / (1 + np.exp(-(bias + sample.measures @ weights)))
    video = sample.truth[0].video
    chosen = [sample.movements[i] for i in resolved(sample.movements, sure, least)]
    return [
        Expression(
            video,
            round(one.onset),
            round(one.offset),
            "micro" if (one.offset - one.onset) / sample.fps <= MICRO_S + 0.5 / sample.fps else "macro",
        )
        for one in chosen
    ]


def main() -> None:
    """Fit, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where recordings are rendered, or lie since an earlier run"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="store the weights in flowkit/assets")
    options = parser.parse_args()
    tasks = []
    for group, subjects in SUBJECTS.items():
        manifest = intervals.rendered(options.folder, group, "tuning", subjects)
        tasks += [(group, manifest.with_name(f"s{number:02d}.mp4")) for number in range(1, subjects + 1)]
    samples = machine.spread(tasks, functools.partial(cv2.setNumThreads, 1), work, options.workers)
    people = sorted({sample.person for sample in samples})
    without = {person: fit([sample for sample in samples if sample.person != person]) for person in people}
    for least in LEAST:
        for group in SUBJECTS:
            chosen = [sample for sample in samples if sample.group == group]
            found = [one for sample in chosen for one in found_in(sample, *without[sample.person], least)]
            scores = score_spotting([one for sample in chosen for one in sample.truth], found, draws=1).kinds
            print(
                f"least confidence {least:g}, {group}: "
                + ", ".join(
                    f"{kind} F1 {one.f1:.3f} ({one.hits} hits, {one.found} found, {one.true} true)"
                    for kind, one in scores.items()
                )
            )
    bias, weights = fit(samples)
    rows = [("bias", bias), *zip(MEASURES, weights.tolist(), strict=True)]
    text = "measure,weight\n" + "".join(f"{name},{value:.4f}\n" for name, value in rows)
    print(text)
    if options.write:
        Path(str(WEIGHTS)).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
