"""Tasks on a Dask cluster; the choice between it and this machine.

Placement is Dask's, correctness the commit's: a task may run twice. What computes there decides backend, versions and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from flowkit.errors import ClusterLost
from flowkit.execution.dask_pool import LOCAL, ClusterPool, ask, check_address, connect
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import ATTEMPTS, START_TIMEOUT_S
from flowkit.extraction.compute import Overlap
from flowkit.extraction.options import RunOptions
from flowkit.extraction.plan import Task
from flowkit.extraction.run_local import (
    DoneTask,
    DoneTasks,
    Job,
    Placement,
    Prepare,
    carry_out,
    reading_ahead,
    whole_clips_ahead,
)
from flowkit.extraction.run_on_gpus import is_spent
from flowkit.extraction.sites import Here, Poll, Site, Survey, survey_here
from flowkit.extraction.stage_times import BEFORE_FLOW, BEFORE_STORE
from flowkit.provenance import versions
from flowkit.storage import commit, durable_files
from flowkit_kernels import is_compiled, resolve_backend, warm_up
from flowkit_kernels.backend import GPU_BACKENDS, use_device
from flowkit_kernels.host import cores, processor


@contextmanager
def site_of(options: RunOptions, reporter: Reporter) -> Iterator[Site]:
    """The site that the options name; a cluster is connected to when something is first asked of it.

    Raises
    ------
    ConfigError, EnvironmentMissing
    """
    if not options.cluster:
        yield Here()
        return
    check_address(options.cluster)
    with ExitStack() as stack:
        yield OnCluster(options, reporter.note, stack)


class OnCluster:
    """A Dask cluster: a task runs in a process of its own on one of the workers, which all see the same files.

    Each thread of a Dask worker is a place for one task, with one worker process. On a GPU backend a Dask
    worker is one place, on the first GPU that it sees.
    """

    def __init__(self, options: RunOptions, tell: Callable[[str], None], stack: ExitStack) -> None:
        self._address, self._tell, self._stack = options.cluster, tell, stack
        self._workers = options.cores(options.workers)
        self._connected: Any = None

    @property
    def _client(self) -> Any:
        if self._connected is None:
            self._connected = self._stack.enter_context(connect(self._address, self._workers, tell=self._tell))
        return self._connected

    def resolve(self, backend: str, poll: Poll) -> str:
        """As `Site.resolve`, on the worker that answers first; where another one differs, the run will end, not compute on."""
        return str(ask(self._client, partial(resolve_backend, backend), poll))

    def survey(self, backend: str, devices: Sequence[int], poll: Poll) -> Survey:
        """As `Site.survey`, of the worker that answers first; others are told where they differ."""
        found: Survey = ask(self._client, partial(survey_here, backend, tuple(devices)), poll)
        return found

    def warm_up(self, tell: Callable[[str], None], poll: Poll) -> float:
        """As `Site.warm_up`, on the worker that answers first; on other machines the first process of a crew does it."""
        if self._address == LOCAL:
            return warm_up("cpu", tell)
        if ask(self._client, is_compiled, poll):
            return 0.0
        tell("Compiling kernels on the cluster, once per machine: this takes some 20 s ...")
        return float(ask(self._client, partial(warm_up, "cpu"), poll))

    def staff(self, options: RunOptions, backend: str) -> tuple[int, int]:
        """As `Site.staff`, of one place: one by default; a worker with a GPU uses the cores that it was given."""
        default = 0 if backend in GPU_BACKENDS else 1
        workers = 0 if self._address == LOCAL else options.workers  # there, that is how many Dask workers there are
        return workers or default, options.threads or default

    def placement(self, backend: str, devices: Sequence[int], survey: Survey) -> Placement:
        """As `Site.placement`."""
        return _OnWorkers(self._client, backend, survey)


class _OnWorkers:
    """Tasks on the workers of a cluster, each wherever Dask finds room; one whose worker is lost is begun anew elsewhere."""

    def __init__(self, client: Any, backend: str, survey: Survey) -> None:
        self._client, self._backend, self._survey = client, backend, survey
        self.by_workers: tuple[str, ...] = BEFORE_FLOW if backend in GPU_BACKENDS else BEFORE_STORE

    @property
    def processes(self) -> int:
        """Places of the workers that are there now."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, len(threads) if self._backend in GPU_BACKENDS else sum(threads.values()))

    def workers(self, job: Job) -> int:
        """Return how many worker processes there are, over all places."""
        return self.processes * max(1, job.workers)

    def beside(self, job: Job) -> Mapping[str, int]:
        """As `Placement.beside`."""
        return {}

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop, prepare: Prepare) -> DoneTasks:
        """As `Placement.run`.

        Raises
        ------
        ClusterLost
            Its scheduler is gone; or a task ended every process that it ran in, and all others are done.
        EnvironmentMissing
            A worker sees other files, or cannot start a process.
        """
        prepare()
        given_up = []
        with ExitStack() as stack:
            stack.callback(durable_files.remove_stale_temporaries, job.out)
            pool = stack.enter_context(self._pool(tasks, job, reporter))
            for task, outcome in pool.submit(tasks).outcomes(stop.check):
                done: DoneTask | None = outcome.value
                if done is not None:
                    reporter.advance(len(task.clips), len(done.record.content["failures"]))
                    yield done
                elif outcome.kind == "raised" and outcome.error is not None:
                    raise outcome.error
                else:
                    given_up.append(task)
                    reporter.note(f"Warning: task {task.index} is given up: {outcome.detail}.")
        if given_up:
            raise _given_up(given_up)

    def _pool(self, tasks: Sequence[Task], job: Job, reporter: Reporter) -> ClusterPool:
        from flowkit.execution.dask_worker import Expected

        longest = max(len(task.clips) for task in tasks)
        return ClusterPool(
            self._client,
            partial(_on_worker, job),
            expected=Expected(
                job.out / commit.RUN_FILE,
                partial(_facts, self._backend),
                {**self._survey.versions, "processor": self._survey.machine["processor"]},
            ),
            timeout_s=START_TIMEOUT_S + ATTEMPTS * longest * job.timeout_s,
            places=1 if self._backend in GPU_BACKENDS else 0,
            spent=partial(is_spent, job.run_id),
            tell=reporter.note,
        )


def _facts(backend: str) -> dict[str, str]:
    return {**versions(backend), "processor": processor()}


def _given_up(tasks: Sequence[Task]) -> ClusterLost:
    first = tasks[0]
    return ClusterLost(
        f"cluster: each task must leave the process alive that it runs in; got {len(tasks)} that did not, on several workers, the "
        f"first of them task {first.index}, clips {first.clips[0].clip_id} to {first.clips[-1].clip_id}. All others are done. Look "
        "at the workers' logs; run the same command again, or without --cluster."
    )


@contextmanager
def _on_worker(job: Job) -> Iterator[Callable[[Task], DoneTask]]:
    """Life of a process of a crew: a feed of its own, and one task after the other."""
    durable_files.remove_stale_temporaries(job.out)  # of processes that were lost on this machine
    name, on_gpu = "", job.config.backend in GPU_BACKENDS
    if on_gpu:
        use_device(job.config.backend, 0)
        name = str(job.devices.get("0", {}).get("name", ""))
    job = replace(job, workers=job.workers or cores(), threads=job.threads or cores())
    work = job.work(Silent(), name)
    warm_up("cpu")
    with ExitStack() as stack:
        overlap = stack.enter_context(Overlap(job.config, job.threads)) if on_gpu else None
        ahead = stack.enter_context(reading_ahead(job) if on_gpu else whole_clips_ahead(job))
        yield lambda task: carry_out(task, ahead.begin(task, None), job, work, overlap)
