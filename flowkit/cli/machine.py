"""Commands about this machine: `bench`, `doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import command, progress, show_rows, sigterm_as_ctrl_c
from flowkit.cli.options import AS_JSON, FILE
from flowkit.cli.printing import show_bench, show_unfinished
from flowkit.errors import ConfigError, FlowkitError
from flowkit_kernels.params import PRESETS


@command(
    "bench",
    short_help="How fast each backend is, and whether it is right.",
    epilog="flowkit bench --size 224 --batch 16 --out bench.json",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="auto, cuda, numba-cuda, cpu, reference or opencv; again for more.  [default: all that run here but reference]",
)
@click.option(
    "--op", "ops", multiple=True, type=click.Choice(["tvl1", "mmcof"]), help="One operation.  [default: both]"
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="SIZE",
    help="Side, or HEIGHTxWIDTH, in pixels: even, from 64 to 4096.  [default: 64, 128, 224, 480x640]",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    metavar="N",
    help="Pairs or clips a call.  [default: 1, 16 and 64, on a GPU 1, 16 and 256; none above 2^22 pixels, on a GPU 2^24]",
)
@click.option("--preset", type=click.Choice(PRESETS), help=f"Parameters of TV-L1.  [default: {PRESETS[0]}]")
@click.option(
    "--seconds",
    type=float,
    metavar="SECONDS",
    help="Time for each case, but for at least 3 calls and at most 1,000 of them.  [default: 0.3]",
)
@AS_JSON
@click.option("--out", type=FILE, help="File to store the result in, for a later --compare.")
@click.option("--compare", "stored", type=FILE, help="A stored result: print how many times slower each case is now.")
@click.option(
    "--tolerance", type=float, default=0.1, show_default=True, help="By how much a case may get slower, as a share."
)
@click.option("--end-to-end", is_flag=True, help="Time extract as a whole instead, on 48 synthetic clips.")
def bench_command(out: Path | None, stored: Path | None, tolerance: float, as_json: bool, **given: Any) -> None:
    """Time the operations of every backend, and OpenCV's TV-L1, each after its answer was found to be right.

    Answers are held against the float64 twin or OpenCV. One that is wrong is reported and not timed. With --compare, a case got
    slower if its median did by more than --tolerance and the quartiles do not overlap.

    The defaults take one to two minutes on two cores, most of them for OpenCV. What is stopped prints what it measured so far, and
    stores nothing.

    Exit codes: 0 all right; 1 a wrong answer, a case that failed, or one that got slower; 2 usage; 3 a backend cannot run here;
    75 stopped by SIGTERM, or its GPU lost; 130 interrupted.
    """
    from flowkit.bench import compare
    from flowkit.bench import result as result_module

    options = _bench_options(given, comparing=stored is not None)
    before = _baseline(out, stored, tolerance, options)
    result: dict[str, Any] = {}
    with sigterm_as_ctrl_c():
        try:
            _measure(options, given["backends"], result)
        except (KeyboardInterrupt, FlowkitError):
            show_unfinished(result, as_json)
            raise
    problems = result_module.troubles(result)
    compared = compare.compare(before, compare.Baseline.of(result), tolerance) if before else None
    if as_json:
        click.echo(json.dumps({**result, "compared": compared.to_dict()} if compared else result, indent=1))
    else:
        show_bench(result, compared)
    for problem in problems:
        click.echo(f"Not right: {problem}.", err=True)
    if out is not None and problems:
        click.echo(f"Not stored in {out}: a baseline must be right.", err=True)
    elif out is not None:
        result_module.write_result(out, result)
    sys.exit(1 if problems or (compared and compared.slower) else 0)


@command(
    "doctor",
    short_help="What is installed, what is missing, what to do.",
    epilog="flowkit doctor",
)
@click.option("--warm-up", is_flag=True, help="Compile the kernels ahead of the first run, and say how long that took.")
@AS_JSON
def doctor_command(warm_up: bool, as_json: bool) -> None:
    """Say what is installed, what is missing, and what to do next.

    Reads a small image and a small video, runs a pair through the kernels, which compiles them if need be, and writes a shard.

    Exit codes: 0 extract can run; 3 something it needs is missing.
    """
    from flowkit.doctor.examination import compile_kernels, examine

    with progress() as reporter:  # a pair is run through the kernels, so they are compiled here at the latest
        compile_kernels(reporter.note, say_if_done=warm_up)
    findings = examine()
    if as_json:
        rows = [{"name": f.name, "status": f.status, "detail": f.detail, "next_step": f.next_step} for f in findings]
        click.echo(json.dumps(rows, indent=1))
    else:
        show_rows(
            "flowkit doctor",
            ("what", "status", "found", "next step"),
            [(f.name, f.status, f.detail, f.next_step) for f in findings],
        )
    sys.exit(3 if any(f.status == "missing" for f in findings) else 0)


def _bench_options(given: Mapping[str, Any], comparing: bool) -> Any:
    """What `bench` is to measure; None with --end-to-end, which has nothing but backends to choose."""
    from flowkit.bench.options import BenchOptions, parse_size

    single = ("ops", "sizes", "batches", "preset", "seconds")
    if given["end_to_end"]:
        if comparing or any(given[name] for name in single):
            raise ConfigError(
                "bench: --end-to-end must come without --op, --size, --batch, --preset, --seconds and --compare; got one of "
                "them. Leave it out."
            )
        return None
    named = {
        name: given[name] for name in ("backends", "ops", "batches", "preset", "seconds") if given[name] is not None
    }
    return BenchOptions(sizes=tuple(parse_size(text) for text in given["sizes"]), **named)


def _baseline(out: Path | None, stored: Path | None, tolerance: float, options: Any) -> Any:
    """What to compare with, if anything; all that can be wrong with these options is found before anything is timed."""
    from flowkit.bench.compare import check_comparable, read_baseline
    from flowkit.storage.out_file import check_out_file

    if out is not None:
        check_out_file(out, overwrite=True)
    if not tolerance >= 0:
        raise ConfigError(f"bench: --tolerance must be 0 or more; got {tolerance}. Correct it.")
    if stored is None:
        return None
    before = read_baseline(stored)
    check_comparable(before, options)
    return before


def _measure(options: Any, backends: Sequence[str], result: dict[str, Any]) -> None:
    """Fill the result of a benchmark."""
    from flowkit.bench.end_to_end import run_end_to_end
    from flowkit.bench.measure import measure_cases

    with progress() as reporter:
        if options is None:
            run_end_to_end(backends, reporter.note, result)
        else:
            measure_cases(options, reporter.note, result)
