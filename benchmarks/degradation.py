"""Is the flow of `flowkit synth --level flow` degraded as extraction degrades it? Clips and samples, measured in the same way.

    python benchmarks/degradation.py --people 8 --out benchmarks/results/degradation.json

Three groups: faces that move while the head is still; nobody moves (what is left is noise); nobody moves but the head, by up to 0.5
degrees out of the plane. Clips are rendered, and extracted with the defaults; samples come from `make_sample` with the same ranges.
The constants of flowkit/synthetic/degradation.py are set so that both columns agree; a change of the alignment or the solver asks
for another look. Error: flow minus true local flow, inside the face. Shares of the side: per mille of the crop's side.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import numpy.typing as npt

import machine
from flowkit.synthetic.dataset import SynthConfig, read_truth, synthesise
from flowkit.synthetic.flow_samples import FlowConfig, make_sample

Array = npt.NDArray[Any]
STILL: dict[str, Any] = {"drift_px": 0.0, "drift_deg": 0.0, "drift_scale": 0.0, "turn_deg": 0.0, "light": 0.0}
GROUPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "expression": (STILL, {"turn_deg": 0.0, "drift": 0.0}),
    "nothing": (STILL | {"peak_px": (0.0, 0.0)}, {"turn_deg": 0.0, "drift": 0.0, "peak_px": (0.0, 0.0)}),
    "turn": ({"peak_px": (0.0, 0.0), "turn_deg": 0.5}, {"peak_px": (0.0, 0.0), "turn_deg": 0.5}),
}
"""Settings of the clips, and those of the samples, beyond what all have."""
NOISE = 1.0
SAMPLES = 4
"""For each clip: they cost little."""
GRADIENT_BLUR = 0.018
"""Of the squared gradient, as a share of the side."""
RIM = 0.02
"""Share of the side that is left out along the edge of the face: where hair and background begin, another error reigns."""


@dataclass(frozen=True)
class Case:
    """Both phases of one clip or sample: flow and truth (2, 2, S, S), gradient (2, S, S) per side, inside (2, S, S)."""

    flow: Array
    truth: Array
    gradient: Array
    inside: Array


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=8, help="of each group; eight clips each, two where nobody moves")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    results = {}
    for name, (of_clips, of_samples) in GROUPS.items():
        classes = None if name == "expression" else ("fear", "anger")
        with tempfile.TemporaryDirectory() as folder:
            config = SynthConfig(
                **{"subjects": options.people, "seed": options.seed, "classes": classes, "noise": NOISE, "blinks": 0.0},
                **{"key_frames_only": True, **of_clips},
            )
            clips = list(extracted(Path(folder), config, options.size))
        if name == "expression":
            peaks = [np.hypot(*case.truth[0])[case.inside[0]].max() for case in clips]
            of_samples = of_samples | {"peak_px": tuple(np.quantile(peaks, (0.03, 0.97)).tolist())}
        settings = FlowConfig(size=options.size, seed=options.seed, noise=(NOISE, NOISE), per_person=8, **of_samples)
        samples = [sampled(number, settings) for number in range(SAMPLES * len(clips))]
        results[name] = {"clips": measured(clips), "samples": measured(samples), "count": (len(clips), len(samples))}
        print(table(name, results[name]))
    if options.out:
        machine.write(options.out, "degradation", vars(options) | {"out": None, "groups": results})


def extracted(folder: Path, config: SynthConfig, size: int) -> Iterator[Case]:
    """Render and extract clips; yield them with their truth on the crop's grid."""
    manifest = synthesise(folder / "clips", config)
    command = [
        sys.executable,
        "-m",
        "flowkit.cli",
        "extract",
        str(manifest),
        "--out",
        str(folder / "out"),
        "--keep-faces",
    ]
    subprocess.run([*command, "--size", str(size)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    for path in sorted(folder.glob("out/shards/*/*.h5")):
        with h5py.File(path) as file:
            for row, clip in enumerate(file["clip_id"].asstr()[:]):
                truth = read_truth(folder / "clips" / "truth" / f"{clip}.npz")
                transform, faces = file["transform"][row], file["faces"][row].astype(np.float32)
                warped = [[cv2.warpAffine(c, transform, (size, size)) for c in phase] for phase in truth.flow_local]
                seen = [
                    cv2.warpAffine(mask.astype(np.uint8), transform, (size, size), flags=cv2.INTER_NEAREST)
                    for mask in truth.visible
                ]
                yield Case(
                    flow=file["flow"][row].astype(np.float32),
                    truth=np.einsum("ij,pjhw->pihw", transform[:, :2], np.array(warped)).astype(np.float32),
                    gradient=np.stack([gradient(face) for face in faces[:2]]),
                    inside=np.stack([narrowed((file["regions"][row] & 1 > 0) & (mask > 0)) for mask in seen]),
                )


def sampled(number: int, config: FlowConfig) -> Case:
    """One sample, with what it was made of."""
    sample = make_sample(number, config)
    return Case(sample.flow, sample.truth, sample.gradient, np.stack([narrowed(mask) for mask in sample.inside]))


def gradient(face: Array) -> Array:
    """Length of the local gradient of grey levels from 0 to 1, per side of the crop."""
    side = len(face)
    across, down = (cv2.Sobel(face, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt(cv2.GaussianBlur(across**2 + down**2, (0, 0), GRADIENT_BLUR * side)) * side)


def narrowed(mask: Array) -> Array:
    """A mask without its rim."""
    rim = max(1, round(RIM * len(mask)))
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)) > 0)


# --- measures


def measured(cases: list[Case]) -> dict[str, float]:
    """Every measure of a group."""
    flow, truth, texture, inside = (
        np.concatenate([getattr(case, name) for case in cases]) for name in ("flow", "truth", "gradient", "inside")
    )
    error, side = flow - truth, flow.shape[-1]
    deviation = [np.sqrt((e[:, m] ** 2).mean()) / side * 1000 for e, m in zip(error, inside, strict=True)]
    edges = np.quantile(texture[inside], (0, 0.25, 0.75, 1))
    plain, rich = inside & (texture <= edges[1]), inside & (texture >= edges[2])
    found = {
        "gradient, lower quartile": float(edges[1]),
        "gradient, upper quartile": float(edges[2]),
        "error, sd (per mille of the side)": float(np.median(deviation)),
        "error, sd, 10 % of the phases": float(np.quantile(deviation, 0.1)),
        "error, sd, 90 % of the phases": float(np.quantile(deviation, 0.9)),
        "error, sd, plain / rich texture": _rms(error, plain) / _rms(error, rich),
        **correlations(error, inside),
        **tails(error, inside),
        "error, share of a head's motion": float(
            np.median([head_share(*pair) for pair in zip(error, inside, strict=True)])
        ),
        "error, rise against fall": float(np.corrcoef(*_both_phases(error, inside))[0, 1]),
    }
    if truth.any():
        pairs = [(f[:, m].ravel(), t[:, m].ravel()) for f, t, m in zip(flow, truth, inside, strict=True)]
        lengths = [np.linalg.norm(f) / np.linalg.norm(t) for f, t in pairs]
        cosines = [f @ t / np.linalg.norm(f) / np.linalg.norm(t) for f, t in pairs]
        found |= {
            "length / true length": float(np.median(lengths)),
            "cosine with the truth": float(np.median(cosines)),
            "cosine, 10 % of the phases": float(np.quantile(cosines, 0.1)),
            "gain, plain texture": _gain(flow, truth, plain),
            "gain, rich texture": _gain(flow, truth, rich),
            **gains_by_peak(pairs),
        }
    return found


def gains_by_peak(pairs: list[tuple[Array, Array]]) -> dict[str, float]:
    """Gain of the third of the phases that moves least, and of that which moves most."""
    order = np.argsort([np.abs(truth).max() for _, truth in pairs])
    third = max(1, len(order) // 3)
    gains = {}
    for name, chosen in (("weak", order[:third]), ("strong", order[-third:])):
        flow, truth = (np.concatenate([pairs[i][k] for i in chosen]) for k in (0, 1))
        gains[f"gain, {name} motion"] = float(flow @ truth / (truth @ truth))
    return gains


def correlations(error: Array, inside: Array) -> dict[str, float]:
    """Correlation of the error with itself: one pixel away, and where it has fallen to a half and to a fifth."""
    side = error.shape[-1]
    masked = error * inside[:, None]
    values = []
    for lag in range(side // 2):
        pairs = 2 * (inside[..., lag:] & inside[..., : side - lag]).sum()
        values.append(float((masked[..., lag:] * masked[..., : side - lag]).sum() / max(pairs, 1)))
    ratios = np.array(values) / values[0]
    below = {level: int(np.argmax(ratios < level)) for level in (0.5, 0.2)}
    return {
        "error, correlation 1 px away": float(ratios[1]),
        **{f"error, correlation {level:g} at (per mille)": lag / side * 1000 for level, lag in below.items()},
    }


def tails(error: Array, inside: Array) -> dict[str, float]:
    """Share of the errors beyond 3 and 5 robust deviations of their phase."""
    scaled = []
    for field, mask in zip(error, inside, strict=True):
        values = np.abs(field[:, mask].ravel())
        scaled.append(values / max(1.4826 * float(np.median(values)), 1e-9))
    everything = np.concatenate(scaled)
    return {f"error, share beyond {k} sd": float((everything > k).mean()) for k in (3, 5)}


def head_share(error: Array, inside: Array) -> float:
    """Share of the squared error that a head's motion explains: shift, turn and size in the plane, and turns out of it."""
    side = error.shape[-1]
    y, x = (np.indices((side, side)) - side / 2) / side
    near, none = 0.5 - 2 * x**2 - y**2, 0 * x
    fields = [(none + 1, none), (none, none + 1), (x, y), (-y, x), (near, none), (none, near)]
    design = np.stack([np.concatenate([u[inside], v[inside]]) for u, v in fields], axis=1)
    values = np.concatenate(list(error[:, inside]))
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(1 - (left @ left) / max(float(values @ values), 1e-12))


def _both_phases(error: Array, inside: Array) -> tuple[Array, Array]:
    both = (inside[0::2] & inside[1::2])[:, None] & np.ones((1, 2, 1, 1), bool)
    return error[0::2][both], error[1::2][both]


def _rms(error: Array, where: Array) -> float:
    return float(np.sqrt((error.swapaxes(0, 1)[:, where] ** 2).mean()))


def _gain(flow: Array, truth: Array, where: Array) -> float:
    measured, true = (field.swapaxes(0, 1)[:, where].ravel() for field in (flow, truth))
    return float(measured @ true / (true @ true))


def table(name: str, group: dict[str, Any]) -> str:
    """One group as Markdown."""
    lines = [f"\n| {name} | {group['count'][0]} clips | {group['count'][1]} samples |", "| --- | --- | --- |"]
    lines += [f"| {key} | {group['clips'][key]:.3f} | {group['samples'][key]:.3f} |" for key in group["clips"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
