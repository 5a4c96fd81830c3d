"""Networks trained together are those that training one after the other gives, but for rounding."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from made_clips import made_clips

from fmanet.errors import TrainingImpossible
from fmanet.plan import grouped
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.stacked_training import train_together
from fmanet.training import State, train

NETWORK = NetworkConfig(width=4, grid=4, dropout=0.0)
SETTINGS = TrainSettings(epochs=2, batch=8)


@pytest.mark.parametrize(
    "network", [dataclasses.replace(NETWORK, streams=1), dataclasses.replace(NETWORK, network="cnn", inputs="mmcof")]
)
def test_networks_trained_together_equal_those_trained_alone(network: NetworkConfig) -> None:
    clips = made_clips(4, 2)
    parts = [clips.select(range(first, first + count)) for first, count in ((0, 18), (6, 18), (0, 23))]
    together = train_together(parts, network, SETTINGS, [5, 6, 7])
    for part, seed, trained in zip(parts, (5, 6, 7), together, strict=True):
        alone = train(part, network, SETTINGS, seed)
        assert trained.state.keys() == alone.state.keys()
        for name, value in alone.state.items():
            torch.testing.assert_close(trained.state[name], value, atol=2e-4, rtol=1e-3)
        assert [row.loss for row in trained.log] == pytest.approx([row.loss for row in alone.log], rel=1e-4)
        assert trained.log[0].accuracy == alone.log[0].accuracy


def test_what_another_network_is_given_changes_nothing() -> None:
    clips = made_clips(4, 2)
    first, second = clips.select(range(18)), clips.select(range(6, 24))
    changed = dataclasses.replace(second, flow=100 * second.flow.flip(0), target=second.target.flip(0))
    before = train_together([first, second], NETWORK, SETTINGS, [0, 1])[0]
    after = train_together([first, changed], NETWORK, SETTINGS, [0, 1])[0]
    assert all(torch.equal(before.state[name], after.state[name]) for name in before.state)


def test_dropout_draws_for_each_network_and_again_the_same() -> None:
    clips = made_clips(3, 2)
    network = dataclasses.replace(NETWORK, dropout=0.5)
    first, second = train_together([clips, clips], network, SETTINGS, [4, 4])
    assert not torch.equal(first.state["streams.heads.weight"], second.state["streams.heads.weight"])
    again, _ = train_together([clips, clips], network, SETTINGS, [4, 4])
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)


def test_watchers_are_told_of_their_own_network() -> None:
    clips = made_clips(3, 2)
    seen: list[tuple[int, State]] = []
    trained = train_together([clips, clips], NETWORK, SETTINGS, [0, 1], on_epoch={1: lambda *told: seen.append(told)})
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert all(torch.equal(seen[-1][1][name], value) for name, value in trained[1].state.items())


def test_groups_take_equally_many_steps_and_hold_each_network_once() -> None:
    groups = grouped([3, 2, 3, 3, 2, 3], 2)
    assert groups == [(0, 2), (1, 4), (3, 5)]
    assert grouped([3, 2, 3], 1) == [(0,), (1,), (2,)]


def test_networks_with_other_numbers_of_steps_are_refused() -> None:
    clips = made_clips(4, 2)
    with pytest.raises(TrainingImpossible, match="equally many steps"):
        train_together([clips, clips.select(range(12))], NETWORK, SETTINGS, [0, 1])
