"""Options that several commands share; with COMPUTE_SETTINGS and STORE_SETTINGS those that decide the bytes of shards."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.common import FOLDER, setting_options
from flowkit.config import ExtractConfig

FILE = click.Path(path_type=Path)
READ_SETTINGS = [
    click.option(
        "--index-base",
        "frames__index_base",
        type=click.IntRange(0, 1),
        help="Number of a video's first frame.  [default: 0]",
    ),
    click.option(
        "--nearest",
        "frames__nearest",
        is_flag=True,
        default=None,
        help="Read the nearest frame where one is missing from a folder; recorded.",
    ),
    click.option(
        "--follow-symlinks",
        "frames__follow_symlinks",
        is_flag=True,
        default=None,
        help="Accept links that lead out of the root.",
    ),
]
FRAME_SETTINGS = [
    click.option(
        "--missing-apex",
        "frames__missing_apex",
        type=click.Choice(["fail", "midpoint", "offset", "spot"]),
        help="What an empty apex means; spot: find it.  [default: fail]",
    ),
    click.option(
        "--missing-offset",
        "frames__missing_offset",
        type=click.Choice(["fail", "invalid"]),
        help="What an empty offset means.  [default: fail]",
    ),
    click.option(
        "--strict-phases",
        "frames__strict_phases",
        is_flag=True,
        default=None,
        help="Fail clips with a phase of no length, instead of marking it invalid.",
    ),
    *READ_SETTINGS,
]
ALIGN_SETTINGS = [
    click.option(
        "--align",
        "align__method",
        type=click.Choice(["mediapipe", "landmarks", "none"]),
        help="Where the face is: found by mediapipe, in --landmarks FILE, or cropped already.  [default: mediapipe]",
    ),
    click.option("--landmarks", "align__landmarks", help="CSV with clip_id, point, x, y, for --align landmarks."),
    click.option("--face-model", "align__face_model", help="A face_landmarker.task in place of the bundled one."),
    click.option(
        "--stabilise",
        "align__stabilise",
        type=click.Choice(["head", "similarity", "affine", "register", "none"]),
        help="How head motion is taken out; head: in three dimensions, told apart from the expression; similarity: as version 0.1 "
        "did.  [default: head]",
    ),
    click.option(
        "--match-light/--no-match-light",
        "align__match_light",
        default=None,
        help="Match the light of apex and offset to the onset.  [default: match]",
    ),
]
COMPUTE_SETTINGS = [
    *FRAME_SETTINGS,
    click.option("--size", "align__size", type=int, help="Side of the face crop in pixels.  [default: 224]"),
    *ALIGN_SETTINGS,
    click.option(
        "--backend",
        "backend",
        type=click.Choice(["auto", "cuda", "numba-cuda", "cpu", "reference"]),
        help="What computes the flow; never falls back by itself.  [default: auto]",
    ),
]
STORE_SETTINGS = [
    click.option("--shard-clips", "shard__clips", type=int, help="Clips per shard file.  [default: 256]"),
    click.option(
        "--compress", "shard__compress", type=click.Choice(["none", "zstd"]), help="For archives.  [default: none]"
    ),
    click.option(
        "--keep-faces",
        "shard__keep_faces",
        is_flag=True,
        default=None,
        help="Store the aligned faces too: personal data.",
    ),
]
"""With COMPUTE_SETTINGS the flags that decide the bytes of shards, each named after its key in a settings file (dots doubled)."""
SETTINGS = setting_options("tvl1.lambda_=0.1", ExtractConfig)
MANIFEST_ROOT = click.option(
    "--root", type=FOLDER, help="What paths in the manifest are relative to.  [default: its folder]"
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
EXTRACT_PLACES = [
    click.option(
        "--out", type=FOLDER, required=True, help="Folder of the shards; a run that was stopped goes on there."
    ),
    MANIFEST_ROOT,
    click.option("--overwrite", is_flag=True, help="Discard what --out holds."),
    click.option("--retry-failed", is_flag=True, help="Try clips again that failed before."),
    click.option(
        "--verify-sources", is_flag=True, help="Compare the frames of committed clips with what was read then."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing."),
]
EXTRACT_RUN = [
    click.option(
        "--workers",
        type=int,
        default=0,
        help="Processes that read and align, and on the CPU compute flow.  [default: one per core]",
    ),
    click.option(
        "--threads",
        type=int,
        default=0,
        help="Threads that compute, over all of these.  [default: one per core]",
    ),
    click.option("--batch", type=int, default=16, show_default=True, help="Clips whose flow a GPU computes together."),
    click.option(
        "--timeout",
        type=float,
        default=120.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time for a clip in a worker.",
    ),
    click.option("--device", metavar="INDICES", help="GPUs, such as 0,1; one process each.  [default: the first]"),
    click.option(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="Dask cluster that computes: local, tcp://host:8786, or a scheduler file. --workers and --threads are then for "
        "each of its threads.  [default: this process]",
    ),
    click.option(
        "--part",
        metavar="i/N|slurm",
        help="Do one share of the tasks, 0/4 to 3/4 for four runs on one --out; slurm: that of this element of a job array.",
    ),
    click.option("--shard", hidden=True, help="The name of --part up to version 0.2."),
    click.option("--profile", is_flag=True, help="Print per stage wall and CPU time, and who waited for whom."),
    click.option(
        "--max-error-rate",
        type=float,
        default=0.1,
        show_default=True,
        help="Share of clips that may fail before the run stops, after a shard.",
    ),
]
