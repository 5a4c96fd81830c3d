"""What the kernels need on a GPU, by NVRTC and ptxas, neither of which needs one: registers, spills, shared memory.

`python tests/cuda_on_cpu/resources.py` prints a table.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "kernels" / "flowkit_kernels" / "cuda").glob("*.cu"))
ARCHITECTURES = (75, 80, 90)

_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_\d+\w*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Resources:
    """Of one kernel on one architecture; shared memory without what a launch adds."""

    kernel: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """A source for one architecture."""

    kernels: tuple[Resources, ...]
    complaints: str
    """What NVRTC and ptxas said beyond the resources."""
    ptx: str


def compile_source(text: str, options: tuple[str, ...], architecture: int) -> Compiled:
    """Compile CUDA C with the options that the backend uses."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, "source.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"))
        log = nvrtc.getProgramLog(program)
        ptx = nvrtc.getPTX(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{error}:\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
    return Compiled(read_log(log), complaints_in(log), ptx if isinstance(ptx, str) else ptx.decode())


def read_log(log: str) -> tuple[Resources, ...]:
    """The resources out of ptxas' words."""
    return tuple(
        Resources(
            found["name"],
            int(found["registers"]),
            int(found["stack"]),
            int(found["stores"]) + int(found["loads"]),
            int((re.search(r"(\d+) bytes smem", found["rest"]) or [0, 0])[1]),
        )
        for found in _KERNEL.finditer(log)
    )


def complaints_in(log: str) -> str:
    """Lines that are neither ptxas' information nor its continuation."""
    lines = (line for line in log.replace("\0", "").splitlines() if line.strip())
    return "\n".join(line for line in lines if not re.match(r"ptxas\s+(info\s*:|\.)", line))


def backend_source(path: Path) -> tuple[str, tuple[str, ...]]:
    """Text and options as the backend hands them to NVRTC."""
    from flowkit_kernels.cuda import device

    return device.read_source(path.stem), device.OPTIONS


def table() -> str:
    """One line for each kernel and architecture."""
    lines = [f"{'kernel':<18}{'sm':>4}{'registers':>11}{'stack B':>9}{'spill B':>9}{'shared B':>10}"]
    for path in SOURCES:
        for architecture in ARCHITECTURES:
            for one in compile_source(*backend_source(path), architecture).kernels:
                numbers = f"{one.registers:>11}{one.stack_bytes:>9}{one.spill_bytes:>9}{one.shared_bytes:>10}"
                lines.append(f"{one.kernel:<18}{architecture:>4}{numbers}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    sys.stdout.write(table())
