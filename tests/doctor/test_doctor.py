"""The doctor finds what is wrong with a machine, says what to do, and runs where next to nothing works."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowkit.doctor.examination import CHECKOUT, Finding, Requirement, examination, examine, project_requirements
from flowkit_kernels.probing import driver, obstacles
from flowkit_kernels.probing.driver import Driver, Gpu

INSTALLED = {(d.metadata["Name"] or "").lower(): d.version for d in importlib.metadata.distributions()}


def finding(findings: list[Finding], name: str) -> Finding:
    (found,) = [one for one in findings if one.name == name]
    return found


def test_a_whole_machine_lacks_nothing_and_every_trouble_has_a_next_step() -> None:
    findings = examine()
    assert [one for one in findings if one.status == "missing"] == []
    assert all(one.next_step for one in findings if one.status != "ok")
    assert "finds the bundled face" in finding(findings, "face landmarker").detail
    assert "cpu" in finding(findings, "backends").detail
    assert finding(findings, "numpy").detail == INSTALLED["numpy"]


def test_no_step_ever_installs_the_flow_cytometry_package() -> None:
    for one in examine({}):
        words = one.next_step.replace("&&", " ").split()
        assert "flowkit" not in words or {"uninstall", "--warm-up"} & set(words), one.next_step


@pytest.mark.parametrize("other", ["opencv-python", "opencv-python-headless"])
def test_another_opencv_beside_ours_is_a_warning(other: str) -> None:
    found = finding(examine({**INSTALLED, other: "4.11.0"}), "cv2.optflow")
    assert found.status == "warning"
    assert f"{other} 4.11.0" in found.detail
    assert found.next_step == f"pip uninstall -y {other} opencv-contrib-python && pip install opencv-contrib-python"


def test_an_overwritten_opencv_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow")
    found = finding(examine({**INSTALLED, "opencv-python": "4.11.0"}), "cv2.optflow")
    assert found.status == "missing"
    assert "opencv-python 4.11.0 is installed too" in found.detail
    assert "pip uninstall -y opencv-python opencv-contrib-python" in found.next_step


def test_the_other_flowkit_is_noticed() -> None:
    assert finding(examine(INSTALLED), "other FlowKit").status == "ok"
    found = finding(examine({**INSTALLED, "flowkit": "1.2.1"}), "other FlowKit")
    assert found.status == "warning"
    assert "1.2.1" in found.detail


def test_absent_and_too_old_and_too_new_packages_are_missing() -> None:
    changed = {**INSTALLED, "numpy": "1.26.4", "mediapipe": "0.10.35"}
    del changed["h5py"]
    findings = examine(changed)
    assert finding(findings, "numpy") == Finding(
        "numpy", "missing", "1.26.4; needs >=2.1,<3", "pip install 'numpy>=2.1,<3'"
    )
    assert finding(findings, "mediapipe").status == "missing"
    assert finding(findings, "h5py").detail == "not installed; needs >=3.16,<4"


def test_a_package_that_is_there_but_broken_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xxhash", None)
    found = finding(examine(), "xxhash")
    assert found.status == "missing"
    assert "cannot be imported: ModuleNotFoundError" in found.detail
    assert "--force-reinstall" in found.next_step


BROKEN_PACKAGES = {
    "image": ("PIL.Image.open", TypeError("open() got an unexpected keyword argument")),
    "video": ("av.open", TypeError("open() got an unexpected keyword argument 'metadata_errors'")),
    "kernels": ("flowkit_kernels.cpu.operations.tvl1_flow", SystemError("initialization failed")),
    "shard": ("h5py.File", KeyError("core")),
}


@pytest.mark.parametrize("name", examination.PROBES)
def test_a_package_that_imports_but_no_longer_does_its_task_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Once PyAV had dropped an argument, every video failed while doctor said that all was well."""
    target, error = BROKEN_PACKAGES[name]
    assert examination._probe(name, examination.PROBES[name], []).status == "ok"

    def fail(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(target, fail)
    found = finding(examine(), f"try: {name}")
    assert found.status == "missing"
    assert found.detail.startswith("does not work: ")
    assert "--force-reinstall" in found.next_step


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("image", "flowkit.inputs.images.decode_image"),
        ("video", "flowkit.inputs.videos.read_footage"),
        ("kernels", "flowkit_kernels.tvl1_flow"),
        ("kernels", "flowkit_kernels.mmcof"),
    ],
)
def test_a_package_that_gives_a_wrong_answer_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, target: str
) -> None:
    module, _, function = target.rpartition(".")
    right = getattr(importlib.import_module(module), function)

    def wrong(*given: object, **named: object) -> object:
        answer = right(*given, **named)
        if isinstance(answer, np.ndarray):
            return answer * np.nan
        pictures = getattr(answer, "pictures", (answer,))
        blank = tuple(dataclasses.replace(picture, pixels=0 * picture.pixels) for picture in pictures)
        return dataclasses.replace(answer, pictures=blank) if hasattr(answer, "pictures") else blank[0]

    monkeypatch.setattr(target, wrong)
    found = examination._probe(name, examination.PROBES[name], [])
    assert found.status == "missing"
    assert "ProbeFailed" in found.detail


def test_missing_system_libraries_come_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "missing_system_libraries", lambda: [("libEGL.so.1", "libegl1")])
    found = finding(examine(), "system libraries")
    assert (found.status, found.detail) == ("missing", "absent: libEGL.so.1")
    assert found.next_step == "sudo apt-get install -y libegl1"


def test_an_optional_part_is_ok_if_absent_and_a_warning_if_it_does_not_fit() -> None:
    absent = finding(examine({}), "optional: train")
    assert absent.status == "ok"
    assert absent.next_step == "pip install -e '.[train]'"
    old = finding(examine({**INSTALLED, "torch": "2.1.0+cpu", "safetensors": "0.5"}), "optional: train")
    assert old.status == "warning"
    assert "torch 2.1.0+cpu (needs >=2.10,<3)" in old.detail
    there = finding(examine({**INSTALLED, "torch": "2.10.0", "safetensors": "0.5"}), "optional: train")
    assert (there.status, there.next_step) == ("ok", "")


def test_the_ranges_are_those_of_setup_cfg() -> None:
    python, requirements = project_requirements()
    assert python == ">=3.11"
    core = {one.name: one.text for one in requirements if not one.extra}
    assert core["mediapipe"] == "mediapipe>=0.10.32,<0.10.35"
    assert set(examination.EXTRAS) | {"dev"} == {one.extra for one in requirements if one.extra}
    assert "numba-cuda" in {one.name for one in requirements if one.extra == "cuda13"}
    for one in requirements:
        assert all(
            examination._in_range("0", text) or examination._in_range("9999", text) or "==" in text
            for text in one.ranges
        )


@pytest.mark.parametrize(
    ("ranges", "version", "admitted"),
    [
        ((">=0.10.32", "<0.10.35"), "0.10.33", True),
        ((">=0.10.32", "<0.10.35"), "0.10.35", False),
        ((">=0.10.32", "<0.10.35"), "0.9.99", False),
        ((">=2.10",), "2.9.1", False),
        ((">=2.10",), "2.10", True),
        ((">=2.0",), "2", True),
        (("==13.0.*",), "13.0.88", True),
        (("==13.0.*",), "13.1.0", False),
        ((">=5.0",), "5.0.0.93", True),
    ],
)
def test_versions_compare_as_pip_compares_them(ranges: tuple[str, ...], version: str, admitted: bool) -> None:
    assert Requirement("package", ranges, "").admits(version) == admitted


def test_the_driver_is_read_without_asking_a_program(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\nGCC version: 12\n")
    assert examination._nvidia_driver(version) == "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15"


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [("echo 'NVIDIA H100, 570.86'", "NVIDIA H100, 570.86"), ("exit 9", ""), ("exec sleep 60", "")],
    ids=["answers", "fails", "hangs"],
)
def test_nvidia_smi_is_asked_where_the_driver_file_is_absent_but_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, answer: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{behaviour}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(examination, "ANSWER_S", 0.5)
    assert examination._nvidia_driver(tmp_path / "absent") == answer


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with a GPU, but without CuPy."""
    obstacles.forget()
    found = Driver((12, 8), (Gpu("NVIDIA L4", 23 * 2**30, (8, 9)),))
    monkeypatch.setattr(examination, "_nvidia_driver", lambda: "NVRM version 570.86")
    for module in (driver, obstacles):
        monkeypatch.setattr(module, "find_driver", functools.cache(lambda: found))
    monkeypatch.setattr(obstacles, "_cupy_builds", list)
    monkeypatch.setitem(sys.modules, "cupy", None)
    yield
    monkeypatch.undo()
    obstacles.forget()


@pytest.mark.usefixtures("gpu_machine")
def test_a_gpu_that_stays_idle_is_described_and_a_warning_with_the_line_that_puts_it_to_work() -> None:
    findings = examine()
    assert finding(findings, "GPU") == Finding(
        "GPU", "ok", "0: NVIDIA L4 (23.0 GiB, compute capability 8.9); the driver runs CUDA 12.8 (NVRM version 570.86)"
    )
    assert finding(findings, "backend cuda") == Finding(
        "backend cuda",
        "warning",
        "does not run here: CuPy is not installed",
        "Install it: pip install -e '.[cuda12]'",
    )
    assert finding(findings, "backend numba-cuda").status == "ok"


def test_a_machine_without_a_gpu_is_whole() -> None:
    if driver.find_driver() is not None:
        pytest.skip("no GPU must be here; there is an NVIDIA driver")
    findings = examine()
    assert finding(findings, "GPU") == Finding("GPU", "ok", "no NVIDIA driver; the CPU computes")
    for name in ("cuda", "numba-cuda"):
        found = finding(findings, f"backend {name}")
        assert (found.status, found.detail) == ("ok", "does not run here: no NVIDIA driver on this machine")


def test_a_driver_whose_library_is_absent_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_nvidia_driver", lambda: "NVRM version 570.86")
    monkeypatch.setattr(driver, "find_driver", lambda: None)
    found = examination._gpu()
    assert found.status == "warning"
    assert "libcuda.so.1 cannot be loaded" in found.detail


def test_it_runs_on_the_standard_library_alone() -> None:
    """-S and -I: no site-packages, as on a machine where nothing was installed."""
    code = f"import sys, runpy; sys.path.insert(0, {str(CHECKOUT)!r}); runpy.run_module('flowkit.doctor', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, cwd=os.sep, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert "missing numpy: not installed" in done.stdout
    assert "pip install 'numpy>=2.1,<3'" in done.stdout
