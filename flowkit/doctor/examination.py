"""What this machine offers to flowkit, what it lacks, and what to do about it.

Imports nothing but the standard library before it looks, so that it runs where packages are missing or broken: `flowkit
doctor`, or `python -m flowkit.doctor` where not even the command line starts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flowkit.doctor.finding import BROKEN, Finding
from flowkit.doctor.gpu import gpu_backends, gpu_finding
from flowkit.doctor.requirements import (
    CHECKOUT,
    DISTRIBUTION,
    Requirement,
    in_range,
    installed_versions,
    project_requirements,
)
from flowkit.system_libraries import install_line, missing_system_libraries

NAMESAKE = "flowkit"
"""A flow-cytometry package whose import name is ours too."""
MODULES = {"opencv-contrib-python": "cv2", "pillow": "PIL"}
"""Import names that differ from the name of the distribution."""
OPENCV = "opencv-contrib-python"
OTHER_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")
EXTRAS = {
    "zstd": "flowkit extract --compress zstd",
    "train": "fmanet: training and its scores",
    "datasets": "flowkit manifest: annotation tables in xlsx files",
    "dask": "flowkit extract --cluster: runs on several machines",
    "cuda12": "NVIDIA GPU whose driver runs CUDA 12 but not 13; never beside cuda13",
    "cuda13": "NVIDIA GPU whose driver runs CUDA 13; never beside cuda12",
    "onnx": "fmanet export: trained networks for onnxruntime",
    "figures": "fmanet compare --figure: runs beside each other, drawn",
}
"""Optional parts, and what they are for."""
PROBES = {"image": "pillow", "video": "av", "kernels": "numba", "shard": "h5py"}
"""Tasks of `flowkit.doctor.probes`, and the package that each is about."""
SIMD = ("sse4_2", "avx", "avx2", "fma", "avx512f", "asimd", "sve")
LOW_DISK_BYTES = 2 * 10**9


def examine(installed: Mapping[str, str] | None = None) -> list[Finding]:
    """Everything that extract needs or could use, in the order in which to mend it.

    Parameters
    ----------
    installed : mapping of str to str, optional
        Version of each installed distribution by its lower-case name; looked up if left out.

    Returns
    -------
    list of Finding
        Never raises because something is absent or broken: that is a finding.
    """
    installed = installed_versions() if installed is None else installed
    python, requirements = project_requirements()
    return [
        _python(python),
        _flowkit(installed, requirements),
        _namesake(installed),
        _system_libraries(),
        *(_package(requirement, installed) for requirement in requirements if not requirement.extra),
        _opencv(installed),
        _face_landmarker(),
        _backends(),
        *_compiled_kernels(),
        *(_probe(name, package, requirements) for name, package in PROBES.items()),
        gpu_finding(),
        *gpu_backends(),
        _processor(),
        _disk(Path.cwd()),
        *(_extra(name, requirements, installed) for name in EXTRAS),
    ]


def _install(extra: str = "") -> str:
    """The command that installs flowkit, from where this one came."""
    here = (CHECKOUT / "setup.cfg").is_file()
    name = "." if here else DISTRIBUTION
    return ("pip install -e " if here else "pip install ") + (f"'{name}[{extra}]'" if extra else name)


# --- what is looked at


def _python(wanted: str) -> Finding:
    version = platform.python_version()
    if all(in_range(version, text) for text in wanted.split(",") if text):
        return Finding("python", "ok", f"{version} at {sys.executable}")
    return Finding("python", "missing", f"{version}; needs {wanted}", f"Make an environment with Python {wanted}.")


def _flowkit(installed: Mapping[str, str], requirements: Sequence[Requirement]) -> Finding:
    if not requirements:
        detail = f"used from {CHECKOUT}, where no setup.cfg says what it requires"
        return Finding(DISTRIBUTION, "missing", detail, f"Install it: {_install()}")
    if DISTRIBUTION in installed:
        return Finding(DISTRIBUTION, "ok", f"{installed[DISTRIBUTION]} at {Path(__file__).parents[1]}")
    return Finding(
        DISTRIBUTION, "warning", f"used from {CHECKOUT} without being installed", f"In the checkout: {_install()}"
    )


def _namesake(installed: Mapping[str, str]) -> Finding:
    if NAMESAKE not in installed:
        return Finding("other FlowKit", "ok", "not installed")
    return Finding(
        "other FlowKit",
        "warning",
        f"FlowKit {installed[NAMESAKE]} (flow cytometry) is installed and claims the import name flowkit too",
        f"pip uninstall -y {NAMESAKE} && {_install()} --force-reinstall --no-deps",
    )


def _system_libraries() -> Finding:
    if sys.platform == "win32":
        detail = "Windows: no flowkit extract and spot; shards can be read and trained on"
        return Finding("system libraries", "missing", detail, "Run extract on Linux, on macOS or in WSL.")
    absent = missing_system_libraries()
    if not absent:
        return Finding("system libraries", "ok", "all there")
    names = ", ".join(library for library, _ in absent)
    return Finding("system libraries", "missing", f"absent: {names}", install_line(absent))


def _package(requirement: Requirement, installed: Mapping[str, str]) -> Finding:
    name, wanted = requirement.name, ",".join(requirement.ranges)
    mend = f"pip install '{requirement.text}'"
    if name not in installed:
        return Finding(name, "missing", f"not installed; needs {wanted}", mend)
    version = installed[name]
    if not requirement.admits(version):
        return Finding(name, "missing", f"{version}; needs {wanted}", mend)
    problem = _import_problem(MODULES.get(name, name.replace("-", "_")))
    if problem:
        again = f"pip install --force-reinstall '{requirement.text}'"
        return Finding(name, "missing", f"{version} is installed but cannot be imported: {problem}", again)
    return Finding(name, "ok", version)


def _import_problem(module: str) -> str:
    try:
        importlib.import_module(module)
    except BROKEN as error:
        return _in_short(error)
    return ""


def _probe(name: str, package: str, requirements: Sequence[Requirement]) -> Finding:
    """Whether a small task of extraction gives the right answer, whatever the versions say."""
    title = f"try: {name}"
    again = next((one.text for one in requirements if one.name == package and not one.extra), package)
    try:
        probes = importlib.import_module("flowkit.doctor.probes")
        with tempfile.TemporaryDirectory() as folder:
            return Finding(title, "ok", getattr(probes, name)(Path(folder)))
    except Exception as error:  # noqa: BLE001 - a package of another version than expected may raise anything
        return Finding(
            title, "missing", f"does not work: {_in_short(error)}", f"pip install --force-reinstall '{again}'"
        )


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _opencv(installed: Mapping[str, str]) -> Finding:
    """Whether cv2 is whole: all OpenCV wheels write to one folder, and the one installed last wins, file by file."""
    others = [name for name in OTHER_OPENCV if name in installed]
    mend = f"pip uninstall -y {' '.join([*others, OPENCV])} && pip install {OPENCV}"
    try:
        has_flow = hasattr(importlib.import_module("cv2").optflow, "DualTVL1OpticalFlow_create")
    except BROKEN:
        has_flow = False
    found = "; ".join(f"{name} {installed[name]} is installed too and overwrites cv2" for name in others)
    if not has_flow:
        return Finding("cv2.optflow", "missing", found or "cv2 has none, or cannot be imported", mend)
    if others:
        return Finding("cv2.optflow", "warning", found, mend)
    return Finding("cv2.optflow", "ok", f"there, and no other OpenCV beside {OPENCV}")


def _face_landmarker() -> Finding:
    """Find the bundled face with the bundled model, as `--align mediapipe` would."""
    name = "face landmarker"
    try:
        numpy, image = importlib.import_module("numpy"), importlib.import_module("PIL.Image")
        landmarks = importlib.import_module("flowkit.face.landmarks")
        with image.open(Path(__file__).parents[1] / "assets" / "face.png") as picture:
            face = numpy.asarray(picture.convert("RGB"))
        with landmarks.FaceLandmarker() as landmarker:
            found = len(landmarker.detect(face))
    except BROKEN as error:  # EnvironmentMissing is a RuntimeError
        return Finding(name, "missing", _in_short(error), f"Mend what stands above, then {_install()}")
    if found != 1:
        return Finding(name, "missing", f"finds {found} faces in the bundled picture of one", _install())
    return Finding(name, "ok", "bundled model has its hash and finds the bundled face")


def _backends() -> Finding:
    try:
        kernels = importlib.import_module("flowkit_kernels")
        names = kernels.available_backends()
    except BROKEN as error:
        return Finding("backends", "missing", _in_short(error), f"Mend what stands above, then {_install()}")
    obstacle = importlib.import_module("flowkit_kernels.backend").find_obstacle("cpu")
    if obstacle is not None:
        detail = f"only {', '.join(names)}; cpu does not run here: {obstacle.what}"
        return Finding("backends", "missing", detail, f"{obstacle.next_step}.")
    return Finding("backends", "ok", f"{', '.join(names)}; auto is {kernels.resolve_backend('auto')}")


def compile_kernels(tell: Callable[[str], object], *, say_if_done: bool = True) -> None:
    """Have the CPU's kernels compiled, and tell how long that took; what keeps them from it, `examine` finds."""
    try:
        seconds = importlib.import_module("flowkit_kernels").warm_up("cpu", tell)
    except BROKEN:  # BackendUnavailable is a RuntimeError
        return
    if seconds:
        tell(f"Compiled in {seconds:.1f} s.")
    elif say_if_done:
        tell("The kernels were compiled already.")


def _compiled_kernels() -> list[Finding]:
    """Where the CPU's kernels lie that Numba compiled, or what keeps them from being compiled."""
    name = "compiled kernels"
    try:
        backend = importlib.import_module("flowkit_kernels.backend")
        if backend.find_obstacle("cpu") is not None:
            return []
        obstacle = backend.compile_obstacle()
        if obstacle is not None:
            return [Finding(name, "missing", obstacle.what, f"{obstacle.next_step}.")]
        found = backend.compiled_folder()
        note = importlib.import_module("flowkit_kernels.cpu.code_cache").storage_note(found)
    except BROKEN as error:
        return [Finding(name, "missing", _in_short(error), f"Mend what stands above, then {_install()}")]
    if found is None:
        return [
            Finding(name, "ok", "none yet: the first run takes some 20 s to compile them", "flowkit doctor --warm-up")
        ]
    if note:
        return [Finding(name, "warning", note, "Set NUMBA_CACHE_DIR to a folder that can be written.")]
    return [Finding(name, "ok", f"in {found}")]


def _processor() -> Finding:
    try:
        cores = str(importlib.import_module("flowkit_kernels.host").cores())
    except BROKEN:  # found fault with above
        cores = "?"
    return Finding(
        "processor", "ok", f"{cores} cores for this process; {platform.machine()} {' '.join(_simd())}".strip()
    )


def _simd(file: Path = Path("/proc/cpuinfo")) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    match = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(match[2].split()) if match else set()
    return [flag for flag in SIMD if flag in flags]


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LOW_DISK_BYTES:
        return Finding(
            "disk", "warning", detail, "Free some, or write the shards elsewhere: 1000 clips take about 0.8 GB."
        )
    return Finding("disk", "ok", detail)


def _extra(name: str, requirements: Sequence[Requirement], installed: Mapping[str, str]) -> Finding:
    wanted = [requirement for requirement in requirements if requirement.extra == name]
    absent = [requirement.name for requirement in wanted if requirement.name not in installed]
    wrong = [r for r in wanted if r.name in installed and not r.admits(installed[r.name])]
    title = f"optional: {name}"
    if wrong and not absent:
        versions = ", ".join(f"{r.name} {installed[r.name]} (needs {','.join(r.ranges)})" for r in wrong)
        return Finding(title, "warning", versions, _install(name))
    if absent or not wanted:
        return Finding(title, "ok", f"not installed ({EXTRAS[name]})", _install(name))
    return Finding(title, "ok", ", ".join(f"{r.name} {installed[r.name]}" for r in wanted))


def _report(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.status:8}{finding.name}: {finding.detail}"
        if finding.next_step:
            yield f"{'':8}-> {finding.next_step}"


def main() -> None:
    """Print what was found; the exit code is 3 where something is missing."""
    results = examine()
    sys.stdout.writelines(f"{line}\n" for line in _report(results))
    sys.exit(3 if any(finding.status == "missing" for finding in results) else 0)
