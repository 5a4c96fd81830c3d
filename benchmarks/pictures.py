"""Make the pictures of README and docs from synthetic people, through the whole of flowkit.

python benchmarks/pictures.py --out docs

flow.png         a smile that pressed lips put an end to: onset, apex, offset, rise, fall, MM-COF, colour wheel
people.png       twenty people at rest
expressions.png  eight expressions with the head still: the three frames, true and estimated rise, true and estimated fall
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import flowkit
from flowkit.face.transforms import invert
from flowkit.reports.pictures import clip_panels, colour_wheel, flow_picture, png_bytes
from flowkit.storage.folder import ShardFolder
from flowkit.synthetic.dataset import read_truth, synthesise
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject

GAP_PX = 8
SCALE_PX = 2.0
SEED = 7
"""Of the people in the pictures; no figure rests on them."""
STILL = SynthConfig(
    seed=SEED,
    key_frames_only=True,
    tone=(0.95, 1.05),
    drift_px=0,
    drift_deg=0,
    drift_scale=0,
    turn_deg=0,
    light=0,
    blinks=0,
    stray=0,
)

Picture = npt.NDArray[np.uint8]


def beside(panels: list[Picture], gap: int = GAP_PX) -> Picture:
    """Return pictures of one height in a row, with white between them."""
    white = np.full((panels[0].shape[0], gap, 3), 255, np.uint8)
    return np.hstack([part for panel in panels for part in (white, panel)][1:])


def below(rows: list[Picture], gap: int = GAP_PX) -> Picture:
    """Return pictures of one width in a column, with white between them."""
    white = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.vstack([part for row in rows for part in (white, row)][1:])


def people() -> Picture:
    """Return twenty people at rest, five in a row."""
    config = SynthConfig(seed=SEED, width=160, height=160, noise=0, pose_deg=4)
    faces = []
    for number in range(1, 21):
        scene = make_scene("rest", make_subject(f"s{number:02d}", config), "fear", config)
        faces.append(np.repeat(scene.render(0)[..., None], 3, axis=2))
    return below([beside(faces[row : row + 5], 2) for row in range(0, 20, 5)], 2)


def extracted(folder: Path, config: SynthConfig) -> tuple[Path, list[dict[str, Any]]]:
    """Return the manifest of a data set, and its samples in the order of clip ids, with their faces."""
    manifest = synthesise(folder / "clips", config)
    settings = flowkit.load_config(None, shard__keep_faces=True)
    flowkit.extract(manifest, folder / "out", settings)
    samples = [sample for shard in ShardFolder.open(folder / "out").shards() for sample in shard.samples()]
    return manifest, samples


def flow_of_one_clip(folder: Path) -> Picture:
    """Return the picture of the README."""
    config = dataclasses.replace(
        STILL, subjects=1, classes=("repression",), clips=12, peak_px=(2.4, 2.5), turn_deg=0.2, drift_px=1, incomplete=0
    )
    manifest, samples = extracted(folder, config)
    units = {row.split(",")[0]: row for row in manifest.read_text().splitlines()}
    smile = next(sample for sample in samples if ",12," in units[sample["clip_id"]])
    panels = clip_panels(smile, SCALE_PX)
    return beside([*panels.values(), colour_wheel(next(iter(panels.values())).shape[0])])


def expressions(folder: Path) -> Picture:
    """Return a row for each expression, the flow that is true beside the flow that was found."""
    config = dataclasses.replace(STILL, subjects=1, peak_px=(1.8, 2.0), incomplete=0, different=0)
    manifest, samples = extracted(folder, config)
    found = {sample["label"]: sample for sample in samples}
    rows = []
    for label in LABELS["faces"]:
        sample = found[label]
        truth = read_truth(manifest.parent / "truth" / f"{sample['clip_id']}.npz")
        frames = [np.repeat(np.uint8(255 * face)[..., None], 3, axis=2) for face in np.float64(sample["faces"])]
        flows = [
            flow_picture(flow, SCALE_PX)
            for true, estimated in zip(on_crop(truth.flow_local, sample), sample["flow"], strict=True)
            for flow in (true, estimated)
        ]
        rows.append(beside([cv2.resize(p, (140, 140), interpolation=cv2.INTER_AREA) for p in (*frames, *flows)], 4))
    return below(rows, 4)


def on_crop(flow: npt.NDArray[np.float32], sample: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Return a flow of the frames on the grid of the crop: A flow(T^-1 x), with A the linear part of the crop's transform T."""
    transform, size = np.float64(sample["transform"]), sample["flow"].shape[-1]
    inverse = invert(transform)
    x, y = np.indices((size, size), np.float64)[::-1]
    at = (inverse[:, :1, None] * x + inverse[:, 1:2, None] * y + inverse[:, 2:, None]).astype(np.float32)
    there = [[cv2.remap(component, *at, cv2.INTER_LINEAR) for component in phase] for phase in flow]
    return np.asarray(np.einsum("ij,pjhw->pihw", transform[:, :2], np.stack(there)))


def main() -> None:
    """Synthesise, extract, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the three pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        pictures = {"people": people(), "flow": flow_of_one_clip(Path(one)), "expressions": expressions(Path(other))}
    for name, picture in pictures.items():
        (options.out / f"{name}.png").write_bytes(png_bytes(picture))


if __name__ == "__main__":
    main()
