"""Pictures say what the numbers say, and the legend cannot lie."""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image

from flowkit.reports.pictures import (
    clip_panels,
    clip_strip,
    colour_wheel,
    data_uri,
    flow_picture,
    mmcof_picture,
    mmcof_wheel,
    png_bytes,
)
from shard_builder import true_flow

SIDE = 101
PUBLISHED = {"right": (255, 0, 0), "down": (255, 229, 0), "left": (0, 209, 255), "up": (88, 0, 255)}
"""Full colours of the published table, which divides a turn into 54 steps where a closed wheel has 55."""


def uniform(angle: float, magnitude: float = 1.0) -> np.ndarray:
    flow = np.array([math.cos(angle), math.sin(angle)]) * magnitude
    return np.broadcast_to(flow[:, None, None], (2, 4, 5))


@pytest.mark.parametrize(("name", "quarter"), [("right", 0), ("down", 1), ("left", 2), ("up", 3)])
def test_a_direction_has_the_hue_of_the_published_code(name: str, quarter: int) -> None:
    picture = flow_picture(uniform(quarter * math.pi / 2), 1.0)
    assert np.abs(picture.astype(int) - PUBLISHED[name]).max() <= 15


@pytest.mark.parametrize("eighth", range(8))
@pytest.mark.parametrize("magnitude", [0.4, 0.96])
def test_the_wheel_shows_each_flow_where_it_points(eighth: int, magnitude: float) -> None:
    angle, centre = eighth * math.pi / 4, SIDE // 2
    x = round(centre + magnitude * math.cos(angle) * centre)
    y = round(centre + magnitude * math.sin(angle) * centre)
    reached = np.array([[[x - centre]], [[y - centre]]]) / centre
    assert (flow_picture(reached * 2.5, 2.5)[0, 0] == colour_wheel(SIDE)[y, x]).all()
    combined = np.concatenate([reached, np.hypot(*reached)[None]])
    assert (mmcof_picture(combined)[0, 0] == mmcof_wheel(SIDE)[y, x]).all()


def test_no_motion_is_white_in_flow_and_black_in_mmcof() -> None:
    assert (flow_picture(np.zeros((2, 4, 5)), 1.0) == 255).all()
    assert (mmcof_picture(np.zeros((3, 4, 5))) == 0).all()


def test_saturation_grows_up_to_the_scale_and_darkens_beyond() -> None:
    green = [int(flow_picture(uniform(0, magnitude), 2.0)[0, 0, 1]) for magnitude in (0, 1, 2)]
    assert green == [255, 128, 0]
    assert flow_picture(uniform(0, 2.1), 2.0)[0, 0].tolist() == [191, 0, 0]


def test_mmcof_is_hsv_with_direction_as_hue_and_magnitude_as_value() -> None:
    angles = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    values = np.linspace(0, 1, 50)
    picture = mmcof_picture(np.stack([values * np.cos(angles), values * np.sin(angles), values])[:, None])
    expected = [colorsys.hsv_to_rgb(a / (2 * math.pi), 1, v) for a, v in zip(angles, values, strict=True)]
    assert np.abs(picture[0] - 255 * np.array(expected)).max() <= 0.51


def test_a_clip_shows_its_phases_and_where_the_face_lies_but_faces_only_if_kept() -> None:
    flow = true_flow(0, 64)
    regions = np.zeros((64, 64), np.uint8)
    regions[8:56, 12:52] = 1
    sample = {"flow": flow.astype(np.float16), "mmcof": np.zeros((3, 64, 64), np.float16), "regions": regions}
    panels = clip_panels(sample, 1.0)
    assert list(panels) == ["rise", "fall", "mmcof"]
    assert panels["rise"][48, 32].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert panels["fall"][48, 32, 0] < 60
    for panel in panels.values():
        grey = (panel == 128).all(axis=-1)
        assert grey[8, 12:52].all()
        assert grey[8:56, 51].all()
        assert grey.sum() == 2 * 48 + 2 * 40 - 4
    assert clip_strip(sample, 1.0).shape == (64, 3 * 64 + 2 * 2, 3)
    with_faces = clip_panels({**sample, "faces": np.full((3, 64, 64), 0.5, np.float16)}, 1.0)
    assert list(with_faces) == ["onset", "apex", "offset", "rise", "fall", "mmcof"]
    assert (with_faces["apex"] == 128).all()


def test_a_png_holds_exactly_the_picture_and_nothing_else() -> None:
    wheel = colour_wheel(33)
    png = png_bytes(wheel)
    with Image.open(io.BytesIO(png)) as image:
        assert (np.asarray(image) == wheel).all()
        assert not image.info
    assert png == png_bytes(wheel)
    assert data_uri(png).startswith("data:image/png;base64,iVBOR")
