"""Each thing that keeps a GPU backend from running is told apart, in words, with the step that mends it."""

from __future__ import annotations

import configparser
import errno
import importlib
import importlib.machinery
import importlib.metadata
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up_driver import FakeLibcuda

from flowkit_kernels import BackendUnavailable, backend, resolve_backend
from flowkit_kernels.probing import driver, obstacles
from flowkit_kernels.probing.driver import Driver, Gpu
from flowkit_kernels.probing.obstacles import Obstacle, cupy_obstacle, numba_cuda_obstacle

H100 = Gpu("NVIDIA H100", 80 * 2**30, (9, 0))
PASCAL = Gpu("NVIDIA GeForce GTX 1080", 8 * 2**30, (6, 1))
FUTURE = Gpu("NVIDIA Next", 8 * 2**30, (13, 0))
INSTALL_13 = "pip install -e '.[cuda13]'"
INSTALL_12 = "pip install -e '.[cuda12]'"


@pytest.fixture(autouse=True)
def look_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CUDA_VISIBLE_DEVICES", "NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    obstacles.forget()
    yield
    monkeypatch.undo()
    obstacles.forget()


def raises(error: Exception) -> Any:
    def call(*_: Any) -> Any:
        raise error

    return call


def returns(value: Any) -> Any:
    return lambda *_: value


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give this machine a driver, CuPy and numba-cuda; all of them in order unless told otherwise."""

    def make(library: Any = None, cupy: Any = None, builds: Sequence[str] = ("cupy-cuda13x",), **modules: Any) -> None:
        found = [SimpleNamespace(metadata={"Name": name}) for name in ("numpy", "cupyx-extra", *builds)]
        monkeypatch.setattr(driver, "_load", returns(library or FakeLibcuda()))
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(found))
        monkeypatch.setitem(sys.modules, "cupy", cupy or fake_cupy())
        for name, module in (numba_modules() | modules).items():
            monkeypatch.setitem(sys.modules, name, module)
            parent, _, child = name.rpartition(".")
            if (
                parent in sys.modules
            ):  # importing a module again makes it an attribute of its package, for all tests to come
                package = sys.modules[parent]
                monkeypatch.setattr(package, child, getattr(package, child, module), raising=False)

    return make


def fake_cupy(runtime: int = 13020, **changed: Any) -> Any:
    functions: dict[str, Any] = {
        "getVersion": returns((13, 0)),
        "getSupportedArchs": returns((75, 80, 90, 120)),
        "getDeviceCount": returns(1),
        **changed,
    }
    nvrtc = SimpleNamespace(getVersion=functions["getVersion"], getSupportedArchs=functions["getSupportedArchs"])
    counts = SimpleNamespace(runtimeGetVersion=returns(runtime), getDeviceCount=functions["getDeviceCount"])
    return SimpleNamespace(cuda=SimpleNamespace(nvrtc=nvrtc, runtime=counts))


def numba_modules(
    nvvm: bool = True, nvrtc: Any = None, nvjitlink: Any = None, available: bool = True
) -> dict[str, Any]:
    return {
        "numba_cuda": SimpleNamespace(),
        "numba.cuda": SimpleNamespace(is_available=returns(available), cuda_error=returns("CUDA is disabled")),
        "numba.cuda.np.arrayobj": SimpleNamespace(),
        "numba.cuda.cudadrv.nvvm": SimpleNamespace(is_available=returns(nvvm)),
        "numba.cuda.cudadrv.runtime": SimpleNamespace(runtime=SimpleNamespace(get_version=nvrtc or returns((13, 0)))),
        "cuda.pathfinder": SimpleNamespace(load_nvidia_dynamic_lib=nvjitlink or returns(None)),
    }


def test_a_machine_in_order_has_no_obstacle(machine: Any) -> None:
    machine()
    assert cupy_obstacle() is None
    assert numba_cuda_obstacle() is None
    assert resolve_backend("auto") == "cuda"
    assert set(backend.available_backends()) == {"cuda", "numba-cuda", "cpu", "reference"}


def test_the_driver_says_what_it_drives(machine: Any) -> None:
    machine(FakeLibcuda((12, 8), (H100, PASCAL)))
    assert driver.find_driver() == Driver((12, 8), (H100, PASCAL))


@pytest.mark.parametrize("probe", [cupy_obstacle, numba_cuda_obstacle])
@pytest.mark.parametrize(
    ("library", "visible", "expected"),
    [
        (FakeLibcuda(code=34), None, Obstacle("no NVIDIA driver on this machine", "Install one")),
        (FakeLibcuda(code=100), None, Obstacle("the NVIDIA driver finds no GPU", "Ask the container")),
        (FakeLibcuda(code=100), "-1", Obstacle("no GPU is visible: CUDA_VISIBLE_DEVICES is '-1'", "Unset it")),
        (FakeLibcuda(gpus=()), "", Obstacle("no GPU is visible: CUDA_VISIBLE_DEVICES is ''", "Unset it")),
        (
            FakeLibcuda(code=802),
            None,
            Obstacle("does not start: system not yet initialized (CUDA error 802)", "Make nvidia-smi work"),
        ),
        (
            FakeLibcuda(gpus=(PASCAL,)),
            None,
            Obstacle("NVIDIA GeForce GTX 1080 has compute capability 6.1; needs 7.5", "Use a newer GPU"),
        ),
        (FakeLibcuda((11, 4)), None, Obstacle("too old for flowkit: needs CUDA 12.0, found 11.4", "Update it")),
    ],
    ids=["stub", "none", "hidden", "hidden by an empty list", "trouble", "too old a GPU", "CUDA 11"],
)
def test_what_is_wrong_with_gpu_and_driver_comes_first(
    machine: Any, monkeypatch: pytest.MonkeyPatch, probe: Any, library: Any, visible: str | None, expected: Obstacle
) -> None:
    machine(library, cupy=None, builds=("cupy", "cupy-cuda13x"), numba_cuda=None)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = probe()
    assert expected.what in found.what
    assert found.next_step.startswith(expected.next_step)


@pytest.mark.parametrize(("cuda", "install"), [((13, 0), INSTALL_13), ((13, 1), INSTALL_13), ((12, 4), INSTALL_12)])
def test_the_extra_that_fits_the_driver_is_named(
    machine: Any, monkeypatch: pytest.MonkeyPatch, cuda: tuple[int, int], install: str
) -> None:
    machine(FakeLibcuda(cuda), builds=(), numba_cuda=None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cupy_obstacle() == Obstacle("CuPy is not installed", f"Install it: {install}")
    assert numba_cuda_obstacle() == Obstacle("numba-cuda is not installed", f"Install it: {install}")


def test_builds_of_cupy_that_overwrite_each_other_are_named_with_the_line_that_keeps_one(machine: Any) -> None:
    machine(FakeLibcuda((12, 8)), builds=("cupy-cuda13x", "cupy", "CuPy-CUDA12x"))
    found = cupy_obstacle()
    assert found is not None
    assert found.what == "3 CuPy builds are installed and overwrite each other: cupy, cupy-cuda12x, cupy-cuda13x"
    assert found.next_step == f"Keep one: pip uninstall -y cupy cupy-cuda12x cupy-cuda13x && {INSTALL_12}"


def test_the_real_packages_answer_what_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a made-up driver CuPy gets as far as its own search for a GPU, Numba too, or as far as NumPy and NVVM let it."""
    if driver.find_driver() is not None:
        pytest.skip("no GPU must be here; there is an NVIDIA driver")
    monkeypatch.setattr(driver, "_load", returns(FakeLibcuda()))
    obstacles.forget()
    cupy = "CuPy finds no GPU: CUDARuntimeError: cudaErrorInsufficientDriver"
    numba_cuda = "numba-cuda (finds no GPU: .* driver library cannot be found|cannot compile)|NVVM, .* cannot be loaded"
    for found, what in ((cupy_obstacle(), cupy), (numba_cuda_obstacle(), numba_cuda)):
        assert found is not None
        assert re.match(what, found.what)


@pytest.mark.gpu("cuda")
def test_driver_and_cupy_see_the_same_gpus() -> None:
    runtime = importlib.import_module("cupy").cuda.runtime
    found = driver.find_driver()
    assert found is not None
    seen = [runtime.getDeviceProperties(index) for index in range(runtime.getDeviceCount())]
    assert [gpu.name for gpu in found.gpus] == [properties["name"].decode() for properties in seen]
    assert [gpu.capability for gpu in found.gpus] == [(properties["major"], properties["minor"]) for properties in seen]
    assert 1000 * found.cuda[0] + 10 * found.cuda[1] == runtime.driverGetVersion()


class BrokenFinder:
    """An import of one package that fails as CuPy's does: the reason behind a banner."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, *_: Any) -> Any:
        if name == self.name:
            reason = ImportError("libcudart.so.13: cannot open shared object file")
            raise ImportError(f"\n=====\nFailed to import CuPy.\n{reason}\n=====") from reason


@pytest.mark.parametrize(
    ("name", "probe", "title"), [("cupy", cupy_obstacle, "CuPy"), ("numba.cuda", numba_cuda_obstacle, "numba-cuda")]
)
def test_a_package_that_is_there_but_broken_is_told_with_its_reason(
    machine: Any, monkeypatch: pytest.MonkeyPatch, name: str, probe: Any, title: str
) -> None:
    machine()
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [BrokenFinder(name), *sys.meta_path])
    found = probe()
    reason = "ImportError: libcudart.so.13: cannot open shared object file"
    assert found.what == f"{title} is installed but cannot be imported: {reason}"
    assert found.next_step.startswith("Install it anew: pip uninstall -y ")


@pytest.mark.parametrize(
    ("name", "probe"),
    [("cupy", cupy_obstacle), ("numba_cuda", numba_cuda_obstacle), ("numba.cuda.np.arrayobj", numba_cuda_obstacle)],
)
def test_a_package_that_warns_when_it_is_imported_is_no_broken_one(
    machine: Any, monkeypatch: pytest.MonkeyPatch, name: str, probe: Any
) -> None:
    """As numba-cuda does under NumPy 2.5. Tests make errors of warnings, and whoever asked for one gets it later."""

    class Finder(BrokenFinder):
        def find_spec(self, name: str, *_: Any) -> Any:
            if name == self.name:
                warnings.warn("a thing of yesterday", DeprecationWarning, stacklevel=1)
                return importlib.machinery.ModuleSpec(name, Loader())
            return None

    class Loader:
        def create_module(self, spec: Any) -> Any:
            return modules[spec.name]

        def exec_module(self, module: Any) -> None:
            """It is whole."""

    machine()
    modules = {name: sys.modules[name]}
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(name), *sys.meta_path])
    assert probe() is None


def test_a_numpy_that_numba_cuda_cannot_compile_with_is_told(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 2.5 has no row_stack: numba.cuda can be imported, but compiles nothing."""

    class Finder(BrokenFinder):
        def find_spec(self, name: str, *_: Any) -> Any:
            if name == self.name:
                raise AttributeError("module 'numpy' has no attribute 'row_stack'")

    machine()
    monkeypatch.delitem(sys.modules, "numba.cuda.np.arrayobj")
    monkeypatch.setattr(sys, "meta_path", [Finder("numba.cuda.np.arrayobj"), *sys.meta_path])
    assert numba_cuda_obstacle() == Obstacle(
        f"numba-cuda cannot compile with NumPy {np.__version__}: AttributeError: module 'numpy' has no attribute 'row_stack'",
        f"Install the NumPy that it needs: {INSTALL_13}",
    )


def test_the_extras_of_a_gpu_ask_for_a_numpy_that_numba_cuda_compiles_with() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    for extra in ("cuda12", "cuda13", "dev"):
        assert "numpy<2.5" in config["options.extras_require"][extra].splitlines()


def test_a_home_that_cannot_be_written_is_told_from_a_broken_cupy(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder(BrokenFinder):
        def find_spec(self, name: str, *_: Any) -> None:
            if name == self.name:
                raise PermissionError(errno.EACCES, "Permission denied", "/home/me/.cupy")

    machine()
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [Finder("cupy"), *sys.meta_path])
    assert cupy_obstacle() == Obstacle(
        "CuPy cannot make its folder for compiled kernels: PermissionError: [Errno 13] Permission denied: '/home/me/.cupy'",
        "Set CUPY_CACHE_DIR to a folder that can be written",
    )


@pytest.mark.parametrize(
    ("library", "cupy", "what", "next_step"),
    [
        (
            FakeLibcuda((12, 4)),
            fake_cupy(),
            "the NVIDIA driver is too old for this CuPy: needs CUDA 13.0, found 12.4",
            f"Update it, or install the extra cuda12 instead: pip uninstall -y cupy-cuda13x && {INSTALL_12}",
        ),
        (
            FakeLibcuda(),
            fake_cupy(12090, getVersion=raises(RuntimeError("CuPy failed to load libnvrtc.so.12"))),
            "NVRTC, CUDA's compiler, cannot be loaded: RuntimeError: CuPy failed to load libnvrtc.so.12",
            f"Install it: {INSTALL_12}",
        ),
        (
            FakeLibcuda((13, 0), (FUTURE,)),
            fake_cupy(getVersion=returns((13, 2))),
            "the NVIDIA driver is too old for NVRTC, whose PTX this GPU needs: needs CUDA 13.2, found 13.0",
            "Update it, or install an older NVRTC",
        ),
        (
            FakeLibcuda(),
            fake_cupy(getDeviceCount=raises(RuntimeError("cudaErrorSystemNotReady: system not yet initialized"))),
            "CuPy finds no GPU: RuntimeError: cudaErrorSystemNotReady: system not yet initialized",
            "Make nvidia-smi work first",
        ),
    ],
    ids=["driver too old", "no NVRTC", "PTX too new", "CuPy finds none"],
)
def test_versions_that_do_not_go_together_are_told(
    machine: Any, library: Any, cupy: Any, what: str, next_step: str
) -> None:
    machine(library, cupy)
    assert cupy_obstacle() == Obstacle(what, next_step)


def test_a_newer_minor_version_is_no_obstacle_where_it_makes_machine_code(machine: Any) -> None:
    """CuPy is linked with CUDA 13.2 and runs under a driver for 13.0."""
    machine(FakeLibcuda((13, 0)), fake_cupy(13020, getVersion=returns((13, 2))))
    assert cupy_obstacle() is None


@pytest.mark.parametrize(
    ("cuda", "modules", "what"),
    [
        ((13, 0), numba_modules(nvvm=False), "NVVM, which numba-cuda compiles with, cannot be loaded"),
        ((13, 0), numba_modules(nvrtc=raises(RuntimeError("no libnvrtc"))), "numba-cuda cannot load NVRTC: RuntimeErr"),
        ((12, 8), numba_modules(), "too old for numba-cuda's packages: needs CUDA 13.0, found 12.8"),
        (
            (13, 0),
            numba_modules(nvrtc=returns((13, 2)), nvjitlink=raises(RuntimeError("not found"))),
            "too old for the PTX of numba-cuda: needs CUDA 13.2, found 13.0",
        ),
        ((13, 0), numba_modules(available=False), "numba-cuda finds no GPU: RuntimeError: CUDA is disabled"),
    ],
    ids=["no NVVM", "no NVRTC", "driver too old", "PTX too new", "disabled"],
)
def test_what_keeps_numba_cuda_from_running_is_told(
    machine: Any, cuda: tuple[int, int], modules: dict[str, ModuleType], what: str
) -> None:
    machine(FakeLibcuda(cuda), **modules)
    found = numba_cuda_obstacle()
    assert found is not None
    assert what in found.what
    assert found.next_step


def test_nvjitlink_assembles_ptx_that_is_newer_than_the_driver(machine: Any) -> None:
    machine(FakeLibcuda((13, 0)), **numba_modules(nvrtc=returns((13, 2))))
    assert numba_cuda_obstacle() is None


def test_the_simulator_needs_no_gpu(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setattr(driver, "_load", returns(None))
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert numba_cuda_obstacle() is None
    assert cupy_obstacle() is not None


def test_a_named_backend_says_what_to_do_and_never_falls_back(machine: Any) -> None:
    machine(FakeLibcuda((12, 4)))
    with pytest.raises(BackendUnavailable) as caught:
        resolve_backend("cuda")
    assert str(caught.value) == (
        "backend: cuda must be able to run here; got an obstacle: the NVIDIA driver is too old for this CuPy: needs CUDA "
        "13.0, found 12.4. Update it, or install the extra cuda12 instead: pip uninstall -y cupy-cuda13x && "
        f"{INSTALL_12}; or choose the backend cpu."
    )


def test_auto_says_why_a_gpu_stays_idle(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(builds=())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert resolve_backend("auto") == "cpu"
    assert backend.auto_note() == (
        f"A GPU is here, but CuPy is not installed: the CPU computes. Install it: {INSTALL_13}; or pass --backend cpu."
    )


@pytest.mark.parametrize("code", [0, 34, 100], ids=["it computes", "no driver", "none to see"])
def test_auto_has_nothing_to_say_where_a_gpu_computes_or_none_is_here(machine: Any, code: int) -> None:
    machine(FakeLibcuda(code=code))
    assert backend.auto_note() == ""


def test_without_a_driver_auto_imports_neither_cupy_nor_numba() -> None:
    if driver.find_driver() is not None:
        pytest.skip("no GPU must be here; there is an NVIDIA driver")
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from flowkit_kernels import backend\n"
        "assert backend.resolve_backend() == 'cpu' and backend.auto_note() == ''\n"
        "sys.exit(any(name in sys.modules for name in ('cupy', 'numba', 'numba_cuda')))"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
