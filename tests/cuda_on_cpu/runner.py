"""Runs the kernels of a `.cu` file on the CPU: built by g++ behind `cuda_on_cpu.h`, called through ctypes.

What a GPU would let pass in silence, or refuse only there, is an error here: a scalar of another type than the parameter's,
a pointer to other values, a misaligned one, a block or grid beyond CUDA's limits, threads that part at a barrier.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
ORDERS = ("forward", "reverse", "random")
MAX_BLOCK = (1024, 1024, 64)
MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that a kernel gets without asking for more."""

SCALARS: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "size_t": np.uint64,
    "unsigned char": np.uint8,
    "bool": np.bool_,
}
VECTORS = {f"{base}{lanes}": (base, lanes) for base in ("float", "int", "double") for lanes in (2, 4)} | {
    "uchar4": ("unsigned char", 4)
}

_PREPROCESS = ["-E", "-DCUDA_ON_CPU", "-DDYNAMIC_SHARED(type,name)=CUDA_ON_CPU_DYNAMIC_SHARED(type,name)"]
_COMPILE = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w"]
_SANITIZE = [
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fsanitize-sections=shared_memory",
]
_ONE_LAUNCH_AT_A_TIME = threading.Lock()


class LaunchError(Exception):
    """What CUDA would refuse, or should have refused."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: `kind` is the type of the scalar, or of what a pointer leads to."""

    name: str
    kind: str
    pointer: bool


@dataclass(frozen=True)
class Kernel:
    """Signature of an `extern "C" __global__` function."""

    name: str
    parameters: tuple[Parameter, ...]
    most_threads: str
    """A C++ expression."""


def missing() -> str:
    """Why no kernel can run here, in the words of a skipped test; "" where they can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"no x86-64: the fibers of cuda_on_cpu.h are written for it, this is {platform.machine()}"
    return ""


class CpuModule:
    """The kernels of one source, ready to run.

    Parameters
    ----------
    source : Path or str
        A `.cu` file, or CUDA C.
    options : sequence of str
        As for NVRTC; of these, definitions and include folders count.
    order : {"forward", "reverse", "random"}
        In which order threads, and blocks, run.
    seed : int
        Of the random order.
    sanitize : bool
        Built with ASan and UBSan; the process must run with libasan loaded first.
    """

    def __init__(
        self,
        source: Path | str,
        options: Sequence[str] = (),
        order: str = "forward",
        seed: int = 0,
        sanitize: bool = False,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}; got {order!r}")
        folders: tuple[str, ...] = ()
        if isinstance(source, Path):
            folders, source = (f"-I{source.parent}",), source.read_text(encoding="utf-8")
        self.order, self.seed = order, seed
        text = _preprocessed(source, (*_for_gcc(options), *folders))
        self.kernels = {kernel.name: kernel for kernel in find_kernels(text)}
        self._library = ctypes.CDLL(str(_built(text, tuple(self.kernels.values()), sanitize)))

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        max_shared_bytes: int = SHARED_BYTES,
    ) -> None:
        """Run a kernel to its end on NumPy arrays and scalars."""
        self.prepare(name, grid, block, arguments, shared_bytes, max_shared_bytes)()

    def prepare(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        max_shared_bytes: int = SHARED_BYTES,
    ) -> Callable[[], None]:
        """Check a launch now; the result runs it, as often as it is called."""
        kernel = self.kernels.get(name)
        if kernel is None:
            raise LaunchError(f"{name}: the source has no such kernel, only {', '.join(self.kernels)}")
        launch = _Launch(_size(name, "grid", grid, MAX_GRID), _size(name, "block", block, MAX_BLOCK), shared_bytes)
        if math.prod(block) > MAX_THREADS:
            raise LaunchError(f"{name}: a block has at most {MAX_THREADS} threads; got {tuple(block)}")
        if not 0 <= shared_bytes <= max_shared_bytes:
            raise LaunchError(f"{name}: shared memory is limited to {max_shared_bytes} bytes; got {shared_bytes}")
        launch.order, launch.seed = ORDERS.index(self.order), self.seed
        values = _values(kernel, arguments)
        return lambda: self._run(name, launch, values, arguments)

    def _run(self, name: str, launch: _Launch, values: list[Any], _alive: Sequence[Any]) -> None:
        places = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        call = getattr(self._library, f"launch_{name}")
        call.restype = ctypes.c_char_p
        with _ONE_LAUNCH_AT_A_TIME:
            trouble = call(ctypes.byref(launch), places)
        if trouble:
            raise LaunchError(f"{name}: {trouble.decode()}")


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
    )


def _size(kernel: str, name: str, size: Sequence[int], most: tuple[int, int, int]) -> Any:
    """Grid or block as three positive numbers within CUDA's limits."""
    if not isinstance(size, tuple) or not all(isinstance(side, int) for side in size) or not 1 <= len(size) <= 3:
        raise LaunchError(f"{kernel}: {name} must be a tuple of one to three int; got {size!r}")
    full = (*size, 1, 1)[:3]
    if any(not 1 <= side <= limit for side, limit in zip(full, most, strict=True)):
        raise LaunchError(f"{kernel}: {name} must lie between 1 and {most}; got {size}")
    return (ctypes.c_uint * 3)(*full)


# Arguments --------------------------------------------------------------------------------------------------------------


def _values(kernel: Kernel, arguments: Sequence[Any]) -> list[Any]:
    """Each argument as an array of one value: the scalar, or the pointer."""
    if len(arguments) != len(kernel.parameters):
        raise LaunchError(f"{kernel.name}: takes {len(kernel.parameters)} arguments; got {len(arguments)}")
    return [
        (_pointer if parameter.pointer else _scalar)(f"{kernel.name}: {parameter.name}", parameter, argument)
        for parameter, argument in zip(kernel.parameters, arguments, strict=True)
    ]


def _scalar(where: str, parameter: Parameter, value: Any) -> Any:
    expected = SCALARS[parameter.kind]
    if type(value) is not expected:
        raise LaunchError(f"{where} must be a numpy.{expected.__name__}; got {type(value).__name__} {value!r}")
    return np.array(value)


def _pointer(where: str, parameter: Parameter, array: Any) -> Any:
    base, lanes = VECTORS.get(parameter.kind, (parameter.kind, 1))
    if array is None:
        return np.array(0, np.uintp)
    if not isinstance(array, np.ndarray):
        raise LaunchError(f"{where} must be an array; got {type(array).__name__}")
    allowed = (np.uint8, np.bool_) if base == "unsigned char" else (SCALARS[base],)
    if array.dtype not in allowed:
        raise LaunchError(f"{where} must lead to {parameter.kind}; got an array of {array.dtype}")
    if not array.flags.c_contiguous:
        raise LaunchError(f"{where} must be contiguous; got strides {array.strides} for shape {array.shape}")
    bytes_each = lanes * array.itemsize
    if array.ctypes.data % bytes_each or array.nbytes % bytes_each:
        raise LaunchError(f"{where} must hold whole, aligned {parameter.kind}; got {array.nbytes} bytes, misaligned")
    return np.array(array.ctypes.data, np.uintp)


# Source -----------------------------------------------------------------------------------------------------------------


def _for_gcc(options: Sequence[str]) -> tuple[str, ...]:
    """Definitions and include folders out of NVRTC's options."""
    pattern = re.compile(r"(?:-D|--define-macro=|-I|--include-path=)(.+)")
    found = ((option, match[1]) for option in options if (match := pattern.fullmatch(option)))
    return tuple(f"-I{value}" if option.startswith(("-I", "--inc")) else f"-D{value}" for option, value in found)


@cache
def _preprocessed(source: str, options: tuple[str, ...]) -> str:
    return _gcc([*_PREPROCESS, *options, "-x", "c++", "-"], source)


def _gcc(arguments: list[str], source: str) -> str:
    if shutil.which("g++") is None:
        raise RuntimeError(
            "g++ must be there to run CUDA C on the CPU; got none on PATH. Install it: apt-get install g++."
        )
    done = subprocess.run(["g++", *arguments], input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"g++ {' '.join(arguments)}:\n{done.stderr[-4000:]}")
    return done.stdout


_GLOBAL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+'
    r"(?:__launch_bounds__\s*\((?P<bounds>(?:[^()]|\([^()]*\))*)\)\s*)?"
    r"(?P<name>\w+)\s*\((?P<parameters>[^()]*)\)\s*\{"
)
_PARAMETER = re.compile(r"(?P<kind>[\w ]+?)\s*(?P<pointer>\*?)\s*(?P<name>\w+)")


def find_kernels(preprocessed: str) -> tuple[Kernel, ...]:
    """Every kernel of a source; a `__global__` that this cannot read is an error, not a kernel left out."""
    text = re.sub(r"^#.*$", "", preprocessed, flags=re.MULTILINE)
    found = tuple(
        Kernel(match["name"], _parameters(match["parameters"]), (match["bounds"] or str(MAX_THREADS)).split(",")[0])
        for match in _GLOBAL.finditer(text)
    )
    if len(found) != len(re.findall(r"\b__global__\b", text)):
        names = ", ".join(kernel.name for kernel in found)
        raise ValueError(f'every kernel must read `extern "C" __global__ void name(...)`; of them, found: {names}')
    return found


def _parameters(text: str) -> tuple[Parameter, ...]:
    return tuple(_parameter(" ".join(part.split())) for part in text.split(",") if part.strip())


def _parameter(text: str) -> Parameter:
    plain = " ".join(re.sub(r"\b(const|__restrict__)\b", " ", text).split())
    match = _PARAMETER.fullmatch(plain)
    if not match or match["kind"] not in {*SCALARS, *(VECTORS if match["pointer"] else ())}:
        raise ValueError(f"a kernel's parameter must be a scalar or a pointer to a known type; got `{text}`")
    return Parameter(match["name"], match["kind"], bool(match["pointer"]))


def _built(preprocessed: str, kernels: tuple[Kernel, ...], sanitize: bool) -> Path:
    """The shared object of a source, from the cache where it was built before."""
    flags = [*_COMPILE, *(_SANITIZE if sanitize else [])]
    # In a namespace without a name: else templates' shared memory could not lie in the one section for it.
    text = f'#include "{HEADER}"\nnamespace {{\n{preprocessed}\n}}\n' + "\n".join(map(_launcher, kernels)) + "\n"
    key = hashlib.sha256("\0".join([text, HEADER.read_text(encoding="utf-8"), *flags]).encode()).hexdigest()[:32]
    library = _cache_folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # another process may be building the same
            fresh = Path(folder) / "fresh.so"
            _gcc([*flags, "-x", "c++", "-", "-o", str(fresh)], text)
            fresh.replace(library)
    return library


def _launcher(kernel: Kernel) -> str:
    types = [parameter.kind + (" *" if parameter.pointer else "") for parameter in kernel.parameters]
    arguments = ", ".join(f"ARGUMENT({kind}, {index})" for index, kind in enumerate(types))
    return f"LAUNCHER({kernel.name}, {kernel.most_threads}, {arguments})"


@cache
def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"flowkit-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} must be this user's own; it belongs to another. Remove it.")
    return folder
