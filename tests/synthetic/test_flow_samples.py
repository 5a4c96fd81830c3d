"""Samples at flow level: what they hold, that they depend on nothing but seed and number, and that files are whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import flowkit
from flowkit.config import ExtractConfig
from flowkit.errors import ConfigError, Interrupted, ShardCorrupt
from flowkit.execution.stop import Stop
from flowkit.face.canonical_face import can_be_carried
from flowkit.face.landmarks import CANONICAL, LEFT_EYE, RIGHT_EYE
from flowkit.face.regions import regions
from flowkit.storage.sample_reader import each_sample_file, read_samples
from flowkit.storage.schema import FACE
from flowkit.synthetic.degradation import Degradation, degrade, nearest_similarity, smooth_noise
from flowkit.synthetic.expressions import EMOTIONS, MEGC2019
from flowkit.synthetic.flow_samples import FlowConfig, _label, make_sample
from flowkit.synthetic.sample_files import write_samples

SMALL = FlowConfig(samples=12, size=32, per_person=4)
CLEAN = Degradation(smear=0, half_gradient=0, gain_spread=0, absorbed=0, noise=0, outliers=0)


class StopAfter(Stop):
    """Ends a run after some samples."""

    def __init__(self, samples: int) -> None:
        super().__init__("synth")
        self._left = samples

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            self.request()
        super().check()


def test_a_folder_holds_what_its_docstring_says(tmp_path: Path) -> None:
    samples = read_samples(write_samples(tmp_path / "out", SMALL, workers=1))
    assert {name: (values.shape, values.dtype.name) for name, values in samples.items()} == {
        "flow": ((12, 2, 2, 32, 32), "float16"),
        "label": ((12,), "int8"),
        "class": ((12,), "int8"),
        "subject": ((12,), "int32"),
        "action_units": ((12, 2, 34), "float16"),
        "peak": ((12,), "float32"),
        "seed": ((12,), "uint64"),
        "landmarks": ((12, 478, 2), "float32"),
        "region": ((12, 32, 32), "bool"),
    }
    assert samples["subject"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.isfinite(samples["flow"]).all()
    with h5py.File(next((tmp_path / "out").glob("*.h5"))) as file:
        assert file.attrs["units"] == "px"
        assert tuple(file.attrs["labels"]) == tuple(EMOTIONS)
        assert tuple(file.attrs["classes"]) == ("negative", "positive", "surprise")
        assert len(file.attrs["action_units"]) == 34
        assert json.loads(file.attrs["settings"])["size"] == 32
    for label, group in zip(samples["label"], samples["class"], strict=True):
        emotion = tuple(EMOTIONS)[label]
        assert group == {"happiness": 1, "surprise": 2}.get(emotion, 0)


def test_a_file_says_which_shards_it_is_like(tmp_path: Path) -> None:
    (flow,) = each_sample_file(write_samples(tmp_path / "flow", SMALL, workers=1))
    assert flow.facts["stands_for"] == ExtractConfig().to_dict()
    pictures = dataclasses.replace(SMALL, form="pictures")
    (file,) = each_sample_file(write_samples(tmp_path / "pictures", pictures, workers=1))
    assert (file.facts["units"], file.facts["stands_for"]["import"]) == (
        "minmax",
        {"zero": "median", "scale": "spread"},
    )
    assert not {"landmarks", "region"} & set(file.columns)


def test_labels_are_as_frequent_as_is_asked_for() -> None:
    for shares, wanted in (("equal", dict.fromkeys(EMOTIONS, 1.0)), ("megc2019", MEGC2019)):
        config = dataclasses.replace(SMALL, label_shares=shares)
        rng = np.random.default_rng(0)
        drawn = [_label(rng, config) for _ in range(4000)]
        for label, count in wanted.items():
            assert abs(drawn.count(label) / 4000 - count / sum(wanted.values())) < 0.03
    assert sum(MEGC2019.values()) == pytest.approx(442)


def test_landmarks_lie_where_alignment_brings_them_and_bound_the_face() -> None:
    for number in range(4):
        sample = make_sample(number, dataclasses.replace(SMALL, size=112, pose_deg=0.0))
        eyes = sample.landmarks[[LEFT_EYE, RIGHT_EYE]]
        assert np.allclose(eyes, np.array([CANONICAL[LEFT_EYE], CANONICAL[RIGHT_EYE]]) * 112 - 0.5, atol=1.5)
        assert np.array_equal(sample.region, regions(sample.landmarks, np.eye(2, 3), 112) & FACE > 0)
        assert (sample.region & sample.inside[0]).sum() > 0.9 * sample.region.sum()  # the rest: eyes, mouth, hair
        assert can_be_carried(sample.landmarks, np.eye(2, 3))


@pytest.mark.parametrize("spoil", ["cut", "columns", "attribute", "json", "settings"])
def test_a_damaged_file_is_named(spoil: str, tmp_path: Path) -> None:
    out = write_samples(tmp_path / "out", SMALL, workers=1)
    path = next(out.glob("*.h5"))
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif spoil == "settings":
        path = out / "settings.json"
        path.write_text('{"files": -3}')
    else:
        with h5py.File(path, "a") as file:
            if spoil == "columns":
                del file["seed"]
            elif spoil == "attribute":
                del file.attrs["stands_for"]
            else:
                file.attrs["stands_for"] = "{"
    with pytest.raises(ShardCorrupt, match=f"{path.name}: must "):
        read_samples(out)


def test_the_largest_true_motion_is_the_peak() -> None:
    config = dataclasses.replace(SMALL, size=64, peak_px=(0.3, 0.9))
    for number in range(6):
        sample = make_sample(number, config)
        largest = np.hypot(*sample.truth[0]).max()
        assert 0.3 <= sample.peak_px <= 0.9
        assert 0.85 * sample.peak_px < largest <= 1.01 * sample.peak_px  # between pixel centres, or hidden


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    first, again = (write_samples(tmp_path / name, SMALL, workers=1) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    other = dataclasses.replace(SMALL, seed=1)
    mine, theirs = make_sample(0, SMALL), make_sample(0, other)
    assert not np.array_equal(mine.inside, theirs.inside)  # another face, not only other luck
    assert mine.seed != theirs.seed


def test_a_sample_does_not_depend_on_how_many_there_are_or_who_makes_them(tmp_path: Path) -> None:
    few = read_samples(write_samples(tmp_path / "few", SMALL, workers=1))
    more = dataclasses.replace(SMALL, samples=30, per_person=4)
    assert np.array_equal(read_samples(write_samples(tmp_path / "more", more, workers=1))["flow"][:12], few["flow"])


def test_workers_write_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.synthetic.flow_samples.FILE_BYTES", 8 * 32**2 * 4)  # one person a file
    alone, together = (write_samples(tmp_path / str(count), SMALL, workers=count) for count in (1, 2))
    assert len(list(together.glob("*.h5"))) == 3
    for path in together.iterdir():
        assert path.read_bytes() == (alone / path.name).read_bytes()


def test_a_stopped_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.synthetic.flow_samples.FILE_BYTES", 8 * 32**2 * 4)  # one person a file
    whole = write_samples(tmp_path / "whole", SMALL, workers=1)
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="resumes"):
        write_samples(out, SMALL, workers=1, stop=StopAfter(6))
    assert [path.name for path in sorted(out.glob("*.h5"))] == ["samples-00000.h5"]
    with pytest.raises(ConfigError, match="must hold 3 files of samples; got 1"):
        read_samples(out)
    before = (out / "samples-00000.h5").stat().st_mtime_ns
    write_samples(out, SMALL, workers=1)
    assert (out / "samples-00000.h5").stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    out = write_samples(tmp_path / "out", dataclasses.replace(SMALL, samples=1), workers=1)
    with pytest.raises(ConfigError, match="settings must be those"):
        write_samples(out, dataclasses.replace(SMALL, samples=1, seed=3), workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="must be an empty folder"):
        write_samples(tmp_path / "full", SMALL, workers=1)
    with pytest.raises(ConfigError, match=r"must hold settings\.json"):
        read_samples(tmp_path)


def test_degraded_flow_still_shows_the_true_motion() -> None:
    """Extracted clips with such peaks, their head nearly still, have a median cosine above 0.6: benchmarks/degradation.py."""
    config = FlowConfig(size=56, peak_px=(0.4, 0.8), turn_deg=0.2)
    cosines = []
    for number in range(20):
        sample = make_sample(number, config)
        inside = np.broadcast_to(sample.inside[:, None], sample.flow.shape)
        flow, truth = sample.flow[inside], sample.truth[inside]
        cosines.append((flow @ truth) / np.linalg.norm(flow) / np.linalg.norm(truth))
        assert not np.array_equal(flow, truth)
    assert np.median(cosines) > 0.6
    assert np.median(cosines) < 0.99  # and it is degraded


def test_nobody_need_move() -> None:
    sample = make_sample(0, dataclasses.replace(SMALL, size=64, peak_px=(0, 0), turn_deg=0, drift=0))
    assert np.all(sample.truth == 0)
    assert 0 < sample.flow.std() < 0.1  # noise is left
    assert sample.peak_px == 0


def test_a_turn_of_the_head_is_left_but_for_its_similarity() -> None:
    turning, still = (dataclasses.replace(SMALL, size=64, peak_px=(0, 0), turn_deg=turn, drift=0) for turn in (10, 0))
    lengths = [np.median([np.abs(make_sample(k, config).flow).mean() for k in range(8)]) for config in (turning, still)]
    assert lengths[0] > 5 * lengths[1]


def test_what_stands_still_behind_a_drifting_head_moves_the_other_way() -> None:
    config = dataclasses.replace(SMALL, size=64, peak_px=(0, 0), turn_deg=0, drift=0.1)
    sample = make_sample(0, config)
    corner, face = np.abs(sample.flow[0, :, :6, :6]).mean(), np.abs(sample.flow[0][:, sample.inside[0]]).mean()
    assert corner > 5 * face


def test_nothing_degraded_is_the_truth() -> None:
    rng = np.random.default_rng(0)
    flow = smooth_noise(rng, (2, 2), 48, 6.0)
    plain = np.full((2, 48, 48), 2.5, np.float32)
    assert np.abs(degrade(flow, plain, plain > 0, 1.0, rng, CLEAN) - flow).max() < 0.02  # a blur of 0.3 px is the least


def test_damping_is_stronger_where_there_is_little_texture_and_for_weak_motion() -> None:
    texture = np.full((2, 64, 64), 0.5, np.float32)
    texture[:, :, 32:] = 8
    how = dataclasses.replace(CLEAN, half_gradient=2.0)
    gains = []
    for length in (0.1, 1.0):
        flow = np.full((2, 2, 64, 64), length, np.float32)
        measured = degrade(flow, texture, texture > 0, 0.0, np.random.default_rng(0), how) / length
        gains.append((float(measured[..., :28].mean()), float(measured[..., 36:].mean())))
    (weak_plain, weak_rich), (strong_plain, strong_rich) = gains
    assert weak_plain < strong_plain < strong_rich < 1
    assert weak_plain < weak_rich < strong_rich


def test_rise_and_fall_share_the_noise_of_the_apex() -> None:
    texture = np.full((2, 64, 64), 2.5, np.float32)
    still = np.zeros((2, 2, 64, 64), np.float32)
    rng = np.random.default_rng(0)
    how = dataclasses.replace(Degradation(), outliers=0, absorbed=0)
    pairs = np.array([degrade(still, texture, texture > 0, 1.0, rng, how) for _ in range(40)])
    assert np.corrcoef(pairs[:, 0].ravel(), pairs[:, 1].ravel())[0, 1] == pytest.approx(-how.noise_shared, abs=0.05)


def test_a_similarity_is_nearest_to_itself() -> None:
    y, x = np.indices((40, 40), np.float32)
    inside = np.asarray(np.hypot(x - 20, y - 18) < 15, np.float32)
    field = np.stack([0.3 + 0.01 * x - 0.02 * y, -0.1 + 0.02 * x + 0.01 * y])
    assert np.abs(nearest_similarity(field, inside) - field).max() < 1e-4
    assert np.all(nearest_similarity(field, np.zeros_like(inside)) == 0)


def test_pictures_are_scaled_as_an_import_scales_them() -> None:
    flow = make_sample(0, FlowConfig(form="pictures")).flow
    assert flow.shape == (2, 2, 28, 28)
    assert np.allclose(np.median(flow, axis=(2, 3)), 0, atol=1e-6)
    assert np.allclose(flow.std(axis=(2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("samples", 0), ("size", 27), ("size", 513), ("form", "video"), ("classes", ()), ("classes", ("joy",))),
        *(("classes", ("fear", "fear")), ("per_person", 0), ("peak_px", (0.5, 0.2)), ("peak_px", (0, 1))),
        *(
            ("peak_px", (1, 99)),
            ("turn_deg", 16),
            ("pose_deg", -1),
            ("stray", 1.1),
            ("peak_px", (np.nan, np.nan)),
            ("noise", (0, 1)),
        ),
    ],
)
def test_bad_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        FlowConfig(**{name: value})  # type: ignore[arg-type]


def test_the_command_writes_samples(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--samples", "3", "--size", "28", "--classes", "fear,anger", "--workers", "1")
    done = flowkit("synth", "--level", "flow", "--out", out, *words)
    assert done.code == 0, done.err
    assert done.out.strip() == str(out)
    assert set(read_samples(out)["label"]) <= {tuple(EMOTIONS).index(label) for label in ("fear", "anger")}


@pytest.mark.parametrize(
    ("level", "words"), [("flow", ("--fps", "30")), ("clips", ("--samples", "3")), ("clips", ("--workers", "2"))]
)
def test_an_option_of_the_other_level_is_refused(tmp_path: Path, level: str, words: tuple[str, ...]) -> None:
    done = flowkit("synth", "--level", level, "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert f"{words[0]}: not an option of --level {level}" in done.err
    assert not (tmp_path / "out").exists()
