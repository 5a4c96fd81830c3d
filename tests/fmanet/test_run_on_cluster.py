"""Folds on a Dask cluster come to the same bits, whatever dies on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster
from made_clips import made_shards
from test_training_run import FLAGS, SETTINGS, leftovers, results, run, start

from dask_clusters import cluster_of, kill_a_worker
from flowkit.errors import ClusterLost, ConfigError, Interrupted
from flowkit.execution.progress import Silent
from flowkit.execution.stop import Stop
from fmanet.fold_worker import ClipSource
from fmanet.run_options import RunOptions
from fmanet.training_run import train_run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ClipSource:
    shards = made_shards(tmp_path_factory.mktemp("shards") / "casme2", subjects=3, size=32)
    return ClipSource((shards,), "3-class")


@pytest.fixture(scope="module")
def expected(source: ClipSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The bits of six networks, trained on this machine."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(out, source=source).exit_code == 0
    return results(out)


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalCluster]:
    with cluster_of(2) as made:
        yield made


class After(Silent):
    """Calls a function each time that networks are done."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def advance(self, done: int, failed: int) -> None:
        self._function()


def test_a_local_cluster_comes_to_the_same_bits(
    source: ClipSource, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    process = start("train", source.folders[0], "--out", tmp_path / "run", *FLAGS, "--cluster", "local")
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "UF1" in said
    assert results(tmp_path / "run") == expected
    assert leftovers(tmp_path / "run") == []


@pytest.mark.slow
def test_workers_killed_in_mid_run_cost_nothing(
    workers: LocalCluster, source: ClipSource, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        if len(killed) < 2:
            killed.append(kill_a_worker(workers, killed))

    summary = train_run(
        source, tmp_path / "run", SETTINGS, RunOptions(cluster=workers.scheduler_address), reporter=After(kill)
    )
    assert len(killed) == 2
    assert (summary.done, summary.failed, summary.exit_code) == (6, {}, 0)
    assert summary.scores is not None
    assert results(tmp_path / "run") == expected
    assert leftovers(tmp_path / "run") == []


@pytest.mark.slow
def test_a_stopped_run_goes_on_without_a_cluster(workers: LocalCluster, source: ClipSource, tmp_path: Path) -> None:
    stop = Stop("train")
    settings = replace(SETTINGS, seeds=12)
    options = RunOptions(cluster=workers.scheduler_address)
    reporter = After(lambda: stop.request(Interrupted))
    summary = train_run(source, tmp_path / "run", settings, options, reporter=reporter, stop=stop)
    assert summary.exit_code == 130
    assert 0 < summary.done < summary.planned == 36
    again = run(tmp_path / "run", settings, source, workers=2)
    assert (again.resumed, again.done) == (summary.done, 36)


@pytest.mark.slow  # tests/extraction/test_cluster.py loses a scheduler each time
def test_a_lost_scheduler_ends_the_run_with_75(source: ClipSource, tmp_path: Path) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster_of(1) as lost:
        closing = threading.Thread(target=lost.close)

        def lose() -> None:
            if closing.ident is None:
                closing.start()

        settings = replace(SETTINGS, seeds=12)
        options = RunOptions(cluster=lost.scheduler_address)
        summary = train_run(source, tmp_path / "run", settings, options, reporter=After(lose))
        closing.join()
    assert isinstance(summary.stopped, ClusterLost)
    assert summary.exit_code == 75
    assert 0 < summary.done < 36


def test_workers_of_a_cluster_elsewhere_cannot_be_numbered_here() -> None:
    assert RunOptions(workers=2, cluster="local").workers == 2
    with pytest.raises(ConfigError, match="workers must be left out with the cluster tcp://a:1"):
        RunOptions(workers=2, cluster="tcp://a:1")
