"""A Dask cluster as an executor: the handlers and items of `supervised_pool.SupervisedPool`, on the machines of a cluster.

On each Dask worker stands a crew (`dask_worker.py`). Dask finds a worker for each item, and another one when that worker is lost;
as it may run an item twice, items must be idempotent. Nothing but items and outcomes travels: clips and shards lie on a file system
that all machines see.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flowkit.errors import ClusterLost, ConfigError, EnvironmentMissing, FlowkitError
from flowkit.execution.worker_process import Handler, Outcome

if TYPE_CHECKING:
    from flowkit.execution.dask_worker import Expected, Reply

LOCAL = "local"
CONNECT_TIMEOUT_S = 30
MAX_LOSSES = 5
"""An item whose worker was given up so often by Dask is not submitted again. Dask itself starts an item anew some times: three
by default, twenty on a cluster made here."""
ALLOWED_FAILURES = 20
MIN_IN_FLIGHT = 64
"""So many items are submitted at once at least: an adaptive cluster grows with what waits."""
POLL_S = 0.2


@contextmanager
def connect(address: str, workers: int = 0, *, tell: Callable[[str], None] = lambda _: None) -> Iterator[Any]:
    """A client of a Dask cluster.

    Parameters
    ----------
    address : str
        "local" starts a cluster on this machine, reachable by nobody else; else the address of a scheduler, as "tcp://host:8786"
        or "tls://host:8786", or the path of its scheduler file.
    workers : int
        Workers of a local cluster, of one thread each.
    tell : callable
        Told what is waited for.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ConfigError
        The address is none.
    EnvironmentMissing
        Dask is not installed, or no scheduler answers.
    """
    check_address(address)
    if address == LOCAL:
        with _local_cluster(workers) as cluster, _client(cluster, "the cluster on this machine") as client:
            yield client
        return
    tell(f"Connecting to the Dask scheduler at {address} ...")
    with _client(_address_in(address) if _is_scheduler_file(address) else address, address) as client:
        yield client


def check_address(address: str) -> None:
    """Refuse what cannot be a cluster, before anything is prepared.

    Raises
    ------
    ConfigError, EnvironmentMissing
    """
    if address != LOCAL and "://" not in address and not _is_scheduler_file(address):
        raise ConfigError(
            f"cluster: --cluster must be local, an address such as tcp://host:8786, or a scheduler file (.json); got {address!r}. "
            "Correct it."
        )
    if importlib.util.find_spec("distributed") is None:
        raise EnvironmentMissing(
            "cluster: --cluster must have the package distributed; got none. Install flowkit-mer with the extra dask, here and on "
            "the machines of the cluster."
        )


def _is_scheduler_file(address: str) -> bool:
    return address.endswith(".json") and "://" not in address


def _address_in(path: str) -> str:
    """The address in a scheduler file; Dask itself would wait for ever for one that is not there."""
    try:
        return str(json.loads(Path(path).read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentMissing(
            f"{path}: scheduler file must be one that dask scheduler --scheduler-file writes; got {type(error).__name__}: {error}. "
            "Start the scheduler, or correct the path."
        ) from error


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Workers on this machine. Whoever reaches a scheduler can run code as its owner: hence TLS, by certificates made here.

    It always has a web server; this one has a port of its own, of this machine alone, and shows nothing.
    """
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
            }
        ),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            security=True,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit=0,  # Dask holds none of the data
            silence_logs="ERROR",
        ) as cluster,
    ):
        yield cluster


@contextmanager
def _client(target: Any, name: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(target, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # OSError: also its time-out
        raise EnvironmentMissing(
            f"cluster: a Dask scheduler must answer at {name}; got: {error}. Start one (dask scheduler; dask worker ...), or "
            "correct the address."
        ) from error
    with client:
        yield client


class ClusterPool:
    """An executor like `SupervisedPool`, on a cluster; its outcomes come in any order.

    Parameters
    ----------
    client : distributed.Client
        Of `connect`.
    handler : callable
        Picklable; see `worker_process.Handler`. Entered once in each process of a crew.
    expected : Expected
        Looked at once on every worker: another file system ends the run, other versions are told.
    timeout_s : float
        Longest time for one item.
    places : int
        Items that a Dask worker works on at the same time, in a process each; 0 for one a thread.
    spent : callable, optional
        As for `SupervisedPool`; picklable.
    tell : callable, optional
        Told each loss, and each worker's versions that differ.
    """

    def __init__(
        self,
        client: Any,
        handler: Handler,
        *,
        expected: Expected,
        timeout_s: float,
        places: int = 0,
        spent: Callable[[Outcome[Any]], bool] = lambda _: False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        from flowkit.execution.dask_worker import Crew

        self._client = client
        self._tell = tell
        self._told: set[str] = set()
        self._name = f"flowkit-{secrets.token_hex(8)}"
        self._crew = Crew(self._name, handler, expected, expected.digest(), timeout_s, places, spent)

    def __enter__(self) -> Self:
        try:
            self._client.register_plugin(self._crew, name=self._name)
        except FlowkitError:
            raise
        except Exception as error:
            raise EnvironmentMissing(
                f"cluster: its workers must be able to import flowkit; got {type(error).__name__}: {error}. Install the same "
                "version there as here."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):  # a cluster that is gone must not hide why the run ends
            self._client.unregister_worker_plugin(self._name)

    def submit(self, items: Iterable[Any]) -> ClusterSubmission:
        """Items to be worked on; nothing begins before their outcomes are asked for."""
        return ClusterSubmission(self, list(items))

    def _start(self, item: Any) -> Any:
        from flowkit.execution.dask_worker import do

        key = f"{self._name}-{secrets.token_hex(8)}"
        return self._client.submit(do, self._name, item, key=key, pure=False, retries=0)

    def _room(self) -> int:
        """Items that may be in flight."""
        threads: dict[str, int] = self._client.nthreads()
        return max(MIN_IN_FLIGHT, 2 * sum(threads.values()))

    def _hear(self, differences: Iterable[str]) -> None:
        for text in set(differences) - self._told:
            self._told.add(text)
            self._tell(text)


class ClusterSubmission:
    """Outcomes of the items of one `submit`, in the order in which they come."""

    def __init__(self, pool: ClusterPool, items: list[Any]) -> None:
        self._pool = pool
        self._waiting = deque((item, 0) for item in items)
        self._running: dict[Any, tuple[Any, int]] = {}
        self._done: SimpleQueue[Any] = SimpleQueue()

    def outcomes(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Any, Outcome[Any]]]:
        """Yield (item, outcome); while waiting, `poll` is called about five times a second and may raise to stop.

        Raises
        ------
        ClusterLost
            The scheduler is gone.
        """
        try:
            while self._waiting or self._running:
                self._dispatch()
                future = _next(self._done, self._pool._client, poll)
                item, losses = self._running.pop(future)
                outcome = self._outcome(future, item, losses)
                if outcome is not None:
                    yield item, outcome
        finally:
            self._cancel()

    def _dispatch(self) -> None:
        if self._waiting:
            room = self._pool._room() - len(self._running)
            for _ in range(min(room, len(self._waiting))):
                item, losses = self._waiting.popleft()
                future = self._pool._start(item)
                self._running[future] = item, losses
                future.add_done_callback(self._done.put)

    def _outcome(self, future: Any, item: Any, losses: int) -> Outcome[Any] | None:
        """What became of an item; None if it waits again, for its worker was lost."""
        if future.status == "finished":
            reply: Reply = future.result()
            self._pool._hear(reply.differences)
            return reply.outcome
        if future.status != "error":
            raise _scheduler_lost()
        error = future.exception()
        if losses + 1 >= MAX_LOSSES:
            return Outcome("crashed", detail=f"{type(error).__name__}: {error}")
        self._pool._tell(
            f"Note: a worker of the cluster was lost ({type(error).__name__}: {error}). Its work begins anew."
        )
        self._waiting.append((item, losses + 1))
        return None

    def _cancel(self) -> None:
        with suppress(Exception):  # a cluster that is gone must not hide why the run ends
            self._pool._client.cancel(list(self._running), force=True)
        self._running.clear()


def _next(done: SimpleQueue[Any], client: Any, poll: Callable[[], None]) -> Any:
    """The future that is done next.

    Each wait is followed by `poll`: Ctrl-C also ends a cluster on this machine, and what it ended is stopped, not lost.
    """
    poll()
    while True:
        future = None
        with suppress(Empty):
            future = done.get(timeout=POLL_S)
        poll()
        if future is not None:
            return future
        if client.status != "running":
            raise _scheduler_lost()


def _scheduler_lost() -> ClusterLost:
    return ClusterLost(
        "cluster: Dask's scheduler must answer until the run ends; got none. What was committed stays. Run the same command again "
        "to go on."
    )


def ask(client: Any, function: Callable[[], Any], poll: Callable[[], None]) -> Any:
    """Have a function called on one worker, whichever comes first, and wait for it.

    Raises
    ------
    ClusterLost
        The scheduler is gone.
    FlowkitError
        What the function raised.
    """
    done: SimpleQueue[Any] = SimpleQueue()
    future = client.submit(function, pure=False, key=f"flowkit-{secrets.token_hex(8)}")
    future.add_done_callback(done.put)
    try:
        _next(done, client, poll)
        if future.status == "finished":
            return future.result()
        if future.status != "error":
            raise _scheduler_lost()
        error = future.exception()
    finally:
        client.cancel([future], force=True)
    if isinstance(error, FlowkitError):
        raise error
    raise EnvironmentMissing(
        f"cluster: its workers must be able to run flowkit; got {type(error).__name__}: {error}. Install the same version there as "
        "here."
    )
