"""Training is a function of the training clips, the settings and the seed, and of nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from made_clips import made_clips

from flowkit.errors import ConfigError
from flowkit.settings_classes import build
from flowkit.storage.schema import ACTION_UNITS
from fmanet.batches import epoch_batches
from fmanet.building import build_network
from fmanet.dataset import Clips
from fmanet.errors import TrainingDiverged, TrainingImpossible
from fmanet.settings import AugmentSettings, NetworkConfig, RunSettings, TrainSettings
from fmanet.training import Optimizer, State, predict, train
from fmanet.transforms import flip

NETWORK = NetworkConfig(width=4, grid=4)
QUICK = TrainSettings(epochs=2, batch=8)


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def network_of(state: State, network: NetworkConfig = NETWORK) -> torch.nn.Module:
    model = build_network(network, 0)
    model.load_state_dict(state)
    return model


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before() -> None:
    clips = made_clips()
    first = train(clips, NETWORK, QUICK, 7)
    torch.rand(13)
    train(clips.select(range(12)), NETWORK, QUICK, 8)
    again = train(clips, NETWORK, QUICK, 7)
    assert same(first.state, again.state)
    assert first.log == again.log
    assert not same(first.state, train(clips, NETWORK, QUICK, 8).state)


def test_training_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(made_clips(), NETWORK, dataclasses.replace(QUICK, threads=2), 0)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.rand(1), expected)


def test_a_step_is_that_of_adamw_to_the_bit() -> None:
    torch.manual_seed(0)
    start = {
        "weights": torch.randn(3, 4),
        "bias": torch.randn(4),
        "number": torch.randn(()),
        "unused": torch.randn(2, 2),
    }
    own, wanted = ({name: value.clone().requires_grad_() for name, value in start.items()} for _ in range(2))
    settings = TrainSettings(weight_decay=0.1, scalar_rate=5.0)
    groups = [
        {"params": [wanted["weights"], wanted["unused"]], "weight_decay": 0.1},
        {"params": [wanted["bias"]], "weight_decay": 0.0},
        {"params": [wanted["number"]], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, fused=True)
    ours = Optimizer(own, {name: value.ndim for name, value in own.items()}, settings)

    def loss(of: dict[str, torch.Tensor], seen: torch.Tensor) -> torch.Tensor:
        return ((seen @ of["weights"] + of["bias"]) * of["number"]).pow(2).mean()

    for rate in (0.1, 0.03, 0.01):
        seen = torch.randn(5, 3)
        ours.step(loss(own, seen), rate)
        for group, factor in zip(theirs.param_groups, (1.0, 1.0, 5.0), strict=True):
            group["lr"] = rate * factor
        theirs.zero_grad()
        loss(wanted, seen).backward()
        theirs.step()
    assert all(torch.equal(own[name], wanted[name]) for name in start)
    assert {name for name in start if torch.equal(own[name], start[name])} == {"unused"}


def test_training_and_predicting_import_no_compiler() -> None:
    """It takes as long as importing torch, in each worker."""
    code = (
        "import sys; from made_clips import made_clips; from fmanet.settings import NetworkConfig, TrainSettings\n"
        "from fmanet.training import predict, train; from fmanet.building import build_network\n"
        "network, settings = NetworkConfig(width=4), TrainSettings(epochs=1)\n"
        "train(made_clips(2, 1), network, settings, 0); predict(build_network(network, 0), made_clips(2, 1), settings)\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_classes_that_motion_shows_are_learned() -> None:
    clips = made_clips(5, 3)
    rows = range(len(clips))
    kept = clips.select([row for row in rows if clips.subject[row] != "casme2/s00"])
    aside = clips.select([row for row in rows if clips.subject[row] == "casme2/s00"])
    settings = TrainSettings(epochs=15, batch=12)
    trained = train(kept, NETWORK, settings, 0)
    assert trained.log[-1].loss < trained.log[0].loss
    probabilities = predict(network_of(trained.state), aside, settings)
    assert (torch.from_numpy(probabilities).argmax(1) == aside.target).all()


def test_whoever_watches_the_epochs_cannot_steer_them() -> None:
    clips = made_clips()
    seen = []

    def meddle(epoch: int, state: State) -> None:
        seen.append((epoch, {name: value.clone() for name, value in state.items()}))
        for value in state.values():
            value.zero_()
        torch.manual_seed(epoch)
        torch.rand(100)

    watched = train(clips, NETWORK, QUICK, 0, on_epoch=meddle)
    assert same(watched.state, train(clips, NETWORK, QUICK, 0).state)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert same(seen[-1][1], watched.state)


class Blind(Clips):
    """Clips whose classes nobody may ask for."""

    @property
    def target(self) -> Any:
        raise AssertionError("a prediction looked at the truth")

    @target.setter
    def target(self, value: Any) -> None:
        pass


def test_a_prediction_never_looks_at_the_truth() -> None:
    clips = made_clips(1)
    blind = object.__new__(Blind)
    for field in dataclasses.fields(Clips):
        if field.name != "target":
            object.__setattr__(blind, field.name, getattr(clips, field.name))
    with pytest.raises(AssertionError):
        _ = blind.target
    model = build_network(NETWORK, 0)
    assert (predict(model, blind, QUICK) == predict(model, clips, QUICK)).all()


def test_predictions_are_averaged_over_a_clip_and_its_mirror_image() -> None:
    clips = made_clips(1)
    flow, valid, region = flip(clips.flow, clips.valid, clips.region)
    mirrored = dataclasses.replace(clips, flow=flow, valid=valid, region=region)
    model = build_network(NETWORK, 0)
    averaged, plain = predict(model, clips, QUICK), dataclasses.replace(QUICK, flip_test=False)
    expected = (predict(model, clips, plain) + predict(model, mirrored, plain)) / 2
    assert averaged == pytest.approx(expected, abs=1e-7)
    assert averaged.sum(1) == pytest.approx(1.0)
    assert averaged == pytest.approx(predict(model, mirrored, QUICK), abs=1e-6)


def test_inner_selection_takes_the_epoch_with_the_lowest_loss_on_subjects_set_aside() -> None:
    clips = made_clips(5, 1, noise=0.4)
    settings = TrainSettings(epochs=5, batch=8, select="inner", inner_share=0.4)
    trained = train(clips, NETWORK, settings, 0)
    select = [row for row in trained.log if row.stage == "select"]
    losses = [row.validation_loss for row in select]
    assert len(losses) == 5
    assert trained.epochs == losses.index(min(losses)) + 1
    assert [row.epoch for row in trained.log if row.stage == "train"] == list(range(1, trained.epochs + 1))
    fixed = train(clips, NETWORK, dataclasses.replace(settings, select="fixed"), 0)
    final = [row for row in trained.log if row.stage == "train"]
    assert tuple(final) == fixed.log[: trained.epochs]  # trained once more on all clips, by the same schedule


def test_batches_hold_every_clip_once_and_depend_on_seed_and_epoch_alone() -> None:
    clips = made_clips(3, 1)
    numbered = dataclasses.replace(
        clips, flow=torch.arange(9.0)[:, None, None, None, None].expand(9, 2, 2, 28, 28).clone()
    )
    still = AugmentSettings(flip=0, rotation_deg=0, scale=0, translation_px=0, gain=0, drift=0)
    settings = TrainSettings(batch=4, mixup=0, augment=still)

    def order(seed: int, epoch: int) -> list[float]:
        return [
            value
            for batch in epoch_batches(numbered, settings, seed, epoch)
            for value in batch.flow[:, 0, 0, 0, 0].tolist()
        ]

    assert sorted(order(0, 0)) == list(range(9))
    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_mixup_mixes_flow_and_classes_alike_and_only_clips_with_the_same_phases() -> None:
    clips = made_clips(4, 2)
    shown = clips.target.float()[:, None, None, None, None].expand_as(clips.flow).clone()  # the flow says the class
    valid = clips.valid.clone()
    valid[::2, 1] = False
    clips = dataclasses.replace(clips, flow=shown, valid=valid)
    still = AugmentSettings(flip=0, rotation_deg=0, scale=0, translation_px=0, gain=0, drift=0)
    (batch,) = epoch_batches(clips, TrainSettings(batch=64, mixup=1.0, augment=still), 0, 0)
    value = (batch.target * torch.arange(3.0)).sum(1)
    assert batch.flow[:, 0, 0, 5, 5] == pytest.approx(value.numpy(), abs=1e-6)
    assert ((batch.target > 0).sum(1) == 2).any()
    assert batch.target.sum(1) == pytest.approx(1.0)


def test_batches_mirror_and_mix_action_units_as_the_flow() -> None:
    clips = made_clips(4, 2)
    units = torch.zeros(len(clips), 2, len(ACTION_UNITS))
    left, right = ACTION_UNITS.index("12L"), ACTION_UNITS.index("12R")
    units[:, 0, left] = 1.0 + clips.target  # the left side says the class
    flow = units[:, 0, left][:, None, None, None, None] * torch.tensor([1.0, 0.0])[:, None, None].expand(2, 2, 28, 28)
    clips = dataclasses.replace(clips, action_units=units, flow=flow.contiguous())
    still = AugmentSettings(flip=0.5, rotation_deg=0, scale=0, translation_px=0, gain=0, drift=0)
    (batch,) = epoch_batches(clips, TrainSettings(batch=64, mixup=1.0, augment=still), 0, 0)
    strength = batch.action_units[:, 0]
    horizontal = batch.flow[:, 0, 0, 5, 5]
    assert (strength[:, left] - strength[:, right]).numpy() == pytest.approx(horizontal.numpy(), abs=1e-5)
    assert (strength[:, left] + strength[:, right]).numpy() == pytest.approx(
        (batch.target * torch.arange(1.0, 4)).sum(1).numpy(), abs=1e-5
    )
    assert (horizontal < 0).any()
    assert ((batch.target > 0).sum(1) == 2).any()


def test_a_class_is_learned_from_action_units_alone() -> None:
    clips = made_clips(6, 2)
    units = torch.randn(len(clips), 2, len(ACTION_UNITS), generator=torch.Generator().manual_seed(0)) * 0.02
    units[torch.arange(len(clips)), 0, 4 * clips.target] += 0.3
    clips = dataclasses.replace(clips, action_units=units, flow=0 * clips.flow)
    training, held_out = clips.select(range(24)), clips.select(range(24, 36))
    for network in (NetworkConfig(width=4, grid=4), NetworkConfig(network="action-units")):
        model = build_network(network, 0)
        model.load_state_dict(train(training, network, TrainSettings(epochs=30), 0).state)
        assert (predict(model, held_out, TrainSettings()).argmax(1) == held_out.target.numpy()).mean() > 0.9
    blind = NetworkConfig(width=4, grid=4, action_units=False)
    model = build_network(blind, 0)
    model.load_state_dict(train(training, blind, TrainSettings(epochs=3), 0).state)
    assert np.ptp(predict(model, held_out, TrainSettings()), axis=0).max() < 1e-6


def test_a_class_without_training_clips_is_named() -> None:
    clips = made_clips()
    two = clips.select([row for row in range(len(clips)) if clips.target[row] != 1])
    with pytest.raises(TrainingImpossible, match="got none of positive"):
        train(two, NETWORK, QUICK, 0)


def test_flow_that_is_no_number_is_refused() -> None:
    clips = made_clips()
    clips.flow[3, 0, 0, 5, 5] = math.nan
    with pytest.raises(TrainingImpossible, match="flow must be finite"):
        train(clips, NETWORK, QUICK, 0)


def test_a_loss_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import fmanet.training as module

    def broken(network: NetworkConfig, seed: int) -> torch.nn.Module:
        model = build_network(network, seed)
        with torch.no_grad():
            next(model.parameters()).fill_(math.inf)
        return model

    monkeypatch.setattr(module, "build_network", broken)
    with pytest.raises(TrainingDiverged, match="loss must be finite; got nan in epoch 1"):
        train(made_clips(), NETWORK, QUICK, 0)


def test_settings_survive_json() -> None:
    settings = RunSettings(network=NETWORK, train=dataclasses.replace(QUICK, augment=AugmentSettings(flip=0.25)))
    assert RunSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_whole_number_for_a_number_has_the_fingerprint_that_is_read_back() -> None:
    """Otherwise the records of a run that was started so from Python are not found again when it is scored."""
    whole = RunSettings(network=NetworkConfig(k=20), train=dataclasses.replace(QUICK, augment=AugmentSettings(flip=0)))
    back = RunSettings.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert back.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": 0}, "train.epochs must be from 1"),
        ({"rate": 2.0}, "train.rate must be above 0"),
        ({"mixed_precision": True}, "train.mixed_precision must be false on the CPU"),
        ({"select": "inner", "stack": 4}, "train.stack must be 1 with select inner"),
        ({"loss": "hinge"}, "loss must be one of weighted, focal, plain"),
        ({"batch": 8.5}, "batch must be of type int"),
        ({"eppochs": 3}, "eppochs: unknown setting. Did you mean epochs"),
        ({"augment": {"flip": 2.0}}, "augment.flip must be a number from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(TrainSettings, values)
