"""A synthetic data set on disk: the clips of `scenes.py` as frames, with a manifest, landmarks and their true flow."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError, DiskFull, Interrupted
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.storage import durable_files
from flowkit.synthetic.camera import head_of
from flowkit.synthetic.scenes import LABELS, Scene, SynthConfig, Truth, scenes

__all__ = ["LABELS", "SynthConfig", "Truth", "read_truth", "synthesise"]

DATASET = "synth"
TRUTH = ("flow", "flow_local", "visible", "visible_local", "drift", "pose_deg")
_TITLE = "These clips are synthetic: `flowkit synth`"
_REPEATABLE = {"preset": "veryfast", "x264-params": "no-asm=1:threads=1"}
"""x264's plain code: what it has for AVX2 gives other bytes in every run, and threads other bytes by the number of cores. The
preset makes up for the time that costs."""


def synthesise(
    out: Path, config: SynthConfig | None = None, *, reporter: Reporter | None = None, stop: Stop | None = None
) -> Path:
    """Write a manifest of synthetic clips, with their frames, true flow and landmarks beside it.

    Parameters
    ----------
    out : Path
        A folder that is empty or does not exist, or that an interrupted run with the same settings has begun: it is resumed. It
        gets README.txt, frames/, truth/, landmarks.csv and, last, manifest.csv.
    config : SynthConfig, optional
    reporter : Reporter, optional
        Told of each clip; silent by default.
    stop : Stop, optional
        Asked before each clip.

    Returns
    -------
    Path
        The manifest. Same settings and package versions, same bytes.

    Raises
    ------
    ConfigError
        The folder is not empty, or was begun with other settings, or `face3d` is no head.
    DiskFull
    Interrupted
    """
    config, reporter, stop = config or SynthConfig(), reporter or Silent(), stop or Stop("synth")
    out = Path(out)
    if config.motion == "faces":
        head_of(config)  # a file that is none is refused before anything is written
    try:
        with filling(out, _readme(config), "manifest.csv"):
            (out / "truth").mkdir(exist_ok=True)
            reporter.start(config.subjects * len(config.labels) * config.clips)
            rows = _write_clips(out, config, reporter, stop)
            durable_files.publish_file(out / "manifest.csv", _manifest(rows))
    finally:
        reporter.finish()
    return out / "manifest.csv"


@contextlib.contextmanager
def filling(out: Path, readme: str, last: str) -> Iterator[None]:
    """Begin a folder, or resume one whose making was stopped, and say in the folder's name how making it ends before its end.

    Parameters
    ----------
    out : Path
    readme : str
        What README.txt says, which comes first: a title, and with which settings the folder was begun.
    last : str
        The file that comes last: a folder that has it is complete.

    Raises
    ------
    ConfigError
        The folder is complete, or something else, or was begun with other settings.
    DiskFull
    Interrupted
    """
    try:
        _take_folder(out, readme, last)
        yield
    except Interrupted as error:
        raise type(error)(
            f"{out}: the data set was stopped before its end and has no {last}. Run the same command again: it resumes."
        ) from None
    except OSError as error:
        if error.errno in durable_files.FULL:
            raise DiskFull(
                f"{out}: disk must have room for all clips; got none left. Free some and run the same command again."
            ) from error
        raise


def _take_folder(out: Path, text: str, last: str) -> None:
    readme = out / "README.txt"
    there = readme.read_text("utf-8") if readme.is_file() and not (out / last).exists() else ""
    begun = there.splitlines()[:1] == text.splitlines()[:1]
    if begun and there != text:
        raise ConfigError(
            f"{out}: settings must be those that the data set was begun with (its README.txt lists them); got others. Run the "
            "same command as before, delete the folder, or choose another."
        )
    if not begun and out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise ConfigError(
            f"{out}: --out must be an empty folder; got one with something in it. Delete it or choose another."
        )
    out.mkdir(parents=True, exist_ok=True)
    durable_files.replace_file(readme, text.encode())


def read_truth(path: str | Path) -> Truth:
    """The true motion of one clip, from its file under truth/."""
    with np.load(path) as file:
        return Truth(**{name: file[name] for name in TRUTH})


def _write_clips(out: Path, config: SynthConfig, reporter: Reporter, stop: Stop) -> list[dict[str, object]]:
    """Everything but the manifest; returns its rows."""
    rows = []
    points = io.StringIO(newline="")
    landmarks = csv.writer(points, lineterminator="\n")
    landmarks.writerow(("clip_id", "point", "x", "y"))
    for scene in scenes(config):
        stop.check()
        rows.append(_write_clip(out, scene))
        landmarks.writerows((scene.clip_id, i, f"{x:.3f}", f"{y:.3f}") for i, (x, y) in enumerate(scene.landmarks))
        reporter.advance(1, 0)
    durable_files.replace_file(out / "landmarks.csv", points.getvalue().encode())
    return rows


def _write_clip(out: Path, scene: Scene) -> dict[str, object]:
    """Frames and truth of one clip, unless an earlier run has written them; returns its row of the manifest.

    The truth is written last and whole, so a clip that has one is complete.
    """
    draw, form = scene.draw, scene.config.format
    images = form in ("png", "jpg")
    path = out / "frames" / scene.subject.name / (scene.clip_id if images else f"{scene.clip_id}.{form}")
    truth = out / "truth" / f"{scene.clip_id}.npz"
    if not truth.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if images:
            _write_images(path, scene)
        else:
            write_video(path, map(scene.render, _times(scene)), scene.config)
        durable_files.replace_file(truth, _packed(scene.truth()))
    first = scene.config.rest_frames + (1 if images else 0)
    return {
        "clip_id": scene.clip_id,
        "path": path.relative_to(out).as_posix(),
        "onset": first,
        "apex": first + draw.apex,
        "offset": first + draw.offset,
        "subject": scene.subject.name,
        "dataset": DATASET,
        "label": scene.label,
        "fps": scene.config.fps,
        "peak_px": f"{draw.peak_px:.3f}",
        "drift_px": f"{np.hypot(draw.drift[:, 0], draw.drift[:, 1]).max():.3f}",
        **scene.facts,
    }


def _packed(truth: Truth) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{name: getattr(truth, name) for name in TRUTH})
    return file.getvalue()


def _write_images(folder: Path, scene: Scene) -> None:
    """Write a folder of frames."""
    folder.mkdir(exist_ok=True)
    onset = 1 + scene.config.rest_frames
    form = f".{scene.config.format}"
    options = [cv2.IMWRITE_JPEG_QUALITY, scene.config.quality] if form == ".jpg" else []
    for t in _key_times(scene) if scene.config.key_frames_only else _times(scene):
        _, image = cv2.imencode(form, scene.render(t), options)
        (folder / f"{onset + t:04d}{form}").write_bytes(image.tobytes())


def _key_times(scene: Scene) -> tuple[int, int, int]:
    return 0, scene.draw.apex, scene.draw.offset


def _times(scene: Scene) -> range:
    """Every frame of a clip, with those in which the face rests."""
    rest = scene.config.rest_frames
    return range(-rest, scene.draw.offset + rest + 1)


def write_video(path: Path, frames: Iterable[npt.NDArray[np.uint8]], config: SynthConfig) -> None:
    """Write grey frames (H, W) as a video, one by one: FFV1 if `path` ends in .mkv, otherwise H.264. Same frames, same bytes."""
    import av  # only videos need it

    lossless = path.suffix == ".mkv"
    codec, pixels = ("ffv1", "gray") if lossless else ("libx264", "yuv420p")
    options = {} if lossless else {"crf": str(config.crf), **_REPEATABLE}
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # no random number in its header
        rate = Fraction(config.fps).limit_denominator(1000)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = config.width, config.height, pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def _manifest(rows: list[dict[str, object]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _readme(config: SynthConfig) -> str:
    settings = json.dumps(dataclasses.asdict(config) | {"peak_px": config.peaks_px}, indent=2)
    return f"""{_TITLE} rendered them all from one public-domain photograph (NASA).

manifest.csv     the clips
landmarks.csv    478 points of each onset frame, for flowkit extract --align landmarks
frames/          the frames
truth/CLIP.npz   flow         (2 phases, 2 components, H, W), px: moving(x + flow(x)) = reference(x);
                              phase 0 is the rise on the onset's grid, phase 1 the fall on the apex's
                 flow_local   the same with the head's motion undone in apex and offset
                 visible      (2, H, W): both frames show what the pixel of the first one shows
                 visible_local  the same for flow_local
                 drift        (3, 2, 3): the head at onset, apex, offset; onset px -> px of that frame
                 pose_deg     (3, 3): its yaw, pitch and roll there

{settings}
"""
