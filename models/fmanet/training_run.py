"""A run: every fold of a protocol for every seed, trained in supervised worker processes, committed one by one, then scored.

    clips -> plan -> groups -> train, predict, commit (fold_worker.py, in workers) -> predictions.csv, scores.json (results.py)

A run that was stopped or killed goes on with the same command: what was committed stays, a group that was not finished is
trained again, to the same bits.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.errors import (
    ClusterLost,
    ConfigError,
    DiskFull,
    EnvironmentMissing,
    FlowkitError,
    Interrupted,
    SettingsChanged,
    ShardCorrupt,
)
from flowkit.execution.dask_pool import ClusterPool, ask, connect
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import Outcome, WorkerStartError
from flowkit.listing import listed
from flowkit.provenance import cores, processor, versions_of
from flowkit.settings_io import differences
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.safe_files import read_regular
from fmanet import run_folder
from fmanet.building import build_network, multiply_adds, parameter_count
from fmanet.dataset import Clips
from fmanet.errors import LeakError
from fmanet.flow_origin import alignments
from fmanet.fold_worker import ClipSource, Job, check_device, clips_digest, device_facts, folds_of, trainer
from fmanet.networks import registered
from fmanet.own_networks.probing import is_own, probe
from fmanet.plan import Member, Plan, freeze, make_plan, member_keys
from fmanet.reports.final_card import write_card
from fmanet.results import write_results
from fmanet.run_options import RunOptions
from fmanet.settings import NetworkConfig, RunSettings
from fmanet.training import is_closed_form, predict

VERSIONED = ("torch", "safetensors", "numpy", "h5py")
"""What decides the last bits of a network."""
ENDS_THE_RUN = (DiskFull, EnvironmentMissing, ShardCorrupt, ConfigError, LeakError)
"""Errors that every other fold would meet too."""


@dataclass(slots=True)
class Summary:
    """What a run did. `planned == done + len(failed) + not_started` always.

    Attributes
    ----------
    out : Path
    planned, done, resumed : int
        Networks in all, trained by now, trained before this run.
    failed : dict of str to str
        What befell each network that could not be trained.
    seconds : float
    stopped : FlowkitError, optional
        What ended the run before its end.
    scores : dict, optional
        As in scores.json, once every network is trained.
    card : Path, optional
        The model card of a run that trained on everybody, which has no scores.
    """

    out: Path
    planned: int = 0
    done: int = 0
    resumed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: FlowkitError | None = None
    scores: dict[str, Any] | None = None
    card: Path | None = None

    @property
    def not_started(self) -> int:
        """Networks left for another run."""
        return self.planned - self.done - len(self.failed)

    @property
    def exit_code(self) -> int:
        """0 all done; 1 some networks failed; else that of what stopped the run."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "out": str(self.out),
            "planned": self.planned,
            "done": self.done,
            "resumed": self.resumed,
            "failed": self.failed,
            "not_started": self.not_started,
            "seconds": round(self.seconds, 3),
            "stopped": str(self.stopped) if self.stopped else None,
            "exit_code": self.exit_code,
            "scores": self.scores,
            **({} if self.card is None else {"card": str(self.card)}),
        }


def train_run(
    source: ClipSource,
    out: Path,
    settings: RunSettings,
    options: RunOptions | None = None,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Train every fold and seed, and score what they predict of the clips held out.

    Parameters
    ----------
    source : ClipSource
    out : Path
        The run folder; made if need be.
    settings : RunSettings
    options : RunOptions, optional
    reporter : Reporter, optional
        Silent by default.
    stop : Stop, optional

    Returns
    -------
    Summary

    Raises
    ------
    ConfigError, ShardCorrupt, TrainingImpossible, SettingsChanged
        Before anything is trained.
    EnvironmentMissing, DiskFull
        What was committed stays.
    """
    options, reporter = options or RunOptions(), reporter or Silent()
    if not options.cluster:
        return _Training(source, out, settings, options, reporter, stop or Stop("train")).carry_out()
    with connect(options.cluster, _workers(options, settings), tell=reporter.note) as client:
        return _Training(source, out, settings, options, reporter, stop or Stop("train"), client).carry_out()


def preview(source: ClipSource, out: Path, settings: RunSettings, options: RunOptions) -> dict[str, Any]:
    """What `train_run` would do, without writing a byte.

    Raises
    ------
    ConfigError, ShardCorrupt, TrainingImpossible, SettingsChanged
    """
    training = _Training(source, out, settings, options, Silent(), Stop("train"))
    pending = training.pending()
    return {
        "out": str(out),
        "clips": len(training.clips),
        "subjects": len(set(training.clips.subject)),
        "classes": training.clips.class_counts(),
        "left_out": training.clips.left_out,
        "folds": len(training.plan.folds),
        "networks": len(training.keys),
        "pending": sum(len(training.plan.groups[group]) for group in pending),
        "groups": len(training.plan.groups),
        "parameters": training.parameters,
        "multiply_adds": multiply_adds(build_network(training.settings.network, 0), *training.clips.flow.shape[-2:]),
        "fingerprint": training.settings.fingerprint(),
        "settings": training.settings.to_dict(),
    }


class _Training:
    """One call of `train_run`: what it was given, its plan, and its summary."""

    def __init__(
        self,
        source: ClipSource,
        out: Path,
        settings: RunSettings,
        options: RunOptions,
        reporter: Reporter,
        stop: Stop,
        client: Any = None,
    ) -> None:
        self.out, self.options, self.reporter, self.stop, self.client = out, options, reporter, stop, client
        if not options.cluster:
            check_device(settings.train)
        self.source = source
        self.clips: Clips = source.load()
        self.settings = settings = replace(settings, network=_network_for(self.clips, settings.network))
        self.digest = clips_digest(self.clips)
        self.facts = self._facts()
        self.fresh = options.overwrite or self._begins_anew()
        self.plan: Plan = make_plan(self.clips, folds_of(settings.protocol, self.clips), settings)
        self.keys: Mapping[Member, str] = member_keys(self.plan, settings.fingerprint(), self.digest)
        own = is_own(registered(settings.network.network))
        if own:
            probe(settings.network, self.clips)
        sample = build_network(settings.network, 0)
        if self.clips.multi_label and is_closed_form(sample):
            raise ConfigError(
                "train: network must be trained in epochs where the targets are action units; got "
                f"{settings.network.network}, which tells classes apart. Choose another network."
            )
        self.parameters = parameter_count(sample)
        if not own:  # raises here, not in a worker, if the clips do not fit the network
            predict(sample, self.clips.select([0]), replace(settings.train, device="cpu", mixed_precision=False))
        self.summary = Summary(out, planned=len(self.keys))

    def pending(self) -> list[int]:
        """Groups of which a network is not committed."""
        if self.fresh:
            return list(range(len(self.plan.groups)))
        done = {member for member, key in self.keys.items() if run_folder.read_record(self.out, self.plan, member, key)}
        return [number for number, group in enumerate(self.plan.groups) if not done.issuperset(group)]

    def carry_out(self) -> Summary:
        """Prepare, train every pending group, score."""
        begin = time.perf_counter()
        pending = self._prepare()
        try:
            self._train(pending)
        except (Interrupted, ClusterLost) as error:
            self.summary.stopped = error
            self._count_committed()
        finally:
            run_folder.remove_temporaries(self.out)  # of workers that were killed
            self.reporter.finish()
            self.summary.seconds = time.perf_counter() - begin
        if self.summary.done == self.summary.planned:
            if self.settings.is_final:
                self.summary.card = write_card(self.out)
            else:
                self.summary.scores = write_results(self.out)
        return self.summary

    def _prepare(self) -> list[int]:
        if self.fresh:
            run_folder.discard(self.out)
        run_folder.prepare(self.out)
        self._store_facts()
        freeze(self.out, self.plan)
        self.fresh = False
        if left_out := self.clips.left_out:
            named = ", ".join(f"{name} {count}" for name, count in left_out.items())
            self.reporter.note(f"Left out by {self.settings.classes}: {named}.")
        for path in run_folder.quarantine_invalid(self.out, self.plan, self.keys):
            self.reporter.note(
                f"{path}: a damaged record, or one whose files are damaged, was moved here; it is trained again."
            )
        pending = self.pending()
        left = sum(len(self.plan.groups[number]) for number in pending)
        self.summary.done = self.summary.resumed = self.summary.planned - left
        if self.summary.resumed:
            self.reporter.note(f"Resuming in {self.out}: {self.summary.resumed} networks are trained.")
        versions = ", ".join(f"{name} {version}" for name, version in self.facts["versions"].items())
        self.reporter.detail(f"Run {self.out.absolute()}, settings {self.settings.fingerprint()}, {versions}.")
        if self.settings.face == "canonical" and (without := self.clips.carried.count(False)):
            tell = self.reporter.note if any(self.clips.carried) else self.reporter.detail
            tell(f"{without} of {len(self.clips)} clips have no landmarks: their flow is not on the canonical face.")
        if not any(self.clips.with_action_units):
            self.reporter.detail("No clip has strengths of action units: the network has no stream for them.")
        self.reporter.start(left)
        return pending

    def _facts(self) -> dict[str, Any]:
        """What run.json stores."""
        return {
            "schema": hashed_json.SCHEMA,
            "kind": run_folder.KIND,
            "fingerprint": self.settings.fingerprint(),
            "settings": self.settings.to_dict(),
            "clips": {
                "digest": self.digest,
                "count": len(self.clips),
                "subjects": sorted(set(self.clips.subject)),
                "classes": list(self.clips.classes),
                "units": self.clips.units,
                "shape": list(self.clips.flow.shape[1:]),
                "carried": sum(self.clips.carried),
                "with_action_units": sum(self.clips.with_action_units),
                "alignment": alignments(self.source.folders),
                "folders": {str(path): _folder_fingerprint(path) for path in self.source.folders},
            },
            "versions": versions_of(VERSIONED),
            "device": self._device(),
            "machine": {"processor": processor(), "system": platform.platform()},
        }

    def _device(self) -> dict[str, Any]:
        """What trains: here, or on the worker that answers first."""
        look = partial(device_facts, self.settings.train)
        if self.client is not None:
            found: dict[str, Any] = ask(self.client, look, self.stop.check)
            return found
        return {} if self.options.cluster else look()  # a preview asks no cluster

    def _begins_anew(self) -> bool:
        """Whether what the folder holds may be discarded: nothing was trained there yet.

        Raises
        ------
        SettingsChanged
            Something was, with other settings or other clips.
        """
        stored = run_folder.read_run(self.out)
        if stored is None:
            return False
        changes = differences(stored["settings"], self.facts["settings"])
        if stored["clips"]["digest"] != self.digest:
            changes.append(f"clips {stored['clips']['digest']} -> {self.digest}")
        if not changes:
            return False
        if not run_folder.has_records(self.out):
            return True
        if others := run_folder.other_settings(stored["settings"]):
            raise SettingsChanged(
                f"{self.out}: the run there was begun by an earlier version of flowkit, with other settings ({listed(others)}). "
                "This version cannot resume it. Use another --out, or --overwrite to discard what was trained."
            )
        raise SettingsChanged(
            f"{self.out}: folder must be of this run's settings; it was made with others ({'; '.join(changes)}). Use another "
            "--out, or --overwrite to discard what was trained."
        )

    def _store_facts(self) -> None:
        if durable_files.publish_file(self.out / commit.RUN_FILE, hashed_json.encode(self.facts)):
            return
        stored = run_folder.read_run(self.out)
        if stored is None or self._begins_anew():
            raise SettingsChanged(
                f"{self.out}: folder must be of this run's settings; got another run that has just begun here. Use another --out."
            )
        for name in ("versions", "device", "machine"):
            for change in differences(stored[name], self.facts[name]):
                self.reporter.note(
                    f"Note: this folder was begun elsewhere or with other versions: {change}. Bits may differ."
                )

    def _train(self, pending: list[int]) -> None:
        if not pending:
            return
        with self._executor(len(pending)) as pool:
            try:
                for number, outcome in pool.submit(pending).outcomes(self.stop.check):
                    self._count(number, outcome)
            except WorkerStartError as error:
                raise EnvironmentMissing(
                    f"train: worker processes must be able to start; got: {error}. What was committed stays."
                ) from error

    def _executor(self, groups: int) -> SupervisedPool | ClusterPool:
        job = Job(
            self.out.absolute(),
            self.source.anywhere(),
            self.settings,
            registered(self.settings.network.network),
            self.plan,
            self.digest,
        )
        if self.client is None:
            workers = min(_workers(self.options, self.settings), groups)
            return SupervisedPool(
                partial(trainer, job), workers=workers, timeout_s=self.options.timeout_s, window=2 * workers
            )
        from flowkit.execution.dask_worker import Expected

        return ClusterPool(
            self.client,
            partial(trainer, job),
            expected=Expected(job.out / commit.RUN_FILE, partial(versions_of, VERSIONED), self.facts["versions"]),
            timeout_s=self.options.timeout_s,
            places=1 if self.settings.train.device == "cuda" else 0,
            tell=self.reporter.note,
        )

    def _count(self, number: int, outcome: Outcome[None]) -> None:
        group = self.plan.groups[number]
        if outcome.kind == "done":
            self.summary.done += len(group)
            for member in group:
                self.reporter.detail(f"Trained: {self.plan.title(member)}")
            self.reporter.advance(len(group), 0)
            return
        if isinstance(outcome.error, ENDS_THE_RUN) and outcome.kind == "raised":
            raise outcome.error
        why = str(outcome.error) if outcome.error is not None else f"its process ended twice: {outcome.detail}"
        for member in group:
            self.summary.failed[self.plan.title(member)] = why
            self.reporter.note(f"Failed: {self.plan.title(member)}: {why}")
        self.reporter.advance(len(group), len(group))

    def _count_committed(self) -> None:
        """Count also what workers committed in the moment when the run was stopped."""
        left = {self.plan.title(member) for number in self.pending() for member in self.plan.groups[number]}
        self.summary.done = self.summary.planned - len(left)
        self.summary.failed = {title: why for title, why in self.summary.failed.items() if title in left}


def _workers(options: RunOptions, settings: RunSettings) -> int:
    return options.workers or (1 if settings.train.device == "cuda" else cores())


def _network_for(clips: Clips, network: NetworkConfig) -> NetworkConfig:
    """Return the network with as many classes as the clips have, and with a stream of action units only if some clip has some.

    A stream that nothing was learned by would answer, all the same, for clips of other shards that have them.
    """
    known = any(clips.with_action_units)
    if network.network == "action-units" and not known:
        raise ConfigError(
            f"train: a clip must have strengths of action units for network action-units; got none in {len(clips)} clips. "
            "Extract them with align.stabilise=head, or choose another network."
        )
    return replace(
        network,
        classes=len(clips.classes),
        multi_label=clips.multi_label,
        action_units=network.action_units and known,
    )


def _folder_fingerprint(path: Path) -> str:
    run = hashed_json.decode(read_regular(path / commit.RUN_FILE))
    return str(run.get("fingerprint", "")) if run else ""
