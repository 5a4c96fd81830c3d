"""Why a backend cannot run on this machine, and what to do about it.

For a GPU it looks in the order in which to mend: GPU and driver first, packages after, so that nobody installs hundreds of
megabytes for a GPU that cannot use them. CuPy and Numba are imported only where there is a GPU. No probe creates a CUDA context.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit_kernels.probing.driver import Driver, find_driver

Version = tuple[int, int]
LEAST_CAPABILITY: Version = (7, 5)
"""CUDA 13 compiles for nothing older."""
LEAST_CUDA: Version = (12, 0)
"""What a driver must be able to run: there are no newer packages for less."""
CUPY_BUILD = re.compile(r"cupy(-(cuda|rocm)[0-9a-z-]+)?")
"""Names of distributions that all write to the one folder `cupy`."""
BROKEN = (ImportError, OSError, AttributeError, RuntimeError, ValueError, TypeError, SystemError)
"""What a damaged or mismatched package raises at its import or first call."""
CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a backend from running.

    Attributes
    ----------
    what : str
        What was found, as a clause: "CuPy is not installed".
    next_step : str
        What to do, as a sentence without its full stop.
    """

    what: str
    next_step: str


def install_command(extra: str) -> str:
    """The command that installs an extra, from where this package came."""
    here = (CHECKOUT / "setup.cfg").is_file()
    return f"pip install -e '.[{extra}]'" if here else f"pip install 'flowkit-mer[{extra}]'"


def gpu_is_here() -> bool:
    """Whether this machine has a GPU that this process may see, be it in working order or not."""
    driver = find_driver()
    return driver is not None and bool(driver.gpus or driver.trouble)


@functools.cache
def cpu_obstacle() -> Obstacle | None:
    """Return what keeps "cpu" from running here, as far as that shows without importing Numba; looked at once per process."""
    if importlib.util.find_spec("numba") is None:
        return Obstacle("numba is not installed", "Run pip install numba")
    return _JIT_DISABLED if _is_set("NUMBA_DISABLE_JIT") else None


@functools.cache
def numba_obstacle() -> Obstacle | None:
    """Return what keeps Numba from compiling, as its import shows; looked at once per process."""
    error = _import_error("numba")
    if error:
        again = "Install it again: pip install --force-reinstall numba"
        return Obstacle(f"numba is installed but cannot be imported: {_in_short(error)}", again)
    return _JIT_DISABLED if importlib.import_module("numba").config.DISABLE_JIT else None


@functools.cache
def cupy_obstacle() -> Obstacle | None:
    """What keeps "cuda" from running here, or None; looked at once a process."""
    driver = find_driver()
    return _gpu_obstacle(driver) or _cupy_package_obstacle(driver) or _cupy_version_obstacle(driver)


@functools.cache
def numba_cuda_obstacle() -> Obstacle | None:
    """What keeps "numba-cuda" from running here, or None; looked at once a process.

    Numba's simulator (NUMBA_ENABLE_CUDASIM=1) needs no GPU, and counts as one.
    """
    driver = find_driver()
    if _is_set("NUMBA_ENABLE_CUDASIM"):
        return _numba_package_obstacle(driver)
    return (
        _gpu_obstacle(driver)
        or _numba_package_obstacle(driver)
        or _numpy_obstacle(driver)
        or _numba_version_obstacle(driver)
    )


def forget() -> None:
    """Look anew at the next call, as a new process would."""
    for probe in (find_driver, cpu_obstacle, numba_obstacle, cupy_obstacle, numba_cuda_obstacle):
        probe.cache_clear()


# --- GPU and driver


def _gpu_obstacle(driver: Driver | None) -> Obstacle | None:
    if driver is None:
        return Obstacle("no NVIDIA driver on this machine", "Install one if there is an NVIDIA GPU")
    if driver.trouble:
        step = "Make nvidia-smi work first; after an update of the driver, restart the machine"
        return Obstacle(f"the NVIDIA driver does not start: {driver.trouble}", step)
    if not driver.gpus:
        return _nothing_visible()
    if max(gpu.capability for gpu in driver.gpus) < LEAST_CAPABILITY:
        gpu = driver.gpus[0]
        what = f"{gpu.name} has compute capability {_text(gpu.capability)}; needs {_text(LEAST_CAPABILITY)}"
        return Obstacle(what, "Use a newer GPU")
    if driver.cuda < LEAST_CUDA:
        return _old_driver("flowkit", LEAST_CUDA, driver, "Update it")
    return None


def _nothing_visible() -> Obstacle:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return Obstacle(
            f"no GPU is visible: CUDA_VISIBLE_DEVICES is {hidden!r}", "Unset it, or name a GPU of `nvidia-smi -L`"
        )
    return Obstacle(
        "the NVIDIA driver finds no GPU", "Ask the container or the cluster for one: `nvidia-smi -L` must list it"
    )


def _old_driver(who: str, needed: Version, driver: Driver, next_step: str) -> Obstacle:
    what = f"the NVIDIA driver is too old for {who}: needs CUDA {_text(needed)}, found {_text(driver.cuda)}"
    return Obstacle(what, next_step)


def _fitting_extra(driver: Driver | None) -> str:
    return "cuda12" if driver is not None and driver.cuda < (13, 0) else "cuda13"


# --- CuPy


def _cupy_package_obstacle(driver: Driver | None) -> Obstacle | None:
    builds = _cupy_builds()
    install = install_command(_fitting_extra(driver))
    if len(builds) > 1:
        what = f"{len(builds)} CuPy builds are installed and overwrite each other: {', '.join(builds)}"
        return Obstacle(what, f"Keep one: pip uninstall -y {' '.join(builds)} && {install}")
    error = _import_error("cupy")
    if _is_absent(error, "cupy"):
        return Obstacle("CuPy is not installed", f"Install it: {install}")
    if isinstance(error, OSError) and error.filename:  # CuPy makes the folder for compiled kernels when it is imported
        what = f"CuPy cannot make its folder for compiled kernels: {_in_short(error)}"
        return Obstacle(what, "Set CUPY_CACHE_DIR to a folder that can be written")
    if error:
        again = f"pip uninstall -y {' '.join(builds) or 'cupy'} && {install}"
        return Obstacle(f"CuPy is installed but cannot be imported: {_in_short(error)}", f"Install it anew: {again}")
    return None


def _cupy_version_obstacle(driver: Driver | None) -> Obstacle | None:
    """Whether driver, CuPy and NVRTC go together.

    Minor versions may differ: a CUDA runtime needs a driver of its major version, and NVRTC's machine code runs there too.
    Only PTX, which CuPy makes for a GPU that is newer than NVRTC, needs a driver that is as new as NVRTC.
    """
    if driver is None:
        return None
    cuda = importlib.import_module("cupy").cuda
    needed: Version = (cuda.runtime.runtimeGetVersion() // 1000, 0)
    if needed > driver.cuda:
        instead = f"pip uninstall -y {' '.join(_cupy_builds())} && {install_command('cuda12')}"
        return _old_driver("this CuPy", needed, driver, f"Update it, or install the extra cuda12 instead: {instead}")
    version, error = _attempt(lambda: cuda.nvrtc.getVersion())
    if error:
        what = f"NVRTC, CUDA's compiler, cannot be loaded: {_in_short(error)}"
        return Obstacle(what, f"Install it: {install_command(f'cuda{needed[0]}')}")
    if version > driver.cuda and _makes_ptx(cuda.nvrtc, driver):
        return _old_driver("NVRTC, whose PTX this GPU needs", version, driver, "Update it, or install an older NVRTC")
    _, error = _attempt(cuda.runtime.getDeviceCount)
    return Obstacle(f"CuPy finds no GPU: {_in_short(error)}", "Make nvidia-smi work first") if error else None


def _makes_ptx(nvrtc: Any, driver: Driver) -> bool:
    newest = max(nvrtc.getSupportedArchs())
    return any(10 * major + minor > newest for major, minor in (gpu.capability for gpu in driver.gpus))


def _cupy_builds() -> list[str]:
    names = (str(found.metadata["Name"] or "").lower() for found in importlib.metadata.distributions())
    return sorted({name for name in names if CUPY_BUILD.fullmatch(name)})


# --- Numba


_JIT_DISABLED = Obstacle(
    "NUMBA_DISABLE_JIT is set, and without Numba's compiler a flow takes hours", "Unset NUMBA_DISABLE_JIT"
)


def _is_set(variable: str) -> bool:
    """Whether Numba takes a switch in the environment for set."""
    return os.environ.get(variable, "0").strip() not in ("", "0")


def _numba_package_obstacle(driver: Driver | None) -> Obstacle | None:
    install = install_command(_fitting_extra(driver))
    for module, name in (("numba", "numba"), ("numba_cuda", "numba-cuda")):
        error = _import_error(module)
        if _is_absent(error, module):
            return Obstacle(f"{name} is not installed", f"Install it: {install}")
    error = _import_error("numba_cuda", "numba.cuda")
    if error:
        again = f"pip uninstall -y numba-cuda && {install}"
        return Obstacle(
            f"numba-cuda is installed but cannot be imported: {_in_short(error)}", f"Install it anew: {again}"
        )
    return None


def _numpy_obstacle(driver: Driver | None) -> Obstacle | None:
    """Whether numba-cuda compiles with this NumPy; `import numba.cuda` alone does not show it, the first kernel does."""
    error = _import_error("numba.cuda.np.arrayobj")
    if error is None:
        return None
    what = f"numba-cuda cannot compile with NumPy {importlib.metadata.version('numpy')}: {_in_short(error)}"
    return Obstacle(what, f"Install the NumPy that it needs: {install_command(_fitting_extra(driver))}")


def _numba_version_obstacle(driver: Driver | None) -> Obstacle | None:
    """Whether driver, NVVM and NVRTC go together; Numba compiles to PTX, which nvJitLink or else the driver assembles."""
    if driver is None:
        return None
    install = install_command(_fitting_extra(driver))
    cuda, nvvm = importlib.import_module("numba.cuda"), importlib.import_module("numba.cuda.cudadrv.nvvm")
    found, error = _attempt(nvvm.is_available)
    if error or not found:
        step = f"Install it: {install}; or set CUDA_HOME to a CUDA toolkit, which has one in its folder nvvm"
        return Obstacle("NVVM, which numba-cuda compiles with, cannot be loaded", step)
    version, error = _attempt(importlib.import_module("numba.cuda.cudadrv.runtime").runtime.get_version)
    if error:
        return Obstacle(f"numba-cuda cannot load NVRTC: {_in_short(error)}", f"Install it: {install}")
    if version[0] > driver.cuda[0]:
        instead = f"Update it, or install the extra cuda12 instead: {install_command('cuda12')}"
        return _old_driver("numba-cuda's packages", (version[0], 0), driver, instead)
    if version > driver.cuda and _import_error("cuda.pathfinder") is None and not _loads_nvjitlink():
        return _old_driver("the PTX of numba-cuda", version, driver, f"Update it, or install nvJitLink: {install}")
    available, error = _attempt(cuda.is_available)
    if error or not available:
        reason = _in_short(error or RuntimeError(str(cuda.cuda_error()).strip()))
        return Obstacle(f"numba-cuda finds no GPU: {reason}", "Unset NUMBA_DISABLE_CUDA, and make nvidia-smi work")
    return None


def _loads_nvjitlink() -> bool:
    _, error = _attempt(lambda: importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("nvJitLink"))
    return error is None


# --- in words


def _import_error(*modules: str) -> Exception | None:
    """What the first of these imports raises that fails, or None.

    A package that warns is none that fails, not even where warnings are errors, as in tests.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            _, error = _attempt(functools.partial(importlib.import_module, module))
            if error:
                return error
    return None


def _is_absent(error: Exception | None, module: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == module


def _attempt(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What a call returns, and what it raises."""
    try:
        return call(), None
    except BROKEN as error:
        return None, error


def _in_short(error: Exception) -> str:
    """The first line that says something; CuPy wraps the error that matters in a banner."""
    told = error.__cause__ or error
    lines = [line.strip() for line in str(told).splitlines() if re.search(r"\w", line)]
    return f"{type(told).__name__}: {lines[0] if lines else 'no message'}"[:200].rstrip(".:")


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
