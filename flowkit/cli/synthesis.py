"""The command `synth`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, progress, signals


@command(
    "synth",
    short_help="Synthetic clips whose motion is known exactly.",
    epilog="flowkit synth --out clips --subjects 3",
)
@click.option("--out", type=FOLDER, required=True, help="A new or empty folder.")
@click.option(
    "--level",
    type=click.Choice(["clips", "recordings", "flow"]),
    default="clips",
    show_default=True,
    help="Clips of one expression each; a video of minutes per subject; or flow, degraded as extraction degrades it, to train on.",
)
@click.option("--seconds", type=float, help="Of --level recordings: length of each.  [default: 120]")
@click.option("--samples", type=int, help="Of --level flow: how many.  [default: 1000]")
@click.option("--size", type=int, help="Of --level flow: side of the crop in pixels.  [default: 112]")
@click.option(
    "--form",
    type=click.Choice(["flow", "pictures"]),
    help="Of --level flow: pixels, or what the public 28 x 28 pictures hold.  [default: flow]",
)
@click.option("--per-person", type=int, help="Of --level flow: samples per person.  [default: 25]")
@click.option(
    "--label-shares",
    type=click.Choice(["equal", "megc2019"]),
    help="Of --level flow: each label as often as the others, or as in the MEGC2019 composite.  [default: equal]",
)
@click.option("--workers", type=int, help="Of --level flow: processes.  [default: one per core]")
@click.option("--subjects", type=int, help="Synthetic subjects.  [default: 5]")
@click.option("--clips", type=int, help="Clips per subject and class.  [default: 1]")
@click.option("--classes", help="Labels, comma-separated.  [default: all eight]")
@click.option("--seed", type=int, help="Another seed, another data set.  [default: 0]")
@click.option("--width", type=int, help="Frame width in pixels.  [default: 320]")
@click.option("--height", type=int, help="Frame height in pixels.  [default: 320]")
@click.option("--fps", type=float, help="Frames per second.  [default: 200]")
@click.option(
    "--format",
    type=click.Choice(["png", "jpg", "mkv", "mp4"]),
    help="Image folders, lossless or JPEG; lossless or H.264 video.  [default: png]",
)
@click.option("--quality", type=int, help="Quality of JPEG images, 1 to 100.  [default: 95]")
@click.option("--crf", type=int, help="Compression of H.264, 0 (none) to 51 (most).  [default: 5]")
@click.option(
    "--cropped", is_flag=True, default=None, help="Frames that are cropped already, for flowkit extract --align none."
)
@click.option("--key-frames-only", is_flag=True, default=None, help="Write onset, apex and offset only.")
@click.option(
    "--peak-px",
    type=(float, float),
    help="Smallest and largest peak of the motion, pixels.  [default: 0.5 2, less in frames below 100 pixels]",
)
@click.option("--noise", type=float, help="Noise of each frame, grey levels.  [default: 1]")
@click.option("--drift-px", type=float, help="Largest shift of the head, pixels.  [default: 2]")
@click.option("--drift-deg", type=float, help="Largest turn of the head in the plane, degrees.  [default: 0.5]")
@click.option("--turn-deg", type=float, help="Largest turn of the head out of the plane, degrees.  [default: 0.5]")
@click.option("--pose-deg", type=float, help="How far to the side a head looks at the onset.  [default: 8]")
@click.option("--light", type=float, help="Largest relative change of brightness.  [default: 0.01]")
@click.option("--lamp-deg", type=float, help="Largest turn of the direction of the light, degrees.  [default: 0]")
@click.option("--exposure", type=float, help="Factor of all grey levels, before the noise.  [default: 1]")
@click.option(
    "--tone",
    type=(float, float),
    help="Darkest and lightest skin, relative to the bundled photograph's.  [default: 0.4 1.05]",
)
@click.option("--flat", is_flag=True, default=None, help="Light from everywhere: no shading.")
@click.option("--stray", type=float, help="Share of clips with an action unit beside the expression.  [default: 0.25]")
@click.option("--incomplete", type=float, help="Share of clips whose movement does not go back.  [default: 0.35]")
@click.option(
    "--different", type=float, help="Share of clips whose fall has an action unit of its own.  [default: 0.3]"
)
@click.option("--blinks", type=float, help="Share of clips with a blink.  [default: 0.2]")
@click.option("--motion-blur", type=float, help="Open shutter, as a share of the time between frames.  [default: 0]")
@click.option(
    "--wander",
    is_flag=True,
    default=None,
    help="Head and light turn round at a moment of their own, not at the apex, which they would give away.",
)
@click.option(
    "--rest-frames", type=int, help="Frames of a still face before the onset and behind the offset.  [default: 0]"
)
@click.option(
    "--motion",
    type=click.Choice(["faces", "bumps"]),
    help="Faces that move by action units, or round bumps on one photograph, for fast tests.  [default: faces]",
)
@click.option(
    "--face3d",
    type=click.Path(path_type=Path),
    help="A folder of ICT-FaceKit (or face3d.npz): its head instead of ours.",
)
def synth_command(
    out: Path, level: str, classes: str | None, face3d: Path | None, workers: int | None, **given: Any
) -> None:
    """Make a data set of synthetic people whose motion is known exactly.

    People differ in shape and skin, and move by action units in three dimensions. Writes manifest.csv, the frames, landmarks.csv
    and truth/*.npz (the true flow of both phases) into --out. The manifest comes last: a data set that was stopped has none, and
    the same command resumes it.

    With --level recordings, --out gets s01.mp4, s02.mp4 and so on, of people who talk, blink, turn and show expressions of all
    lengths, and events.csv, which lists them. With --level flow, it gets HDF5 files of flow with label, class, subject and action
    units. Options that a level does not have are refused; some defaults differ.

    Exit codes: 0 written; 2 usage, or --out is not empty; 3 environment; 74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.execution.stop import Stop

    if classes is not None:
        given["classes"] = tuple(name.strip() for name in classes.split(","))
    if face3d is not None:
        given["face3d"] = str(face3d)
    write = _synth_level(level, {name: value for name, value in given.items() if value is not None}, workers)
    stop = Stop("synth")
    with progress({"flow": "samples"}.get(level, level)) as reporter, signals(stop):
        written = write(out, reporter=reporter, stop=stop)
    click.echo(written)


def _synth_level(level: str, given: dict[str, Any], workers: int | None) -> Callable[..., Path]:
    """What writes a data set of one level, with its settings."""
    from flowkit.synthetic.dataset import SynthConfig, synthesise
    from flowkit.synthetic.flow_samples import FlowConfig
    from flowkit.synthetic.recordings import RecordingConfig, record
    from flowkit.synthetic.sample_files import write_samples

    if level == "flow" and "noise" in given:
        given["noise"] = (given["noise"],) * 2
    kind: Any = {"clips": SynthConfig, "recordings": RecordingConfig, "flow": FlowConfig}[level]
    unknown = sorted(given.keys() - {field.name for field in dataclasses.fields(kind)})
    unknown += ["workers"] if workers is not None and level != "flow" else []
    if unknown:
        flags = ", ".join("--" + name.replace("_", "-") for name in unknown)
        raise click.UsageError(f"{flags}: not an option of --level {level}. Leave it out.")
    if level == "flow":
        return functools.partial(write_samples, config=kind(**given), workers=workers or 0)
    return functools.partial(synthesise if level == "clips" else record, config=kind(**given))
