"""A made-up data set on disk: the clips of `scenes.py` as frames, with a manifest, landmarks and their true flow."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from flowkit import commit
from flowkit.errors import ConfigError, DiskFull, Interrupted
from flowkit.progress import Reporter, Silent
from flowkit.scenes import CLASSES, Scene, SynthConfig, Truth, render_frame, scenes, true_motion
from flowkit.stop import Stop

__all__ = ["CLASSES", "SynthConfig", "Truth", "read_truth", "synthesise"]

DATASET = "synth"
_TITLE = "These clips are synthetic: `flowkit synth`"


def synthesise(
    out: Path, config: SynthConfig | None = None, *, reporter: Reporter | None = None, stop: Stop | None = None
) -> Path:
    """A manifest of made-up clips, with their frames, true flow and landmarks beside it.

    Parameters
    ----------
    out : Path
        A folder that is empty or does not exist. It gets manifest.csv, landmarks.csv, README.txt, frames/ and truth/; the manifest
        comes last, so an interrupted run leaves none, and the next one begins anew.
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
        The folder is not empty.
    DiskFull
    Interrupted
    """
    config, reporter, stop = config or SynthConfig(), reporter or Silent(), stop or Stop("synth")
    out = Path(out)
    _clear_unfinished(out)
    if out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise ConfigError(
            f"{out}: --out must be an empty folder; got one with something in it. Delete it or choose another."
        )
    reporter.start(config.subjects * len(config.classes) * config.clips)
    try:
        rows = _write_clips(out, config, reporter, stop)
        commit.publish_file(out / "manifest.csv", _manifest(rows))
    except Interrupted as error:
        raise type(error)(
            f"{out}: the data set was stopped before its end and has no manifest. Run the same command again: it begins the data "
            "set again."
        ) from None
    except OSError as error:
        if error.errno in commit.FULL:
            raise DiskFull(
                f"{out}: disk must have room for all clips; got none left. Free some, delete the folder and run again."
            ) from error
        raise
    finally:
        reporter.finish()
    return out / "manifest.csv"


def _clear_unfinished(out: Path) -> None:
    """Remove what an interrupted run left: it wrote its README first, and no manifest."""
    readme = out / "README.txt"
    if (out / "manifest.csv").exists() or not readme.is_file() or not readme.read_text("utf-8").startswith(_TITLE):
        return
    for name in ("frames", "truth"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("landmarks.csv", "README.txt"):
        (out / name).unlink(missing_ok=True)


def read_truth(path: str | Path) -> Truth:
    """The true motion of one clip, from its file under truth/."""
    with np.load(path) as file:
        return Truth(file["flow"], file["flow_local"], file["drift"])


def _write_clips(out: Path, config: SynthConfig, reporter: Reporter, stop: Stop) -> list[dict[str, object]]:
    """Everything but the manifest; returns its rows."""
    (out / "truth").mkdir(parents=True)
    (out / "README.txt").write_text(_readme(config), encoding="utf-8")
    rows = []
    with (out / "landmarks.csv").open("w", newline="", encoding="utf-8") as file:
        landmarks = csv.writer(file, lineterminator="\n")
        landmarks.writerow(("clip_id", "point", "x", "y"))
        for scene in scenes(config):
            stop.check()
            rows.append(_write_clip(out, scene))
            points = enumerate(scene.subject.landmarks)
            landmarks.writerows((scene.clip_id, number, f"{x:.3f}", f"{y:.3f}") for number, (x, y) in points)
            reporter.advance(1, 0)
    return rows


def _write_clip(out: Path, scene: Scene) -> dict[str, object]:
    """Frames and truth of one clip; returns its row of the manifest."""
    draw, form = scene.draw, scene.config.format
    folder = out / "frames" / scene.subject.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (scene.clip_id if form == "png" else f"{scene.clip_id}.{form}")
    first = _write_images(path, scene) if form == "png" else _write_video(path, scene)
    truth = true_motion(scene)
    np.savez_compressed(
        out / "truth" / f"{scene.clip_id}.npz", flow=truth.flow, flow_local=truth.flow_local, drift=truth.drift
    )
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
    }


def _write_images(folder: Path, scene: Scene) -> int:
    """Write a folder of frames; returns the number of the onset."""
    folder.mkdir()
    onset = 1 + scene.config.rest_frames
    for t in _key_times(scene) if scene.config.key_frames_only else _times(scene):
        _, png = cv2.imencode(".png", render_frame(scene, t))
        (folder / f"{onset + t:04d}.png").write_bytes(png.tobytes())
    return onset


def _key_times(scene: Scene) -> tuple[int, int, int]:
    return 0, scene.draw.apex, scene.draw.offset


def _times(scene: Scene) -> range:
    """Every frame of a clip, with those in which the face rests."""
    rest = scene.config.rest_frames
    return range(-rest, scene.draw.offset + rest + 1)


def _write_video(path: Path, scene: Scene) -> int:
    """Write a video; returns the number of the onset."""
    import av  # only videos need it

    codec, pixels, options = ("ffv1", "gray", {}) if path.suffix == ".mkv" else ("libx264", "yuv420p", {"crf": "5"})
    with av.open(str(path), "w") as container:
        rate = Fraction(scene.config.fps).limit_denominator(1000)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = scene.config.width, scene.config.height, pixels
        for t in _times(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(render_frame(scene, t), format="gray")))
        container.mux(stream.encode())
    return scene.config.rest_frames


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
                 flow_local   the same with the head's drift undone in apex and offset
                 drift        (3, 2, 3): the head at onset, apex, offset; onset px -> px of that frame

{settings}
"""
