"""`flowkit bench`: right answers first, then times, figures that follow from them, and a stored result beside a new one."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from kernel_scenes import backend_params, numba_cuda_trouble

from conftest import run_on_standin, start
from flowkit.bench import compare as compare_module
from flowkit.bench import end_to_end, measure, result, tables
from flowkit.bench.compare import Baseline, compare
from flowkit.bench.measure import Difference, RightAnswer
from flowkit.bench.options import BenchOptions, Case
from flowkit.cli import main
from flowkit.cli.printing import show_bench
from flowkit_kernels import available_backends, timing
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.cpu import operations
from flowkit_kernels.errors import DeviceLost, DeviceOutOfMemory
from flowkit_kernels.timing import Spread, copy_bandwidth, stopwatch, time_call

ROOT = Path(__file__).parents[2]
QUICK = ("--size", "64", "--batch", "1", "--batch", "3", "--seconds", "0.01")
CASE = Case("tvl1", 64, 64, 1, "cpu", "host", "micro")


@pytest.fixture(autouse=True)
def _small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing._CpuStopwatch, "copy_bytes", 2**20)


def flowkit_bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored result of the cpu backend and OpenCV."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--backend", "opencv", "--out", path)
    assert done.exit_code == 0, done.output
    return path


def edited(stored: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    document = json.loads(stored.read_text())
    edit(document)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(document))
    return path


def scaled(factor: float) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for row in document["rows"]:
            row["seconds"] = {name: factor * value for name, value in row["seconds"].items()}

    return edit


def test_every_operation_and_batch_is_checked_and_timed_beside_opencv(stored: Path) -> None:
    document = json.loads(stored.read_text())
    assert [(row["case"]["op"], row["case"]["backend"], row["case"]["batch"]) for row in document["rows"]] == [
        ("tvl1", "cpu", 1),
        ("tvl1", "cpu", 3),
        ("tvl1", "opencv", 1),
        ("mmcof", "cpu", 1),
        ("mmcof", "cpu", 3),
    ]
    for row in document["rows"]:
        assert row["status"] == "measured"
        assert row["difference"]["judge"] == "reference"
        assert 0 <= row["difference"]["mean"] <= 3e-3
        assert row["timing"]["calls"] >= 3
        assert (
            0 < row["seconds"]["least"] <= row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["most"]
        )
    assert document["machine"]["versions"]["numpy"] == np.__version__
    assert document["copy_bytes_per_s"].keys() == {"cpu"}
    assert document["interrupted"] is False


def test_the_figures_follow_from_the_times(stored: Path) -> None:
    document = json.loads(stored.read_text())
    copied = document["copy_bytes_per_s"]["cpu"]
    levels = sum(side * side for side in (64, 32, 16))
    for row in document["rows"]:
        batch, seconds = row["case"]["batch"], row["timing"]["host_s"]["median"]
        assert row["items_per_s"] == pytest.approx(batch / seconds)
        if row["case"]["op"] == "tvl1":
            work = batch * levels * 2 * 35
            assert row["pixel_iterations_per_s"] == pytest.approx(work / seconds)
            assert row["copy_share"] == pytest.approx(64 * work / seconds / copied)
        else:
            assert row["pixel_iterations_per_s"] is None
            assert row["copy_share"] == pytest.approx(29 * 64 * 64 * batch / seconds / copied)


def test_a_schedule_that_may_stop_early_has_no_count_of_iterations() -> None:
    assert measure.pixel_iterations(dataclasses.replace(CASE, preset="opencv")) == 0
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--op", "tvl1", "--preset", "opencv", "--json")
    (row, _) = json.loads(done.stdout)["rows"]
    assert (row["status"], row["pixel_iterations_per_s"], row["copy_share"]) == ("measured", None, None)


def test_the_table_is_all_that_stdout_gets_and_progress_goes_to_stderr() -> None:
    done = flowkit_bench(*QUICK, "--backend", "cpu")
    assert done.exit_code == 0
    title, header, *lines = done.stdout.splitlines()
    assert title.startswith("flowkit bench, ")
    assert header.split()[:5] == ["op", "size", "batch", "backend", "arrays"]
    assert [line.split()[0] for line in lines] == ["tvl1", "tvl1", "mmcof", "mmcof", "of", "Times"]
    assert "beside the best large copy (cpu " in lines[-2]
    assert "over 100 % where a kernel keeps data in cache" in lines[-2]
    assert done.stderr.splitlines()[-1] == "mmcof, 64 x 64: cpu."


def test_a_wrong_answer_is_not_timed_and_not_stored_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = operations.tvl1_flow

    def wrong_in_the_last_item(stacks: Any, *arguments: Any) -> Any:
        flow = right(stacks, *arguments)
        if len(flow) > 1:
            flow[-1] += 0.02
        return flow

    monkeypatch.setattr(operations, "tvl1_flow", wrong_in_the_last_item)
    out = tmp_path / "result.json"
    done = flowkit_bench("--size", 64, "--batch", 1, "--batch", 40, "--seconds", 0.01, "--json", "--out", out)
    rows = {
        (row["case"]["backend"], row["case"]["op"], row["case"]["batch"]): row
        for row in json.loads(done.stdout)["rows"]
    }
    assert done.exit_code == 1
    wrong = rows.pop(("cpu", "tvl1", 40))
    assert (wrong["status"], wrong["timing"], wrong["items_per_s"]) == ("wrong", None, None)
    assert wrong["difference"]["mean"] == pytest.approx(0.02, rel=0.1)
    assert {row["status"] for row in rows.values()} == {"measured"}
    assert "tvl1 64 x 64, batch 40, cpu, host arrays: wrong, off reference by 0.02" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_an_answer_that_is_no_number_is_wrong(value: float) -> None:
    right = RightAnswer("reference", np.zeros((1, 2, 32, 32)))
    answer = np.zeros((3, 2, 32, 32), np.float32)
    assert right.difference(answer).within(measure.BARS["tvl1", "fixed"])
    answer[1, 0, 16, 16] = value
    assert not right.difference(answer).within(measure.BARS["tvl1", "fixed"])
    assert not right.difference(answer[:, :1]).within(measure.BARS["tvl1", "fixed"])


def test_what_does_not_fit_the_gpu_is_a_failed_case_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> Any:
        raise DeviceOutOfMemory("cpu: nothing is left")

    monkeypatch.setattr(operations, "tvl1_flow", out_of_memory)
    done = flowkit_bench(*QUICK, "--backend", "cpu")
    assert done.exit_code == 1
    assert "failed: cpu: nothing is left" in done.stdout
    assert done.stdout.count("\nmmcof") == 2


def test_an_opencv_without_optflow_is_reported_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow")
    done = flowkit_bench(*QUICK, "--op", "tvl1", "--backend", "opencv", "--backend", "cpu")
    assert done.exit_code == 0
    assert "not available: this cv2 has no optflow" in done.stdout


@pytest.mark.parametrize(("version", "judge"), [("4.13.0", "reference"), ("5.0.0", "opencv")])
def test_opencv_judges_large_images_where_it_does_not_round_coordinates(
    monkeypatch: pytest.MonkeyPatch, version: str, judge: str
) -> None:
    monkeypatch.setattr(cv2, "__version__", version)
    monkeypatch.setattr(measure, "TWIN_PIXELS", 0)
    inputs = measure.make_inputs(64, 64)
    assert measure.right_answer("tvl1", inputs, "fixed").judge == judge
    assert measure.right_answer("mmcof", inputs, "fixed").judge == "reference"


def test_default_batches_stay_within_memory_and_time() -> None:
    options = BenchOptions()
    found = {
        (backend, size): [c.batch for c in measure.cases("tvl1", *size, [backend], options) if c.arrays == "host"]
        for backend in ("cpu", "cuda", "opencv")
        for size in ((224, 224), (480, 640), (2048, 4096))
    }
    assert found["cpu", (224, 224)] == [1, 16, 64]
    assert found["cpu", (480, 640)] == [1]
    assert found["cuda", (224, 224)] == [1, 16, 256]
    assert found["cuda", (480, 640)] == [1, 16]
    assert found["cpu", (2048, 4096)] == found["opencv", (224, 224)] == [1]


def test_a_gpu_is_timed_with_arrays_on_either_side_and_opencv_only_where_it_has_the_operation() -> None:
    options = BenchOptions(batches=(2,))
    assert [c.arrays for c in measure.cases("mmcof", 64, 64, ["cuda", "cpu", "opencv"], options)] == [
        "host",
        "device",
        "host",
    ]


def test_the_same_speed_is_the_same(stored: Path) -> None:
    then = Baseline.of(json.loads(stored.read_text()))
    compared = compare(then, then)
    assert {(ratio.times, ratio.verdict) for ratio in compared.ratios} == {(1.0, "same")}
    assert (len(compared.ratios), compared.only_then, compared.only_now, compared.other_machine) == (5, 0, 0, "")


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (Spread(1.0, 0.9, 1.1, 0.5, 2), Spread(1.3, 1.2, 1.4, 1, 2), "slower"),
        (Spread(1.0, 0.9, 1.25, 0.5, 2), Spread(1.3, 1.2, 1.4, 1, 2), "same"),  # the quartiles overlap
        (Spread(1.0, 0.99, 1.01, 0.5, 2), Spread(1.09, 1.08, 1.1, 1, 2), "same"),  # within the tolerance
        (Spread(1.3, 1.2, 1.4, 1, 2), Spread(1.0, 0.9, 1.1, 0.5, 2), "faster"),
    ],
)
def test_slower_is_more_than_the_tolerance_and_beyond_the_spread(then: Spread, now: Spread, verdict: str) -> None:
    machine = {"processor": "p", "cores": 2, "devices": {}}
    (ratio,) = compare(Baseline(machine, {CASE: then}), Baseline(machine, {CASE: now}), 0.1).ratios
    assert ratio.verdict == verdict
    assert ratio.times == now.median / then.median


@pytest.mark.parametrize(("factor", "code", "verdict"), [(0.01, 1, "slower"), (100.0, 0, "faster")])
def test_compare_ends_with_1_if_a_case_got_slower(
    stored: Path, tmp_path: Path, factor: float, code: int, verdict: str
) -> None:
    path = edited(stored, tmp_path, scaled(factor))
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--compare", path)
    assert done.exit_code == code, done.output
    assert done.stdout.count(f" {verdict}\n") == 4
    assert "Not compared: 1 cases timed only then, 0 only now." in done.stdout
    assert f"4 cases compared, {4 if code else 0} slower." in done.stdout
    assert "Another machine" not in done.stdout


def test_another_machine_is_named(stored: Path, tmp_path: Path) -> None:
    path = edited(stored, tmp_path, lambda document: document["machine"].update(processor="Abacus", cores=1000))
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--compare", path, "--tolerance", "1000", "--json")
    compared = json.loads(done.stdout)["compared"]
    assert done.exit_code == 0
    assert compared["other_machine"].startswith("processor Abacus -> ")
    assert "cores 1000 -> " in compared["other_machine"]
    notes = tables.comparison_notes(compare_module.Comparison((), 0, 0, compared["other_machine"]))
    assert notes[0].endswith("The times say nothing about the code.")


def test_another_gpu_is_named_and_one_that_only_one_result_knows_is_not() -> None:
    def machine(**devices: str) -> dict[str, Any]:
        named = {backend: {"name": name} for backend, name in devices.items()}
        return {"processor": "p", "cores": 2, "devices": named}

    spread = Spread(1, 1, 1, 1, 1)
    old, new = (Baseline(m, {CASE: spread}) for m in (machine(cuda="Volta"), machine(cuda="Hopper")))
    assert compare(old, new).other_machine == "GPU Volta -> Hopper"
    assert compare(old, Baseline(machine(), {CASE: spread})).other_machine == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "got No such file or directory"),
        ("{", "got something else"),
        ("[]", "got something else"),
        (
            '{"title": "flowkit bench", "format": 1, "rows": [{"status": "measured"}], "machine": {}}',
            "got something else",
        ),
        ('{"title": "flowkit bench", "format": 2, "rows": []}', "got something else"),
        ('{"benchmark": "tvl1_cpu", "results": {}}', "got something else"),
    ],
)
def test_a_file_that_is_no_result_is_refused_before_anything_is_timed(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "then.json"
    if content is not None:
        path.write_text(content)
    done = flowkit_bench(*QUICK, "--compare", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{path}: --compare must be a result of flowkit bench; {says}" in done.stderr
    assert "Bandwidth" not in done.stderr


def test_a_result_without_a_common_case_is_refused_before_anything_is_timed(stored: Path) -> None:
    done = flowkit_bench("--size", "66", "--batch", "1", "--op", "mmcof", "--backend", "cpu", "--compare", stored)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "must be a result that timed some of the same cases; got none of these 1" in done.stderr
    assert "Bandwidth" not in done.stderr


def test_what_was_measured_is_shown_and_stored_though_nothing_is_left_to_compare(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "planned", lambda _: [CASE])
    out = tmp_path / "result.json"
    done = flowkit_bench(
        "--size", 66, "--batch", 1, "--op", "mmcof", "--backend", "cpu", "--compare", stored, "--out", out
    )
    assert done.exit_code == 0, done.output
    assert "mmcof 66x66" in done.stdout
    assert "0 cases compared, 0 slower." in done.stdout
    assert len(json.loads(out.read_text())["rows"]) == 1


def test_an_end_to_end_result_is_said_to_be_one_that_cannot_be_compared(stored: Path, tmp_path: Path) -> None:
    path = edited(stored, tmp_path, lambda document: document.update(end_to_end=document.pop("rows")))
    done = flowkit_bench(*QUICK, "--compare", path)
    assert done.exit_code == 2
    assert "got one of --end-to-end, which cannot be compared. Store one with" in done.stderr


@pytest.mark.parametrize("seconds", [0, -1.0, "1", None], ids=str)
def test_a_stored_result_whose_times_are_none_is_refused(stored: Path, tmp_path: Path, seconds: object) -> None:
    path = edited(stored, tmp_path, lambda document: document["rows"][0]["seconds"].update(median=seconds))
    assert "got something else" in flowkit_bench(*QUICK, "--compare", path).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--backend", "nope"), "backend must be one of auto, cuda, numba-cuda, cpu, reference, opencv; got nope"),
        (("--backend", "nope", "--end-to-end"), "one that extract has (auto, cuda, numba-cuda, cpu, reference), with"),
        (("--op", "mmcof", "--backend", "opencv"), "op must be tvl1 where opencv is the only backend; got mmcof"),
        (("--op", "median"), "'median' is not one of 'tvl1', 'mmcof'"),
        (("--size", "big"), "size must be a side or HEIGHTxWIDTH in pixels, such as 224 or 480x640; got 'big'"),
        (("--size", "64x64x3"), "got '64x64x3'"),
        (("--size", "63"), "size must be of even sides from 64 to 4096; got 63x63"),
        (("--size", "-64"), "got '-64'"),
        (("--batch", "0"), "batch must be from 1 to 65536; got 0"),
        (("--seconds", "0"), "seconds must be above 0"),
        (("--seconds", "nan"), "seconds must be above 0"),
        (("--tolerance", "-1"), "--tolerance must be 0 or more; got -1.0"),
        (("--tolerance", "nan"), "--tolerance must be 0 or more; got nan"),
        (("--out", "nowhere/result.json"), "--out must lie in a folder that exists"),
        (("--out", "."), ".: --out must name a file; got a folder"),
        (("--end-to-end", "--compare", "x.json"), "--end-to-end must come without --op, --size"),
        (("--end-to-end", "--size", "64"), "--end-to-end must come without --op, --size"),
        (("--end-to-end", "--backend", "opencv"), "backend must be one that extract has"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_ends_with_2_before_anything_is_timed(arguments: tuple[str, ...], says: str) -> None:
    done = flowkit_bench(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.skipif(set(GPU_BACKENDS) <= set(available_backends()), reason="every GPU backend runs here")
def test_a_named_backend_that_cannot_run_here_ends_with_3() -> None:
    name = next(name for name in GPU_BACKENDS if name not in available_backends())
    done = flowkit_bench(*QUICK, "--backend", name)
    assert (done.exit_code, done.stdout) == (3, "")


def test_help_says_what_size_and_seconds_may_be() -> None:
    told = " ".join(flowkit_bench("--help").stdout.split())
    assert "in pixels: even, from 64 to 4096." in told
    assert "at least 3 calls and at most 1,000 of them" in told
    assert timing.MAX_CALLS == 1000


@pytest.fixture
def interrupted_at_the_third_case(monkeypatch: pytest.MonkeyPatch) -> None:
    examine, seen = measure.examine, []

    def interrupted(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return examine(*arguments)

    monkeypatch.setattr(measure, "examine", interrupted)


@pytest.mark.usefixtures("interrupted_at_the_third_case")
def test_ctrl_c_prints_what_was_measured_stores_nothing_and_ends_with_130(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--out", out)
    assert (done.exit_code, out.exists()) == (130, False)
    assert done.stdout.splitlines()[0].endswith(", stopped before its end")
    assert done.stdout.count("\ntvl1") == 2
    assert "command was interrupted" in done.stderr


@pytest.mark.usefixtures("interrupted_at_the_third_case")
def test_ctrl_c_gives_the_document_of_what_was_measured() -> None:
    done = flowkit_bench(*QUICK, "--backend", "cpu", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["interrupted"], len(document["rows"])) == (130, True, 2)


def test_a_lost_gpu_takes_no_finished_row_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    examine = measure.examine

    def lost(case: Case, *arguments: Any) -> Any:
        if case.batch == 3:
            raise DeviceLost("cuda: GPU must answer; got none.")
        return examine(case, *arguments)

    monkeypatch.setattr(measure, "examine", lost)
    done = flowkit_bench(*QUICK, "--backend", "cpu")
    assert (done.exit_code, done.stdout.count("\ntvl1")) == (75, 1)
    assert "got none." in done.stderr


FEW_CLIPS = (
    "from flowkit import cli; from flowkit.bench import end_to_end as e; e.SUBJECTS, e.SHARD_CLIPS = 3, 4; cli.main()"
)


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGINT, 130, "rendered"),
        (signal.SIGTERM, 75, "extract: cpu."),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_leaves_no_data_set_behind(tmp_path: Path, number: signal.Signals, code: int, moment: str) -> None:
    process = start("bench", "--end-to-end", "--backend", "cpu", code=FEW_CLIPS, TMPDIR=str(tmp_path))
    assert process.stderr is not None
    assert any(moment in line for line in process.stderr)
    assert list(tmp_path.iterdir())
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert list(tmp_path.iterdir()) == []


def test_end_to_end_times_a_whole_extract_of_several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_to_end, "SUBJECTS", 1)
    monkeypatch.setattr(end_to_end, "SHARD_CLIPS", 3)
    done = flowkit_bench("--end-to-end", "--backend", "cpu", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["end_to_end"]
    assert (found["backend"], found["computed"], found["failed"], found["shards"]) == ("cpu", 8, 0, 3)
    assert found["clips_per_s"] == pytest.approx(8 / found["seconds"], rel=0.05)
    assert 0 < found["start_up_s"] < 60
    assert found["stage_seconds"]["flow"] > 0
    document = {"end_to_end": [{**found, "failed": 2, "failure_codes": {"NO_FACE": 2}}]}
    assert result.troubles(document) == ["extract, cpu: 2 clips failed {'NO_FACE': 2}"]
    assert tables.end_to_end_table(document)[0][:3] == ("cpu", "8", "3")
    assert tables.end_to_end_notes(document)[0].startswith("cpu, ms a clip, added up over processes: read ")


def test_an_end_to_end_run_has_several_tasks() -> None:
    assert 8 * end_to_end.SUBJECTS / end_to_end.SHARD_CLIPS >= 4


def test_a_terminal_that_is_too_narrow_cuts_no_figure() -> None:
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "flowkit.cli", "bench", *QUICK, "--backend", "cpu"]
    done = subprocess.run(command, stdout=terminal, stderr=subprocess.DEVNULL, env=os.environ | paths, check=False)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 0
    assert "…" not in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("tvl1", "mmcof"))]
    assert [row[:4] for row in rows] == [[op, "64x64", batch, "cpu"] for op in ("tvl1", "mmcof") for batch in "13"]
    assert all(float(row[5]) > 0 for row in rows)


def test_the_tables_of_a_gpu_fit_80_columns(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(stored.read_text())
    (row, *_) = document["rows"]
    row["case"] |= {"height": 480, "width": 640, "batch": 1024, "backend": "numba-cuda", "arrays": "device"}
    row["timing"]["host_s"]["median"], row["timing"]["device_s"] = 0.0001234567, {"median": 1.234567}
    row |= {"op": "mmcof", "items_per_s": 123456.7, "pixel_iterations_per_s": 1.234567e11, "copy_share": 1.67891}
    spread = Spread(**row["seconds"])
    compared = compare_module.Comparison(
        (compare_module.Ratio(Case(**row["case"]), spread, spread, 1.0, "slower"),), 0, 0, ""
    )
    show_bench(document, compared)
    rows = [line for line in capsys.readouterr().out.splitlines() if " numba-cuda " in line]
    assert len(rows) == 2
    assert rows[0].split()[5:11] == ["0.123", "1235", "123457", "123", "168", "%"]
    assert max(map(len, rows)) <= 80


class Metronome:
    """A stopwatch whose laps last as long as it was told, and that remembers what was done."""

    copy_bytes = 1000

    def __init__(self, host_s: float, device_s: float | None) -> None:
        self.seconds, self.done = (host_s, device_s), list[str]()

    def place(self, array: Any) -> Any:
        return array

    def fetch(self, array: Any) -> Any:
        return array

    def copy(self) -> None:
        self.done.append("copy")

    def lap(self, call: Callable[[], object]) -> tuple[float, float | None]:
        call()
        return self.seconds


def test_each_timed_call_finds_its_inputs_out_of_the_caches() -> None:
    watch = Metronome(0.25, 0.5)
    timed = time_call(watch, lambda: watch.done.append("call"), seconds=0)
    assert watch.done == ["copy", "call"] * 3
    assert (timed.calls, timed.host_s.median, timed.device_s and timed.device_s.median) == (3, 0.25, 0.5)
    assert time_call(watch, lambda: None, seconds=60).calls == timing.MAX_CALLS


@pytest.mark.parametrize("device_s", [0.5, None], ids=["gpu", "cpu"])
def test_a_copy_counts_what_is_read_and_what_is_written_by_the_devices_clock(device_s: float | None) -> None:
    assert copy_bandwidth(Metronome(0.25, device_s), seconds=0.001) == 2 * 1000 / (device_s or 0.25)


def test_the_bandwidth_is_that_of_the_best_copy() -> None:
    class Disturbed(Metronome):
        def lap(self, call: Callable[[], object]) -> tuple[float, float | None]:
            call()
            return (0.25 if len(self.done) % 3 else 4.0), None

    assert copy_bandwidth(Disturbed(0, None), seconds=0.01) == 2 * 1000 / 0.25


def test_a_copy_on_the_cpu_copies_all_of_it() -> None:
    watch = timing._CpuStopwatch()
    assert sum(part.nbytes for part in watch._targets) == watch.copy_bytes
    watch.copy()
    for source, target in zip(watch._sources, watch._targets, strict=True):
        np.testing.assert_array_equal(source, target)


def test_quartiles_are_those_of_the_measurements() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)


@pytest.mark.skipif(bool(numba_cuda_trouble()), reason=numba_cuda_trouble())
def test_numbas_stopwatch_runs_in_numbas_simulator() -> None:
    code = """
import numpy as np
from flowkit_kernels import timing
timing._NumbaStopwatch.copy_bytes = 4096
watch = timing._NumbaStopwatch()
placed = watch.place(np.arange(6, dtype=np.float32))
assert type(placed) is not np.ndarray
assert watch.fetch(placed).tolist() == list(range(6))
watch.copy()
assert watch._target.copy_to_host().tolist() == list(range(1024))
timed = timing.time_call(watch, lambda: None, seconds=0)
assert timed.device_s is None and timed.host_s.median >= 0
"""
    process = start(code=code, NUMBA_ENABLE_CUDASIM="1")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error


def test_a_gpu_is_described_by_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "describe_devices", lambda backend, indices: {"0": {"name": backend, "asked": indices}})
    heading = result.heading(("cuda", "cpu"), {})
    assert heading["machine"]["devices"] == {"cuda": {"name": "cuda", "asked": (0,)}}


@pytest.mark.gpu("cuda")
def test_end_to_end_leaves_the_gpu_to_the_processes_that_compute() -> None:
    code = """
import ctypes
from flowkit.bench import end_to_end
end_to_end.SUBJECTS = 1
(found,) = end_to_end.run_end_to_end(("cuda",))["end_to_end"]
assert found["computed"] == 8 and not found["failed"], found
flags, active = ctypes.c_uint(), ctypes.c_int(-1)
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuInit(0) == 0
assert driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
assert active.value == 0
"""
    process = start(code=code)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error


@backend_params(GPU_BACKENDS)
def test_a_gpu_gives_right_answers_and_times_on_both_clocks(backend: str) -> None:
    document = measure.measure_cases(BenchOptions((backend,), sizes=((64, 64),), batches=(1, 5), seconds=0.05))
    assert result.troubles(document) == []
    for row in document["rows"]:
        assert 0 < row["timing"]["device_s"]["median"] < 10
        assert row["seconds"] == row["timing"]["device_s" if row["case"]["arrays"] == "device" else "host_s"]
    watch = stopwatch(backend)
    assert 1e9 < copy_bandwidth(watch) < 1e14
    numbers = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(watch.fetch(watch.place(numbers)), numbers)


@pytest.mark.skipif("cuda" in available_backends(), reason="there is a GPU here")
def test_the_gpu_benchmark_writes_nothing_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out)])
    assert (importlib.import_module("gpu").main(), out.exists()) == (3, False)
    shown, error = capsys.readouterr()
    assert shown == ""
    assert "backend: cuda must be able to run here" in error


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        ("NVIDIA H100 80GB HBM3", True),
        ("NVIDIA H200", True),
        ("NVIDIA A100-SXM4-40GB", False),
        ("Stand-in on the CPU", False),
    ],
)
def test_the_gpu_benchmark_judges_each_gpu_that_its_bars_were_set_for(
    name: str, decides: bool, monkeypatch: pytest.MonkeyPatch, stored: Path
) -> None:
    """A rate below "good" fails the run there, and only there."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu = importlib.import_module("gpu")
    document = json.loads(stored.read_text())
    document["machine"]["devices"] = {"cuda": {"name": name}}
    monkeypatch.setattr(gpu, "resolve_backend", lambda _: "cuda")
    monkeypatch.setattr(gpu, "measure", lambda *arguments: arguments[-1].append(document))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == int(decides)
    assert gpu.decides(name) == decides


def test_a_gpu_that_others_fill_is_told_in_a_line() -> None:
    done = run_on_standin("-m", "flowkit.cli", "bench", *QUICK, "--backend", "cuda", memory_bytes=40_000)
    assert (done.returncode, done.stdout) == (3, "")
    last = done.stderr.splitlines()[-1]
    assert re.match(
        r"Error: GPU: free memory must hold a single item and its result; got .* bytes\)\. Use smaller", last
    )


@pytest.mark.parametrize(("rate", "reached"), [(19_999, "neither"), (20_000, "good"), (40_000, "wanted")])
def test_the_gpu_benchmark_judges_the_fastest_batch_with_device_arrays(
    stored: Path, monkeypatch: pytest.MonkeyPatch, rate: float, reached: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu = importlib.import_module("gpu")
    document = json.loads(stored.read_text())
    row = document["rows"][0]
    rows = [("device", rate), ("device", 7.0), ("device", None), ("host", 1e6)]
    document["rows"] = [
        {**row, "case": {**row["case"], "height": 128, "width": 128, "arrays": arrays}, "items_per_s": found}
        for arrays, found in rows
    ]
    bars = gpu.judged(gpu.best_rates([document]))
    assert [(bar["size"], bar["pairs_per_s"], bar["reached"]) for bar in bars] == [
        ((128, 128), rate, reached),
        ((224, 224), 0, "neither"),
    ]
    assert gpu.lines([document], bars)[-2].startswith(f"128 x 128: {rate} pairs/s")


def test_the_gpu_benchmark_keeps_what_it_measured_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu = importlib.import_module("gpu")
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--seconds", "0.01", "--out", str(out)])
    monkeypatch.setattr(gpu, "BATCHES", {(64, 64): (1,), (66, 66): (1,)})
    monkeypatch.setattr(gpu, "resolve_backend", lambda _: "cpu")
    monkeypatch.setattr(gpu, "BenchOptions", lambda _, *rest: BenchOptions(("cpu",), *rest))
    examine = measure.examine

    def interrupted(case: Case, *arguments: Any) -> Any:
        if (case.height, case.op) == (66, "mmcof"):
            raise KeyboardInterrupt
        return examine(case, *arguments)

    monkeypatch.setattr(measure, "examine", interrupted)
    assert (gpu.main(), out.exists()) == (130, False)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in shown] == ["tvl1 64 x 64", "mmcof 64 x 64", "tvl1 66 x 66"]


def test_a_difference_at_the_bar_is_within_it() -> None:
    bar = measure.BARS["tvl1", "fixed"]
    assert Difference("reference", *bar).within(bar)
    assert not Difference("reference", bar.mean, 0.041).within(bar)
