"""Shards as training sees them: several folders, classes, sizes, worker processes, and what is refused in words."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import long_face
from torch.utils.data import DataLoader

import shard_builder
import version_0_1
from flowkit.errors import ConfigError, FlowkitError, SchemaTooNew, ShardCorrupt
from flowkit.face.canonical_face import canonical_flow
from flowkit.interop.stst_import import import_stst
from flowkit.interop.stst_layout import SIDE
from flowkit.storage import hashed_json
from flowkit.storage.folder import ShardFolder
from flowkit.storage.schema import NEWER_SETTINGS
from fmanet.dataset import STRONGEST_CM, Clips, ShardDataset
from fmanet.flow_origin import alignments, refuse_mixed
from fmanet.seen_flow import resized
from shard_builder import build_folder, true_flow

PAIR = ("casme2", "samm")


def flow_of(clip: int, size: int) -> torch.Tensor:
    """The flow that the builder stored, as stored."""
    return torch.from_numpy(true_flow(clip, size).astype(np.float16).astype(np.float32))


def folder(tmp_path: Path, name: str = "shards", **given: object) -> Path:
    return build_folder(tmp_path / name, **{"clips": 6, "datasets": PAIR, **given})  # type: ignore[arg-type]


def imported(root: Path, out: Path) -> Path:
    """Two clips of min-max scaled flow."""
    from PIL import Image

    root.mkdir()
    rows = ["dataset,sub,filename_o,label", "smic,s01,s01_ne_01,0", "smic,s02,s02_po_01,1"]
    (root / "list.csv").write_text("\n".join(rows), "utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise[0]).save(root / "s01_s01_ne_01 .png")
    Image.fromarray(noise[1]).save(root / "s02_s02_po_01 .png")
    import_stst(root, out)
    return out


def same(one: Clips, other: Clips) -> bool:
    tensors = all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("flow", "valid", "region", "target")
    )
    return tensors and (one.clip_id, one.subject, one.classes) == (other.clip_id, other.subject, other.classes)


@pytest.mark.parametrize("in_memory", [False, True])
def test_clips_hold_what_the_shards_do(tmp_path: Path, in_memory: bool) -> None:
    dataset = ShardDataset([folder(tmp_path)], "3-class", in_memory=in_memory)
    clips = dataset.clips()
    assert len(dataset) == len(clips) == 6
    assert torch.equal(clips.flow, torch.stack([flow_of(clip, 32) for clip in range(6)]))
    assert clips.flow.dtype == torch.float32
    assert clips.valid.tolist() == [[True, clip != 1] for clip in range(6)]
    assert torch.equal(clips.region[0], torch.from_numpy(shard_builder._regions(32) & 1).bool())
    assert clips.classes == ("negative", "positive", "surprise")
    assert clips.target.tolist() == [1, 2, 0] * 2  # happiness, surprise, disgust
    assert clips.subject == tuple(f"{PAIR[clip % 2]}/s{clip // 2:02d}" for clip in range(6))
    assert clips.source_hash[3] == f"{3:032x}"
    assert (clips.units, dataset.failed, dataset.excluded) == ("px", 1, {})
    item = dataset[4]
    assert torch.equal(item["flow"], clips.flow[4])
    assert [int(item[name]) for name in ("target", "row")] == [int(clips.target[4]), 4]
    assert torch.equal(dataset[-1]["flow"], clips.flow[5])
    part = clips.select([5, 0])
    assert torch.equal(part.flow, clips.flow[[5, 0]])
    assert part.clip_id == ("clip-005", "clip-000")
    assert not len(clips.select([]))


@pytest.mark.parametrize("size", [16, 32, 48])
def test_flow_is_carried_onto_the_canonical_face_where_there_are_landmarks(tmp_path: Path, size: int) -> None:
    out = folder(tmp_path, landmarks={1: long_face(32), 4: long_face(32)})
    dataset = ShardDataset([out], "3-class", size=size)
    clips, stored = dataset.clips(), ShardDataset([out], "3-class", size=size, face="own").clips()
    assert clips.carried == (False, True, False, False, True, False)
    assert stored.carried == (False,) * 6
    for clip in range(6):
        assert torch.equal(dataset[clip]["flow"], clips.flow[clip])
        assert torch.equal(dataset[clip]["region"], clips.region[clip])
        assert torch.equal(clips.flow[clip], stored.flow[clip]) != clips.carried[clip]
    face = torch.from_numpy(shard_builder._regions(32) & 1).bool().numpy()
    flow, share = canonical_flow(flow_of(4, 32).numpy(), face, long_face(32), np.eye(2, 3), size)
    assert torch.equal(clips.flow[4], torch.from_numpy(flow * np.float32(size / 32)))
    assert torch.equal(clips.region[4], torch.from_numpy(share >= 0.5))
    assert not clips.flow[1, 1].any()  # an invalid phase
    assert clips.select([4, 0]).carried == (True, False)


@pytest.mark.parametrize("spoilt", [np.nan, 3e38])
def test_clips_whose_landmarks_are_of_no_use_stay_as_they_are(tmp_path: Path, spoilt: float) -> None:
    landmarks = long_face(32)
    landmarks[152] = spoilt
    out = folder(tmp_path, landmarks={2: landmarks})
    clips = ShardDataset([out], "3-class").clips()
    assert not any(clips.carried)
    assert torch.equal(clips.flow[2], flow_of(2, 32))


def test_action_units_are_those_of_the_shards_and_0_where_unknown(tmp_path: Path) -> None:
    out = folder(tmp_path, hints={1: np.full((2, 34), np.nan), 3: np.array([[np.inf], [-np.inf]]).repeat(34, 1)})
    dataset = ShardDataset([out], "3-class")
    clips = dataset.clips()
    wanted = [torch.from_numpy(shard_builder.of_schema_2(clip)["au_hint"]).float() for clip in range(6)]
    wanted[1] = wanted[3] = torch.zeros(2, 34)
    assert torch.equal(clips.action_units, torch.stack(wanted))
    assert clips.with_action_units == (True, False, True, False, True, True)
    assert all(torch.equal(dataset[clip]["action_units"], wanted[clip]) for clip in range(6))
    part = clips.select([5, 1])
    assert torch.equal(part.action_units, clips.action_units[[5, 1]])
    assert part.with_action_units == (True, False)
    huge = ShardDataset([folder(tmp_path, "huge", hints={0: np.full((2, 34), 3e38)})], "3-class").clips()
    assert huge.action_units.abs().max() <= STRONGEST_CM


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_worker_processes_read_the_same_clips(tmp_path: Path, start: str) -> None:
    dataset = ShardDataset([folder(tmp_path)], "3-class")
    expected = dataset.clips()
    dataset[0]  # leaves a file open here, which the workers must not use
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start, timeout=60)
    batches = list(loader)
    assert torch.equal(torch.cat([batch["flow"] for batch in batches]), expected.flow)
    assert torch.equal(torch.cat([batch["row"] for batch in batches]), torch.arange(6))
    assert torch.equal(torch.stack([dataset[row]["region"] for row in range(6)]), expected.region)


def test_a_pickled_dataset_holds_no_open_file(tmp_path: Path) -> None:
    dataset = ShardDataset([folder(tmp_path)], "3-class")
    dataset[0]
    assert same(pickle.loads(pickle.dumps(dataset)).clips(), dataset.clips())


def test_hashes_are_checked_before_anything_is_read_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder(tmp_path)
    checked: list[Path] = []
    monkeypatch.setattr("fmanet.dataset.verify_file", lambda path, record: checked.append(path))
    dataset = ShardDataset([out], "3-class")
    dataset.clips()
    dataset[0]
    assert sorted(checked) == sorted(out.rglob("*.h5"))
    monkeypatch.undo()
    path = checked[1]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ShardCorrupt, match=r"must hold the \d+ bytes that were committed"):
        ShardDataset([out], "3-class")


def test_labels_left_out_by_design_are_counted(tmp_path: Path) -> None:
    dataset = ShardDataset([folder(tmp_path, labels=("happiness", "others", "disgust"))], "3-class")
    assert dataset.excluded == {"casme2/others": 1, "samm/others": 1}
    assert dataset.clips().clip_id == ("clip-000", "clip-002", "clip-003", "clip-005")


def test_a_shard_of_which_no_clip_is_taken_is_passed_over(tmp_path: Path) -> None:
    out = folder(tmp_path, labels=("others", "others", "disgust", "happiness"), clips=4)
    assert ShardDataset([out], "3-class", size=16).clips().clip_id == ("clip-002", "clip-003")


def test_raw_makes_each_label_a_class_and_no_grouping_takes_every_clip_without_targets(tmp_path: Path) -> None:
    out = folder(tmp_path, labels=("b", "a", ""))
    with pytest.raises(ConfigError, match="label of"):
        ShardDataset([out], "raw")
    clips = ShardDataset([out], None).clips()
    assert (len(clips), clips.classes, set(clips.target.tolist())) == (6, (), {-1})
    raw = ShardDataset([folder(tmp_path, "words", labels=("b", "a"))], "raw")
    assert (raw.classes, raw.clips().target.tolist()) == (("a", "b"), [1, 0] * 3)


def test_several_folders_are_one_dataset_and_size_makes_them_fit(tmp_path: Path) -> None:
    small, large = folder(tmp_path, "small", prefix="s"), folder(tmp_path, "large", size=64, prefix="l")
    with pytest.raises(ConfigError, match=r"got 32 \(.*small\), 64 \(.*large\)\. Pass --size"):
        ShardDataset([small, large], "3-class")
    dataset = ShardDataset([small, large], "3-class", size=32)
    clips = dataset.clips()
    assert len(clips) == 12
    assert torch.equal(clips.flow[:6], ShardDataset([small], "3-class").clips().flow)
    means = flow_of(3, 64).reshape(2, 2, 32, 2, 32, 2).mean((3, 5)) / 2
    assert torch.allclose(clips.flow[9], means, atol=1e-6)
    assert torch.equal(dataset[9]["flow"], clips.flow[9])


@pytest.mark.parametrize(("side", "size"), [(32, 12), (28, 56), (64, 32)])
def test_resizing_scales_vectors_in_pixels_only_and_keeps_the_region(side: int, size: int) -> None:
    """An expansion about the middle by 10 % is one at every size."""

    def expansion(side: int) -> torch.Tensor:
        axis = 0.1 * (torch.arange(side) - (side - 1) / 2)
        return torch.stack([axis.expand(side, side), axis[:, None].expand(side, side)]).expand(1, 2, 2, side, side)

    inside = slice(2, -2)
    half = torch.zeros(1, side, side, dtype=torch.bool)
    half[..., : side // 2] = True
    flow, region = resized(expansion(side), half, size, "px")
    assert torch.allclose(flow[..., inside, inside], expansion(size)[..., inside, inside], atol=0.02)
    assert region.sum() == size * (size // 2)
    relative, _ = resized(expansion(side), half, size, "minmax")
    assert torch.allclose(relative * (size / side), flow)


def test_pixels_and_relative_flow_never_mix(tmp_path: Path) -> None:
    relative = imported(tmp_path / "in", tmp_path / "relative")
    assert ShardDataset([relative], "3-class").clips().units == "minmax"
    with pytest.raises(ConfigError, match=r"one unit; got px \(.*minmax \("):
        ShardDataset([folder(tmp_path), relative], "3-class", size=32)


def test_an_invalid_phase_is_zero_whatever_the_shard_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_builder, "true_flow", lambda clip, size: np.ones((2, 2, size, size), np.float32))
    clips = ShardDataset([folder(tmp_path)], "3-class").clips()
    assert not clips.flow[1, 1].any()
    assert clips.flow[1, 0].all()


def test_flow_that_is_not_finite_names_its_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shard_builder, "true_flow", lambda clip, size: np.full((2, 2, size, size), math.nan if clip == 3 else 0.0)
    )
    dataset = ShardDataset([folder(tmp_path)], "3-class")
    with pytest.raises(ShardCorrupt, match="flow of clip-003 must be finite"):
        dataset.clips()
    with pytest.raises(ShardCorrupt, match="flow of clip-003 must be finite"):
        dataset[3]


def newer(out: Path) -> None:
    run = json.loads((out / "run.json").read_text("utf-8"))["content"]
    (out / "run.json").write_bytes(hashed_json.encode({**run, "schema": hashed_json.SCHEMA + 1}))


def torn(out: Path) -> None:
    next(out.glob("shards/*/*.json")).write_text("{", "utf-8")


@pytest.mark.parametrize(
    ("given", "spoil", "error", "words"),
    [
        ({"clips": 0, "failures": 2}, None, ConfigError, "at least one clip; got 2 failed ones"),
        ({"labels": ("others",)}, None, ConfigError, "belong to a class of 3-class .*; got 6 that it leaves out"),
        ({"labels": ("disgust",)}, None, ConfigError, "two classes of 3-class or more; got 6 of negative alone"),
        ({"labels": ("disgust", "joy")}, None, ConfigError, "label of samm must be one of"),
        ({}, newer, SchemaTooNew, "schema must be at most"),
        ({}, torn, ShardCorrupt, "record and its shard must be whole"),
        ({}, shutil.rmtree, ConfigError, r"got no run\.json"),
    ],
)
def test_folders_that_cannot_be_trained_on_say_why(
    tmp_path: Path,
    given: dict[str, object],
    spoil: Callable[[Path], None] | None,
    error: type[FlowkitError],
    words: str,
) -> None:
    out = folder(tmp_path, **given)
    if spoil is not None:
        spoil(out)
    with pytest.raises(error, match=words):
        ShardDataset([out], "3-class")


def test_no_folder_the_same_clips_twice_and_an_impossible_size_are_refused(tmp_path: Path) -> None:
    out = folder(tmp_path)
    with pytest.raises(ConfigError, match="at least one folder"):
        ShardDataset([], "3-class")
    with pytest.raises(ConfigError, match="6 repeated, clip-000 first"):
        ShardDataset([out, out], "3-class")
    with pytest.raises(ConfigError, match="size must be from 8"):
        ShardDataset([out], "3-class", size=4)
    with pytest.raises(ConfigError, match="grouping must be one of"):
        ShardDataset([out], "three")


def test_clips_of_one_name_in_two_data_sets_are_two(tmp_path: Path) -> None:
    """As in SMIC, whose HS, VIS and NIR parts name their clips alike; another spelling makes no other data set."""
    hs, vis, same_again = (folder(tmp_path, name, datasets=(name,)) for name in ("smic-hs", "smic-vis", "SMIC"))
    clips = ShardDataset([hs, vis], "raw").clips()
    assert (len(clips), len(set(clips.clip_id)), len(set(zip(clips.dataset, clips.clip_id, strict=True)))) == (
        12,
        6,
        12,
    )
    with pytest.raises(ConfigError, match="6 repeated"):
        ShardDataset([hs, same_again], "raw")


def aligned(out: Path, changes: dict[str, object], **given: object) -> Path:
    """A folder whose settings of these dotted names are other ones."""
    made = folder(out.parent, out.name, **given)
    run = ShardFolder.open(made).run
    for name, value in changes.items():
        table, _, key = name.partition(".")
        run["settings"][table][key] = value
    (made / "run.json").write_bytes(hashed_json.encode(run))
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("align.method", "mediapipe"),
        ("align.stabilise", "none"),
        ("align.match_light", False),
        ("align.face_model", "sha256:0"),
        ("align.a_setting_of_tomorrow", 1),
        ("tvl1.lambda_", 0.3),
    ],
)
def test_flow_of_another_alignment_is_refused_unless_asked_for(tmp_path: Path, name: str, value: object) -> None:
    one, other = folder(tmp_path, "one", prefix="a"), aligned(tmp_path / "other", {name: value}, prefix="b")
    ShardDataset([other], "3-class")
    with pytest.raises(ConfigError, match=rf"got \S+one and \S+other, which differ \({name} \S* -> {value}\)\."):
        ShardDataset([one, other], "3-class")
    assert len(ShardDataset([one, other], "3-class", mixed_alignment=True)) == 12


@pytest.mark.parametrize(
    ("name", "value"),
    [("align.landmarks", "sha256:0"), ("frames.index_base", 1), ("shard.clips", 3), ("mmcof.alpha", 2.0)],
)
def test_what_each_data_set_has_of_its_own_mixes(tmp_path: Path, name: str, value: object) -> None:
    one, other = folder(tmp_path, "one", prefix="a"), aligned(tmp_path / "other", {name: value}, prefix="b")
    assert len(ShardDataset([one, other], "3-class")) == 12


def test_imports_mix_where_their_flow_was_estimated_alike(tmp_path: Path) -> None:
    plain = imported(tmp_path / "in", tmp_path / "plain")
    settings = ShardFolder.open(plain).run["settings"]
    apart = {**settings, "import": {**settings["import"], "scale": "range"}}
    elsewhere = {**settings, "import": {**settings["import"], "source": "another list"}}
    refuse_mixed({plain: settings, tmp_path: elsewhere})
    with pytest.raises(ConfigError, match=r"import\.scale spread -> range"):
        refuse_mixed({plain: settings, tmp_path: apart})


def test_a_folder_of_version_0_1_mixes_with_one_of_today_that_is_aligned_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folder(tmp_path, "old", prefix="a"), aligned(tmp_path / "new", {"tvl1.later": "off"}, prefix="b")
    version_0_1.write_anew(old)
    monkeypatch.setitem(NEWER_SETTINGS, "tvl1", {"later": "off"})
    clips = ShardDataset([old, new], "3-class").clips()
    assert torch.equal(clips.flow[:6], clips.flow[6:])
    assert clips.action_units[6:].any()
    assert not clips.action_units[:6].any()  # version 0.1 stored none
    assert len(alignments([old, new])) == len(alignments([new, old])) == 1
    monkeypatch.setitem(NEWER_SETTINGS, "tvl1", {"later": "on"})
    with pytest.raises(ConfigError, match=r"tvl1\.later on -> off"):
        ShardDataset([old, new], "3-class")
    assert alignments([old, new]) == alignments([new, old])
