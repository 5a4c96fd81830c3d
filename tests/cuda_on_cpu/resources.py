"""What the kernels need on a GPU, by NVRTC and ptxas, neither of which needs one: instructions, registers, spills, shared memory.

`python tests/cuda_on_cpu/resources.py` prints a table.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass, replace
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
    instructions: int = 0
    """Of the whole kernel as compiled, loops once, with the few that only fill up its end."""


INSTRUCTION_BYTES = 16
"""From compute capability 7.0 on."""


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
        sizes = code_bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{error}:\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
    counted = (replace(one, instructions=sizes[one.kernel] // INSTRUCTION_BYTES) for one in read_log(log))
    return Compiled(tuple(counted), complaints_in(log), ptx if isinstance(ptx, str) else ptx.decode())


def code_bytes(cubin: bytes) -> dict[str, int]:
    """Length of the code of each kernel: of the sections `.text.KERNEL` of an ELF file of 64 bits."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    entry, count, names_at = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + number * entry) for number in range(count)]
    names = sections[names_at][4]
    found = {}
    for name, _, _, _, _, size in sections:
        start = names + name
        found[cubin[start : cubin.index(b"\0", start)].decode()] = size
    return {name.removeprefix(".text."): size for name, size in found.items() if name.startswith(".text.")}


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
    lines = [
        f"{'kernel':<18}{'sm':>4}{'instructions':>14}{'registers':>11}{'stack B':>9}{'spill B':>9}{'shared B':>10}"
    ]
    for path in SOURCES:
        for architecture in ARCHITECTURES:
            for one in compile_source(*backend_source(path), architecture).kernels:
                numbers = f"{one.instructions:>14}{one.registers:>11}{one.stack_bytes:>9}{one.spill_bytes:>9}{one.shared_bytes:>10}"
                lines.append(f"{one.kernel:<18}{architecture:>4}{numbers}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    sys.stdout.write(table())
