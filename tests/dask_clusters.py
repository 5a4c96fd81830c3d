"""Dask clusters for tests: on this machine, but used by their address, as one elsewhere is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import dask
from distributed import LocalCluster

from flowkit.execution.dask_pool import ALLOWED_FAILURES


@contextmanager
def cluster_of(workers: int) -> Iterator[LocalCluster]:
    """Workers of one thread each, each with a nanny that starts another when it dies; without TLS."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit=0,
            silence_logs="CRITICAL",
        ) as made,
    ):
        yield made


def kill_a_worker(cluster: LocalCluster, but: Collection[int] = ()) -> int:
    """SIGKILL a worker process that is none of some; its process id."""
    for _ in range(600):
        running = [nanny.process.pid for nanny in cluster.workers.values() if nanny.process and nanny.process.pid]
        for pid in running:
            if pid not in but:
                os.kill(pid, signal.SIGKILL)
                return int(pid)
        time.sleep(0.1)
    raise AssertionError("no worker came back within a minute")
