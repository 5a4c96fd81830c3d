"""The frozen scenes in `scenes/*.toml`: settings of synthetic data sets by which this and later versions are judged.

A file has a table `[people]`, whose seeds keep people for tuning and for judging apart, a table `[common]`, and in `[groups.NAME]`
what each group changes of it. Both hold settings of `SynthConfig` or of `RecordingConfig` of `flowkit.synthetic`.
`face3d = "face3d"` stands for the second face, which lies outside the project: see `FACE3D`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from flowkit.synthetic.dataset import SynthConfig
from flowkit.synthetic.recordings import RecordingConfig

FOLDER = Path(__file__).parent / "scenes"
FACE3D = Path(__file__).parents[2] / "shared" / "data" / "face3d" / "face3d.npz"
"""The second, independent face; it is no part of the project."""


def read(name: str) -> dict[str, Any]:
    """Content of one file of scenes."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def settings(table: dict[str, Any], **more: Any) -> SynthConfig:
    """Settings of a data set; lists become tuples."""
    return SynthConfig(**_values(SynthConfig, {**table, **more}))


def recording_settings(group: str, people: str = "judging", **more: Any) -> RecordingConfig:
    """Settings of one group of `recordings.toml`, of people for tuning or for judging."""
    scenes = read("recordings")
    seed = scenes["people"][f"{people}_seed"]
    table = {**scenes["common"], **scenes["groups"][group], "seed": seed, **more}
    return RecordingConfig(**_values(RecordingConfig, table))


def _values(kind: type, table: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(kind)}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key in known}
    if values.get("face3d") == "face3d":
        values["face3d"] = str(FACE3D)
    return values


def face3d_missing() -> str:
    """Why the second face cannot be rendered here; empty where it can."""
    return "" if FACE3D.is_file() else f"there is no {FACE3D}"
