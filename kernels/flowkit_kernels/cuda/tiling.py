"""How a level is cut into tiles for the blocked iterations of iterate.cu, and how many iterations one launch does.

A tile reaches `halo` pixels beyond what it owns, which it computes in vain; a larger tile wastes less, more iterations a launch
waste more but move less through memory. `tiling` weighs one against the other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

ROWS = 6
"""Pixels of one column that a thread holds. With 8, ptxas spills registers for sm_80 and sm_90."""
PITCH = 73
"""Pixels from one row of a tile to the next in shared memory, known to the compiler; a tile is narrower. It is odd, so that rows
do not fall into the same banks."""
MAX_THREADS = 512
MOST_ITERATIONS = 32
"""In one launch: sums of squared updates are kept for each of them."""
LANES = 32
"""Parts in which a tile stores its sum of squared updates."""
LOAD_AND_STORE = 4.0
"""What loading and storing a tile costs, in iterations on it: counted from bytes and instructions, not measured on a GPU."""
_WARP = 32
_FLOAT2 = 8


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of one level; everything that a launch of `iterate` or `iterate_watched` must be told.

    Attributes
    ----------
    iterations : int
        At most, in one launch.
    tiles : (int, int)
        Along x and y.
    own : (int, int)
        Width and height of what a tile owns, px.
    halo : int
        Pixels beyond that.
    block : (int, int)
        Threads along x and y; one thread works on ROWS rows.
    """

    iterations: int
    tiles: tuple[int, int]
    own: tuple[int, int]
    halo: int
    block: tuple[int, int]

    def shared_bytes(self, *, watched: bool = False) -> int:
        """Shared memory of a block: see `Exchange` in iterate.cu."""
        bx, by = self.block
        exchanged = 2 * by * ROWS * PITCH + 2 * (by + 1) * PITCH
        return _FLOAT2 * exchanged + 4 * bx * by * watched

    def work(self, iterations: int) -> float:
        """What so many iterations cost in all, in pixel-iterations."""
        threads = -(-self.block[0] * self.block[1] // _WARP) * _WARP
        covered = self.tiles[0] * self.tiles[1] * threads * ROWS
        return covered * (iterations + LOAD_AND_STORE * -(-iterations // self.iterations))


@functools.lru_cache(maxsize=256)
def tiling(height: int, width: int, iterations: int, shared_bytes: int) -> Tiling:
    """The tiling that costs least.

    Parameters
    ----------
    height, width : int
        Of the level, at least 16 px.
    iterations : int
        In all; a launch does that many or fewer.
    shared_bytes : int
        What a block may have.

    Returns
    -------
    Tiling
    """
    candidates = [
        candidate
        for count in sorted({-(-iterations // launches) for launches in range(1, iterations + 1)})
        if count <= MOST_ITERATIONS
        for columns in range(1, -(-width // 8) + 1)
        if (candidate := _lowest(height, width, count, columns, shared_bytes))
    ]
    return min(candidates, key=lambda candidate: candidate.work(iterations))


def _lowest(height: int, width: int, iterations: int, columns: int, shared_bytes: int) -> Tiling | None:
    """The tiling of so many columns of tiles with the fewest rows of tiles, if any fits."""
    own_width, columns, wide = _cut(width, columns, iterations)
    if wide >= PITCH:
        return None
    highest = MAX_THREADS // wide * ROWS
    for rows in range(max(1, height // highest), -(-height // ROWS) + 1):
        own_height, rows, high = _cut(height, rows, iterations)
        block = (wide, -(-high // ROWS))
        candidate = Tiling(iterations, (columns, rows), (own_width, own_height), iterations, block)
        if _runs(candidate, shared_bytes):
            return candidate
    return None


def _runs(candidate: Tiling, shared_bytes: int) -> bool:
    """Whether a block can be launched like this, each lane has a thread, and no halo reaches over the image's border."""
    threads = candidate.block[0] * candidate.block[1]
    reaches_over = any(
        tiles > 1 and own < candidate.halo for tiles, own in zip(candidate.tiles, candidate.own, strict=True)
    )
    fits = candidate.shared_bytes(watched=True) <= shared_bytes
    return LANES <= threads <= MAX_THREADS and fits and not reaches_over


def _cut(size: int, tiles: int, halo: int) -> tuple[int, int, int]:
    """A side in so many parts: what each owns, how many are left to own something, and how far a tile must reach in all."""
    own = -(-size // tiles)
    tiles = -(-size // own)
    return own, tiles, own + halo * min(tiles - 1, 2)
