"""From a manifest to a folder of shards: the one module that knows every stage.

    plan -> tasks -> gather(clips of a task) -> store (shard, commit) -> finalise

Supervised worker processes read and align clips, and on the CPU compute their flow and MM-COF, too. `placement` says where a task
is gathered and stored: here, or in one process per GPU, which then computes the flow.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

from flowkit.config import BackendName, ExtractConfig
from flowkit.errors import (
    BackendUnavailable,
    ClipError,
    ClusterLost,
    ConfigError,
    DeviceLost,
    Interrupted,
    ManifestError,
    SettingsChanged,
    TooManyFailures,
)
from flowkit.execution.memory import check_address_space
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.standard_streams import open_closed
from flowkit.execution.stop import Stop
from flowkit.extraction.devices import other_devices
from flowkit.extraction.options import RunOptions
from flowkit.extraction.plan import Plan, Task, make_plan
from flowkit.extraction.read_and_align import clip_loader
from flowkit.extraction.resuming import changed_settings, refuse_changes
from flowkit.extraction.run_local import DoneTask, Job
from flowkit.extraction.run_on_cluster import site_of
from flowkit.extraction.sites import Site
from flowkit.extraction.stage_times import TaskTimes
from flowkit.extraction.summary import Summary
from flowkit.face.align import check_needs
from flowkit.inputs.frames import read_frames, slow_video_note, verify_neighbours
from flowkit.inputs.manifest import read_manifest
from flowkit.provenance import refuse_windows
from flowkit.settings_io import differences
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.folder import ShardFolder
from flowkit.storage.generations import publish_generation, read_generations
from flowkit.storage.index import Index, finalise
from flowkit.storage.row_table import column, no_garbage_collection
from flowkit.storage.run_file import read_run
from flowkit.storage.schema import SHARD_SCHEMA, sample_bytes
from flowkit_kernels.backend import GPU_BACKENDS, auto_note


def extract(
    manifest: str | Path,
    out: str | Path,
    config: ExtractConfig | None = None,
    options: RunOptions | None = None,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Compute dual-phase flow and MM-COF of every clip of a manifest into a folder of shards.

    Runs again where it was stopped: clips that were committed are not computed twice. A clip that cannot be used is
    recorded and never ends the run. report.html is written at the end, unless the run was interrupted or is one share of several.

    Parameters
    ----------
    manifest : str or Path
        CSV file; see `flowkit.inputs.manifest`.
    out : str or Path
        Folder of the shards; made if need be.
    config : ExtractConfig, optional
        What is computed.
    options : RunOptions, optional
        How the run is carried out.
    reporter : Reporter, optional
        Told of the course; silent by default.
    stop : Stop, optional
        Lets somebody end the run early.

    Returns
    -------
    Summary
        `exit_code` is what the command line returns.

    Raises
    ------
    ManifestError, ConfigError, SettingsChanged
        Before anything is computed.
    BackendUnavailable, EnvironmentMissing
        A backend, a library or the folder cannot be used.
    DiskFull, DeviceLost, ClusterLost
        What was committed stays. A GPU, or a cluster, that is lost during the run is the summary's `stopped`.

    Examples
    --------
    >>> import flowkit
    >>> summary = flowkit.extract("clips.csv", "out")  # doctest: +SKIP
    >>> summary.ok, summary.failed  # doctest: +SKIP
    (200, 0)
    """
    options, reporter = options or RunOptions(), reporter or Silent()
    with site_of(options, reporter) as site:
        run = _Run(Path(manifest), Path(out), config or ExtractConfig(), options, reporter, stop, site)
        summary = run.carry_out()
    if options.share is None and not isinstance(summary.stopped, Interrupted):
        from flowkit.reports.shard_report import refresh_report  # pages and pictures: nothing before this needs them

        refresh_report(summary.out, summary.computed, reporter)
    return summary


def preview(manifest: str | Path, out: str | Path, config: ExtractConfig, options: RunOptions) -> dict[str, Any]:
    """What `extract` would do, without writing a byte; GPUs are asked whether they are there.

    Raises
    ------
    ManifestError, ConfigError, SettingsChanged, BackendUnavailable
    """
    with site_of(options, Silent()) as site:
        run = _Run(Path(manifest), Path(out), config, options, Silent(), None, site)
        found = site.survey(run.config.backend, run.devices, run.stop.check).devices
    records = [] if run.fresh else commit.read_records(run.out)
    plan = run.part(run.plan(records), records)
    clips = sum(len(task.clips) for task in plan.pending)
    size = run.config.align.size
    return {
        "out": str(out),
        "shard": None if options.share is None else str(options.share),
        "planned": clips + len(plan.ok) + len(plan.failed),
        "ok": len(plan.ok),
        "failed": len(plan.failed),
        "pending": clips,
        "tasks": len(plan.pending),
        "foreign": len(plan.foreign),
        "bytes": clips * sample_bytes(size, run.config.shard.keep_faces),
        "backend": run.config.backend,
        "devices": list(run.devices),
        "device": found,
        "fingerprint": run.fingerprint,
        "settings": run.settings,
    }


class _Run:
    """One call of `extract`: what it was given, and its summary."""

    def __init__(
        self,
        manifest: Path,
        out: Path,
        config: ExtractConfig,
        options: RunOptions,
        reporter: Reporter,
        stop: Stop | None,
        site: Site,
    ) -> None:
        refuse_windows("extract")
        open_closed()
        self.site = site
        self.clips = read_manifest(manifest)
        self.out = out
        self.options = options
        self.reporter = reporter
        self.stop = stop or Stop()
        self.root = options.root or manifest.parent
        if not self.root.is_dir():
            raise ManifestError(f"{self.root}: --root must be a folder; got none there. Check the path.")
        check_needs(config.align, self.clips)
        check_address_space()
        stored = None if options.overwrite else read_run(out)
        self.asked_for = config.backend
        self.config = self._resolved(config, stored)
        self.devices = _devices(options.devices, self.config.backend)
        self.settings = self.config.to_dict()
        self.fingerprint = self.config.fingerprint()
        self.fresh = options.overwrite
        if stored:
            self.fresh = refuse_changes(self.settings, stored, out)
            if self.fresh and options.share is not None:
                raise options.share.refuse_to_begin_anew(out, changed_settings(self.settings, stored))
        self.pending = self.failed_now = 0
        self.counted: set[int] = set()  # tasks that the summary knows of
        self.slow_videos: set[str] = set()  # reasons that were noted
        self.run_id = uuid.uuid4().hex
        self.summary = Summary(out, share=options.share)

    def plan(self, records: Sequence[commit.Record]) -> Plan:
        """Compare manifest and folder."""
        return make_plan(
            self.clips,
            records,
            [] if self.fresh else read_generations(self.out),
            fingerprint=self.fingerprint,
            shard_clips=self.config.shard.clips,
            retry_failed=self.options.retry_failed,
        )

    def part(self, plan: Plan, records: Sequence[commit.Record]) -> Plan:
        """What of the plan this run is about."""
        return plan if self.options.share is None else self.options.share.part_of(plan, records)

    def carry_out(self) -> Summary:
        """Prepare, run every pending task, finalise."""
        start = time.perf_counter()
        with no_garbage_collection():
            plan = self._prepare()
        try:
            self._run_tasks(plan.pending)
        except (Interrupted, TooManyFailures, DeviceLost, ClusterLost) as error:
            self.summary.stopped = error
            self._count_unreported(plan.pending)
        finally:
            self.reporter.finish()
            self.summary.seconds = time.perf_counter() - start - self.summary.compile_seconds
        if self.options.share is None:
            self._warn_of_duplicates(finalise(self.out))
        else:
            self.reporter.note(self.options.share.what_comes_next(self.out))
        return self.summary

    def _prepare(self) -> Plan:
        self.survey = self.site.survey(self.config.backend, self.devices, self.stop.check)
        if self.fresh:
            commit.discard(self.out)
        commit.probe(self.out)
        durable_files.remove_stale_temporaries(self.out)
        self._store_run()
        self.fresh = False
        records, invalid = commit.scan(self.out)
        for path in invalid:
            if self.options.share is not None and not self.options.share.takes_record(path):
                continue  # on a network file system it may be one that another share is just publishing
            moved = durable_files.quarantine(path)
            self.reporter.note(
                f"{moved}: a damaged commit record, or one whose shard is damaged, was moved here; its task runs again."
            )
        plan = self._freeze(records)
        if self.options.share is not None:
            self.reporter.note(self.options.share.what_is_left(plan))
        self._count_earlier(plan, records)
        if self.options.verify_sources:
            self._verify_sources(plan)
        self.pending = self.summary.not_started
        if self.config.shard.compress == "none":  # how far zstd gets is not known beforehand
            durable_files.check_space(
                self.out, self.pending * sample_bytes(self.config.align.size, self.config.shard.keep_faces)
            )
        return plan

    def _store_run(self) -> None:
        versions_now, devices = self.survey.versions, self.survey.devices
        run = {
            "schema": hashed_json.SCHEMA,
            "shard_schema": SHARD_SCHEMA,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "backend": self.config.backend,
            "versions": versions_now,
            "device": devices,
            "machine": self.survey.machine,
        }
        if not durable_files.publish_file(self.out / commit.RUN_FILE, hashed_json.encode(run)):
            stored = read_run(self.out)
            if stored is None or refuse_changes(self.settings, stored, self.out):
                raise SettingsChanged(
                    f"{self.out}: folder must be of this run's settings; got another run that has just begun here. Use "
                    "another --out."
                )
            for change in differences(stored["versions"], versions_now):
                self.reporter.note(f"Note: this folder was begun with another version: {change}.")
            if others := other_devices(stored.get("device", {}), devices):
                self.reporter.note(
                    f"Note: this folder was begun with another GPU or driver: {others}. Bytes may differ in the last bits."
                )
        if len({what.get("name") for what in devices.values()}) > 1:
            self.reporter.note("Note: the GPUs of this run are not of one model. Bytes may differ in the last bits.")
        on = "".join(f", device {index} ({what.get('name', '?')})" for index, what in devices.items())
        self.reporter.note(f"Backend {self.config.backend}{on}, settings {self.fingerprint}.")
        self.reporter.detail(f"Versions: {', '.join(f'{name} {version}' for name, version in versions_now.items())}.")
        if self.asked_for == "auto" and not self.options.cluster and (note := auto_note()):
            self.reporter.note(note)

    def _freeze(self, records: Sequence[commit.Record]) -> Plan:
        while True:
            plan = self.plan(records)
            if plan.new is None or publish_generation(self.out, plan.new):
                return self.part(plan, records)

    def _count_earlier(self, plan: Plan, records: Sequence[commit.Record]) -> None:
        summary = self.summary
        summary.ok, summary.failed, summary.resumed = len(plan.ok), len(plan.failed), len(plan.ok)
        summary.not_started = sum(len(task.clips) for task in plan.pending)
        summary.planned = summary.ok + summary.failed + summary.not_started
        summary.phases_invalid = sum(
            False in valid and name in plan.ok
            for clips in (record.content["clips"] for record in records)
            for name, valid in zip(column(clips, "clip_id"), column(clips, "phase_valid"), strict=True)
        )
        for failure in ShardFolder(self.out, {}, tuple(records)).failures():
            if failure["clip_id"] in plan.failed:
                summary.failure_codes[failure["code"]] += 1
        if plan.ok or plan.failed:
            self.reporter.note(
                f"Resuming in {self.out}: {len(plan.ok)} clips are done, {len(plan.failed)} failed before"
                + (" (--retry-failed tries them again)." if plan.failed else ".")
            )
        if plan.foreign:
            self.reporter.note(
                f"Note: {self.out} also holds {len(plan.foreign)} clips that the manifest does not name."
            )

    def _verify_sources(self, plan: Plan) -> None:
        by_id = {clip.clip_id: clip for clip in self.clips}
        problems = []
        for done in ShardFolder.open(self.out).each_clip():
            if done["clip_id"] in plan.ok:
                self.stop.check()
                clip = dataclasses.replace(by_id[done["clip_id"]], source_hash=done["source_hash"])
                spotted = done["apex"] if self.config.frames.missing_apex == "spot" else None
                try:
                    source = read_frames(clip, self.root, self.config.frames, spotted).source
                    verify_neighbours(source, done.get("neighbours_hash", ""))
                except ClipError as error:
                    problems.append(f"{error.code}: {error.message}")
        if problems:
            raise ManifestError(
                "\n".join(problems) + f"\n{self.out}: sources must be as they were; got {len(problems)} that changed. "
                "Restore them, or use another --out."
            )

    def _warn_of_duplicates(self, index: Index) -> None:
        if twice := index.repeated():
            self.reporter.note(
                f"Warning: {self.out}: each clip must be stored once; got {len(twice)} stored twice, {twice[0]} first. Two "
                "runs with different manifests worked here at once: use another --out."
            )

    def _run_tasks(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            self.reporter.start(0)
            return
        job = self._job()
        placement = self.site.placement(self.config.backend, self.devices, self.survey)
        self.summary.processes = min(placement.processes, len(tasks))
        self.summary.workers, self.summary.by_workers = placement.workers(job), placement.by_workers
        self.summary.beside = placement.beside(job)
        with closing(placement.run(tasks, job, self.reporter, self.stop, self._warm_up)) as finished:
            for done in finished:
                self._count(done)
                self._check_failures(more=len(self.counted) < len(tasks))

    def _warm_up(self) -> None:
        self.summary.compile_seconds = self.site.warm_up(self.reporter.note, self.stop.check)
        self.reporter.start(self.pending)

    def _job(self) -> Job:
        """What the tasks need, with paths that hold in any working directory."""
        options = self.options
        workers, threads = self.site.staff(options, self.config.backend)
        config = self.config.anywhere()
        return Job(
            self.out.absolute(),
            config,
            self.settings,
            loader=partial(clip_loader, self.root.absolute(), config.frames, config.align),
            workers=workers,
            threads=threads,
            batch=options.batch,
            timeout_s=options.timeout_s,
            run_id=self.run_id,
            devices=self.survey.devices,
        )

    def _resolved(self, config: ExtractConfig, stored: Mapping[str, Any] | None) -> ExtractConfig:
        """The configuration with `auto` resolved: as the folder was begun, or as the site offers."""
        held = stored["backend"] if stored else None
        wanted = held or "auto" if config.backend == "auto" else config.backend
        try:
            backend = cast(BackendName, self.site.resolve(wanted, self.stop.check))
            return dataclasses.replace(config, backend=backend)
        except BackendUnavailable as error:
            if wanted != held:
                raise
            raise BackendUnavailable(
                f"{error} {self.out} holds {held}: another backend needs another --out."
            ) from error

    def _count(self, done: DoneTask) -> None:
        content = done.record.content
        ok, failed = len(content["clips"]), len(content["failures"])
        self.counted.add(done.task.index)
        self.summary.ok += ok
        self.summary.failed += failed
        self.failed_now += failed
        self.summary.computed += (ok + failed) * done.record.is_of(self.run_id)
        self.summary.not_started -= ok + failed
        self.summary.phases_invalid += sum(not all(valid) for valid in column(content["clips"], "phase_valid"))
        self.summary.failure_codes.update(failure["code"] for failure in content["failures"])
        self.summary.times.add(done.times)
        for reason in sorted({*done.decoded_from_first} - self.slow_videos):
            self.slow_videos.add(reason)
            self.reporter.note(slow_video_note(done.decoded_from_first[reason], reason))
        for failure in content["failures"]:
            self.reporter.detail(f"Failed: {failure['clip_id']}: {failure['code']}: {failure['message']}")
        times = "".join(f", {stage} {spent.wall_s:.2f} s" for stage, spent in done.times.stages.items())
        self.reporter.detail(f"Task {done.task.index} is committed: {ok} clips stored, {failed} failed{times}.")

    def _count_unreported(self, tasks: Sequence[Task]) -> None:
        """Count what was committed in the moment when the run was stopped."""
        for task in [task for task in tasks if task.index not in self.counted]:
            record = commit.read_record(commit.record_path(self.out, task.index))
            if record is not None and record.content["key"] == task.key:
                self._count(DoneTask(task, record, TaskTimes()))

    def _check_failures(self, *, more: bool) -> None:
        """Stop a run that fails for a reason that all its clips may share; failures of earlier runs are no such reason."""
        if more and self.failed_now > self.options.max_error_rate * self.pending:
            raise TooManyFailures(
                f"extract: share of failed clips must be at most {self.options.max_error_rate:g}; got {self.failed_now} failures "
                f"among {self.pending} clips. Look at {self.out / 'failures.csv'}, then pass --retry-failed, or a higher "
                f"--max-error-rate for the {self.summary.not_started} clips that were not done."
            )


def _devices(wanted: tuple[int, ...], backend: str) -> tuple[int, ...]:
    """The GPUs of the run: the first one by default, none for a backend that computes on the CPU."""
    if backend in GPU_BACKENDS:
        return wanted or (0,)
    if wanted:
        raise ConfigError(
            f"options: --device must go with a GPU backend ({', '.join(GPU_BACKENDS)}); got {','.join(map(str, wanted))} with "
            f"{backend}. Leave it out, or choose such a --backend."
        )
    return ()
