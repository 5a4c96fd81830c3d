"""All that makes Numba loops run at the speed of C, in one place; the loops themselves read like the algorithm.

- `njit`: the one set of compiler flags. Compiled code is cached on disk (`code_cache.py`), which works for module-level functions
  only.
- `inlined`: the same, for whatever an entry calls. A function that is not inlined exists several times, optimised once more with
  each caller, and which copy runs depends on what else the process has compiled: the first run, which compiles, would give other
  bits than all later ones, which load the entry alone.
- Lines: a plane of an image lives in the lines of a 2-D array, each LEFT floats longer at the left (x = -1 exists), padded at
  the right to whole runs of pixels, and an odd number of cache lines long, so that rows do not fall into the same cache sets.
- `load_*`, `store_*`: `lines[line + plane, x]`, tagged for LLVM with an alias scope for the plane (a literal) and for the
  kind of array (the name). Numba has no `noalias`; without the tags LLVM must assume that each store may change the next load,
  and leaves the loop scalar. The promise: in one loop, different planes or kinds never overlap.
- Where LLVM cannot know whether arrays overlap, it compiles a loop twice and chooses by their distance in memory; both round
  differently. So small arrays that one loop reads and writes come from one block, whose layout is always the same.
- `_WIDE`: LLVM halves the vectors of processors that have 512 bits, unless a function says that it wants them.
- Unsigned x (`U64`, ZERO, ONE): a signed index compiles to a wrap-around test, which keeps a loop scalar too.
- `sort_column`, `merge_columns`, `median_25`: comparator networks, written out by the compiler. `cubic_taps`: a vector of taps.
- Slices of arrays stay out of the innermost loops over rows: Numba counts references to them, with locked instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from flowkit_kernels.cpu.code_cache import KernelCache

Lines = npt.NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

F32, I32, U64 = np.float32, np.int32, np.uint64
ZERO, ONE, TWO, FOUR = U64(0), U64(1), U64(2), U64(4)

CACHE_LINE = 16
"""Floats in a cache line, and in the widest vector."""
LEFT = CACHE_LINE
"""Floats of a line before its pixel 0."""
RUN = 2 * CACHE_LINE
"""Pixels that a loop takes at a time, once LLVM has unrolled it: what is left over at the end is ten times slower a pixel."""

_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc", "nnan", "ninf"}


_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": _FASTMATH}


def njit(function: Function) -> Function:
    """Compile at first call, cache on disk, run without the interpreter lock. NaN is refused before it gets here."""
    compiled = numba.njit(**_OPTIONS)(function)
    compiled._cache = KernelCache(function, shared=True)
    return cast(Function, compiled)


def inlined(function: Function) -> Function:
    """As `njit`, for a function that becomes part of each that calls it."""
    compiled = numba.njit(forceinline=True, **_OPTIONS)(function)
    compiled._cache = KernelCache(function, shared=False)
    return cast(Function, compiled)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """LLVM code under a name that compiled functions can call; literal arguments arrive as literals."""
    return cast(Callable[..., Any], extending.intrinsic(prefer_literal=True)(function))


def line_length(width: int) -> int:
    """Floats of a line that holds `width` pixels, its margins included: an odd number of cache lines."""
    cache_lines = -(-(LEFT + -(-width // RUN) * RUN + 1) // CACHE_LINE)  # one more: x + 1 exists for the last x
    return (cache_lines | 1) * CACHE_LINE


@inlined
def whole_runs(width: int) -> int:
    """`width`, rounded up to whole runs."""
    return -(-width // RUN) * RUN


def lines(count: int, width: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Zeroed lines for `width` pixels each, aligned to cache lines."""
    length = line_length(width)
    room = np.zeros(count * length + CACHE_LINE, dtype)
    start = -(room.ctypes.data // room.itemsize) % CACHE_LINE
    return room[start : start + count * length].reshape(count, length)


# --- loads and stores with alias scopes

_KINDS = ("state", "image", "scratch")
_FIRST_PLANE, _LAST_PLANE = -10, 14


def _scope_number(kind: str, plane: int) -> int:
    return _KINDS.index(kind) * (_LAST_PLANE - _FIRST_PLANE + 1) + plane - _FIRST_PLANE


def _scopes(module: Any) -> Any:
    """Metadata nodes of a module: for each scope the list that names it, and the list of all others."""
    if not hasattr(module, "flowkit_scopes"):
        domain = module.add_metadata([ir.MetaDataString(module, "flowkit")])
        count = _scope_number(_KINDS[-1], _LAST_PLANE) + 1
        scopes = [module.add_metadata([ir.MetaDataString(module, f"flowkit{i}"), domain]) for i in range(count)]
        own = [module.add_metadata([scope]) for scope in scopes]
        others = [module.add_metadata([other for other in scopes if other is not scope]) for scope in scopes]
        module.flowkit_scopes = own, others
    return module.flowkit_scopes


def _tag(builder: Any, instruction: Any, kind: str, plane: int) -> Any:
    own, others = _scopes(builder.module)
    number = _scope_number(kind, plane)
    instruction.align = 4
    instruction.set_metadata("alias.scope", own[number])
    instruction.set_metadata("noalias", others[number])
    return instruction


_WIDE = '"prefer-vector-width"="512"'


class _Access:
    """Addresses in one 2-D array argument of an intrinsic, as LLVM code."""

    def __init__(self, context: Any, builder: Any, array_type: Any, value: Any) -> None:
        self.builder = builder
        self.array = context.make_array(array_type)(context, builder, value)
        set.add(builder.function.attributes, _WIDE)  # past llvmlite's list of attributes, which lacks it
        self.length = cgutils.unpack_tuple(builder, self.array.shape)[1]

    def pointer(self, line: Any, plane: int, x: Any, shift: int = 0) -> Any:
        builder = self.builder
        start = builder.mul(builder.add(line, ir.Constant(line.type, plane)), self.length)
        index = builder.add(builder.add(start, x), ir.Constant(x.type, LEFT + shift))
        return builder.gep(self.array.data, [index])

    def load(self, kind: str, line: Any, plane: int, x: Any, shift: int = 0) -> Any:
        return _tag(self.builder, self.builder.load(self.pointer(line, plane, x, shift)), kind, plane)

    def store(self, kind: str, line: Any, plane: int, x: Any, value: Any) -> None:
        _tag(self.builder, self.builder.store(value, self.pointer(line, plane, x)), kind, plane)


def _accessors(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Load(lines, line, plane, x) and store(lines, line, plane, x, value) for one kind of array."""

    def load(typing_context: Any, array: Any, line: Any, plane: Any, x: Any) -> Any:
        if not isinstance(plane, types.IntegerLiteral):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            access = _Access(context, builder, signature.args[0], args[0])
            return access.load(kind, args[1], plane.literal_value, args[3])

        return array.dtype(array, types.uint64, plane, types.uint64), codegen

    def store(typing_context: Any, array: Any, line: Any, plane: Any, x: Any, value: Any) -> Any:
        if not isinstance(plane, types.IntegerLiteral):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            access = _Access(context, builder, signature.args[0], args[0])
            access.store(kind, args[1], plane.literal_value, args[3], args[4])
            return context.get_dummy_value()

        return types.void(array, types.uint64, plane, types.uint64, array.dtype), codegen

    return intrinsic(load), intrinsic(store)


load_state, store_state = _accessors("state")
load_image, store_image = _accessors("image")
load_scratch, store_scratch = _accessors("scratch")


# --- comparator networks

Comparator = tuple[int, int]


def _merge(first: Sequence[int], second: Sequence[int]) -> tuple[list[Comparator], list[int]]:
    """Comparators that merge two sorted lists of wires, and the wires in their order then: Batcher's odd-even merge."""
    if not first or not second:
        return [], [*first, *second]
    if len(first) == len(second) == 1:
        return [(first[0], second[0])], [first[0], second[0]]
    comparators, odd = _merge(first[::2], second[::2])
    more, even = _merge(first[1::2], second[1::2])
    pairs = list(zip(even, odd[1:], strict=False))
    rest = [*odd[1 + len(pairs) :], *even[len(pairs) :]]
    return [*comparators, *more, *pairs], [odd[0], *(wire for pair in pairs for wire in pair), *rest]


_SORT_5: tuple[Comparator, ...] = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))


def _compare(builder: Any, values: list[Any], comparators: Sequence[Comparator]) -> None:
    """Run a network over LLVM values, in place; what nobody reads of its results, LLVM removes."""
    for low, high in comparators:
        a, b = values[low], values[high]
        smaller = builder.fcmp_ordered("<", a, b, flags=("fast",))
        values[low], values[high] = builder.select(smaller, a, b), builder.select(smaller, b, a)


@intrinsic
def sort_column(typing_context: Any, image: Any, rows: Any, columns: Any, x: Any) -> Any:
    """columns[k, x] = k-th smallest of image[row, x] for the five lines in `rows`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _Access(context, builder, signature.args[0], args[0])
        target = _Access(context, builder, signature.args[2], args[2])
        values = [source.load("image", row, 0, args[3]) for row in cgutils.unpack_tuple(builder, args[1])]
        _compare(builder, values, _SORT_5)
        for k in range(5):
            target.store("scratch", ir.Constant(args[3].type, 0), k, args[3], values[k])
        return context.get_dummy_value()

    return types.void(image, types.UniTuple(types.uint64, 5), columns, types.uint64), codegen


@intrinsic
def merge_columns(typing_context: Any, columns: Any, x: Any) -> Any:
    """columns[5 + k, x] = k-th smallest of the ten values of the sorted columns x and x + 1."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        access, first = _Access(context, builder, signature.args[0], args[0]), ir.Constant(args[1].type, 0)
        values = [access.load("scratch", first, k, args[1], shift) for shift in range(2) for k in range(5)]
        comparators, order = _merge(range(5), range(5, 10))
        _compare(builder, values, comparators)
        for k, wire in enumerate(order):
            access.store("scratch", first, 5 + k, args[1], values[wire])
        return context.get_dummy_value()

    return types.void(columns, types.uint64), codegen


@intrinsic
def median_25(typing_context: Any, columns: Any, x: Any) -> Any:
    """Median of the sorted columns x - 2 .. x + 2, of which the first two and the last two are merged.

    It is the smallest of the 13th of those 20, and of each of the five of column x against the 12th, 11th, ... of the 20.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        access, first = _Access(context, builder, signature.args[0], args[0]), ir.Constant(args[1].type, 0)
        outer = [access.load("scratch", first, 5 + k, args[1], shift) for shift in (-2, 1) for k in range(10)]
        comparators, order = _merge(range(10), range(10, 20))
        _compare(builder, outer, comparators)
        median = outer[order[12]]
        for k in range(5):
            pair = [access.load("scratch", first, k, args[1]), outer[order[11 - k]]]
            _compare(builder, pair, [(0, 1)])
            pair[0] = median
            _compare(builder, pair, [(0, 1)])
            median = pair[0]
        return median

    return types.float32(columns, types.uint64), codegen


# --- bicubic interpolation of one pixel


@intrinsic
def cubic_taps(typing_context: Any, image: Any, line: Any, plane: Any, step: Any, x: Any, weights: Any) -> Any:
    """Sum over j, i of weights[4 + j] weights[i] image[line + plane + j step, x + i], i, j = 0 .. 3."""
    if not (isinstance(plane, types.IntegerLiteral) and isinstance(step, types.IntegerLiteral)):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        access = _Access(context, builder, signature.args[0], args[0])
        weights = cgutils.unpack_tuple(builder, args[5])
        first = access.pointer(args[1], 0, args[4])
        total = None  # down the four rows first, the taps of a row in one vector, then along the row
        for j in range(4):
            lines_below = ir.Constant(access.length.type, plane.literal_value + j * step.literal_value)
            where = builder.gep(first, [builder.mul(access.length, lines_below)])
            row = builder.load(builder.bitcast(where, _vector(4).as_pointer()))
            row.align = 4
            product = builder.fmul(row, _spread(builder, [weights[4 + j]], 4), flags=("fast",))
            total = product if total is None else builder.fadd(total, product, flags=("fast",))
        weighted = builder.fmul(total, _spread(builder, weights[:4], 1), flags=("fast",))
        halves = _fold(builder, _fold(builder, weighted, 4), 2)
        return builder.extract_element(halves, ir.Constant(ir.IntType(32), 0))

    u64, weight_type = types.uint64, types.UniTuple(types.float32, 8)
    return types.float32(image, u64, plane, step, u64, weight_type), codegen


def _vector(size: int) -> Any:
    return ir.VectorType(ir.FloatType(), size)


def _shuffle(builder: Any, vector: Any, lanes: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _spread(builder: Any, scalars: Sequence[Any], times: int) -> Any:
    """One vector of all scalars, each repeated."""
    vector = ir.Constant(_vector(len(scalars)), ir.Undefined)
    for i, scalar in enumerate(scalars):
        vector = builder.insert_element(vector, scalar, ir.Constant(ir.IntType(32), i))
    return _shuffle(builder, vector, [i for i in range(len(scalars)) for _ in range(times)])


def _fold(builder: Any, vector: Any, size: int) -> Any:
    """First half plus second half."""
    halves = (_shuffle(builder, vector, range(start, start + size // 2)) for start in (0, size // 2))
    return builder.fadd(*halves, flags=("fast",))
