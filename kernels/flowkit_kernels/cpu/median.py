"""The median filter of TV-L1 on the CPU, with Numba: columns are sorted once, and merged in pairs once, for all that see them."""

from __future__ import annotations

from flowkit_kernels.cpu.simd import (
    LEFT,
    U64,
    ZERO,
    Lines,
    inlined,
    load_image,
    median_25,
    merge_columns,
    sort_column,
    store_image,
    store_state,
    whole_runs,
)
from flowkit_kernels.cpu.state import Workspace, clear_right, first_line


@inlined
def median(state: Lines, plane: int, height: int, width: int, work: Workspace) -> None:
    """5 x 5 median of one plane, with replicated borders; a row is written when the last that sees it has been filtered."""
    columns, filtered, run = work.scratch, work.filtered, U64(whole_runs(width))
    for y in range(height + 2):
        if y < height:
            sort_columns(state, plane, y, height, width, columns)
            merge_pairs(columns, width)
            for x in range(ZERO, run):
                store_image(filtered, U64(y % 3), 0, x, median_25(columns, x))
        if y >= 2:
            line = first_line(y - 2) + U64(plane)
            for x in range(ZERO, run):
                store_state(state, line, 0, x, load_image(filtered, U64((y - 2) % 3), 0, x))
            clear_right(state, line, width)


@inlined
def sort_columns(state: Lines, plane: int, y: int, height: int, width: int, columns: Lines) -> None:
    """The five values above and below each pixel of row y, sorted; columns[k, width] as of the last pixel."""
    above, below = max(y - 1, 0), min(y + 1, height - 1)
    rows = (
        first_line(max(y - 2, 0)) + U64(plane),
        first_line(above) + U64(plane),
        first_line(y) + U64(plane),
        first_line(below) + U64(plane),
        first_line(min(y + 2, height - 1)) + U64(plane),
    )
    for x in range(ZERO, U64(whole_runs(width))):
        sort_column(state, rows, columns, x)
    for k in range(5):
        columns[k, LEFT + width] = columns[k, LEFT + width - 1]


@inlined
def merge_pairs(columns: Lines, width: int) -> None:
    """Columns x and x + 1, merged, from x = -2 to x = width; columns outside the image are those of the nearest pixel."""
    for x in range(ZERO, U64(whole_runs(width))):
        merge_columns(columns, x)
    for k in range(5):
        for i in range(5 + 2 * k, 7 + 2 * k):
            columns[i, LEFT - 2 : LEFT] = columns[k, LEFT]
            columns[i, LEFT + width] = columns[k, LEFT + width]
