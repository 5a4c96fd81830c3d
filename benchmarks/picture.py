"""Make the picture of the README: a synthetic clip whose fall is lopsided, through the whole of flowkit.

python benchmarks/picture.py --out docs/flow.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import flowkit
from flowkit.pictures import clip_panels, colour_wheel, png_bytes
from flowkit.synth import SynthConfig, synthesise

SCALE_PX = 2.0
GAP_PX = 8


def main() -> None:
    """Synthesise, extract, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/flow.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = SynthConfig(
            subjects=1, classes=("smile_lopsided",), peak_px=(2.4, 2.5), phase_frames=(20, 20), key_frames_only=True
        )
        manifest = synthesise(Path(folder) / "clips", config)
        settings = flowkit.load_config(None, shard__keep_faces=True)
        flowkit.extract(manifest, Path(folder) / "out", settings)
        (shard,) = flowkit.ShardFolder.open(Path(folder) / "out").shards()
        panels = clip_panels(shard.sample(0), SCALE_PX)
    side = next(iter(panels.values())).shape[0]
    wheel = colour_wheel(side)
    gap = np.full((side, GAP_PX, 3), 255, np.uint8)
    row = [part for panel in [*panels.values(), wheel] for part in (gap, panel)]
    options.out.write_bytes(png_bytes(np.hstack(row[1:])))


if __name__ == "__main__":
    main()
