"""What only a GPU can show of the host's side: chunks, streams, threads, other libraries' arrays, too little memory.

Each answer is compared, bit for bit, with that of one call alone. Imports only what a GPU machine has.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from backend_workload import FIXED, TILED, WATCHED, chunks_of, faces, run_in_parts
from kernel_scenes import backend_params, needs_gpu

from flowkit_kernels import TVL1Params, tvl1_flow
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.cuda.tiling import tiling
from flowkit_kernels.errors import DeviceOutOfMemory
from flowkit_kernels.timing import stopwatch

on_gpu = backend_params(GPU_BACKENDS)
cuda_only = backend_params(("cuda",))
presets = pytest.mark.parametrize("params", [FIXED, WATCHED], ids=["fixed", "watched"])
COUNT = 7


@pytest.fixture
def pairs() -> Any:
    """(2, N, H, W)."""
    return faces(COUNT, 48, 96)


def test_the_tiled_scene_has_halos_on_both_sides_of_a_tile() -> None:
    cut = tiling(*TILED, FIXED.inner_iterations, 99 * 1024)
    assert min(cut.tiles) > 1
    assert cut.halo > 0


@on_gpu
@presets
@pytest.mark.parametrize("items", [1, 2, 3])
def test_chunks_on_streams_give_the_bits_of_one_chunk(backend: str, params: TVL1Params, items: int, pairs: Any) -> None:
    together = tvl1_flow(*pairs, params, backend=backend)
    watch = stopwatch(backend)
    placed = [watch.place(stack) for stack in pairs]
    with chunks_of(items, backend):
        for _ in range(4):  # launched one by one, recorded, replayed, replayed
            assert tvl1_flow(*pairs, params, backend=backend).tobytes() == together.tobytes()
            assert watch.fetch(tvl1_flow(*placed, params, backend=backend)).tobytes() == together.tobytes()


@on_gpu
def test_tiles_with_halos_in_chunks_give_the_bits_of_each_pair_alone(backend: str) -> None:
    reference, moving = faces(5, *TILED)
    flows = run_in_parts(backend)
    for flow, params in zip(flows, (FIXED, FIXED, FIXED, WATCHED), strict=True):
        alone = [tvl1_flow(reference[n : n + 1], moving[n : n + 1], params, backend=backend) for n in range(5)]
        assert flow.tobytes() == np.concatenate(alone).tobytes()


@on_gpu
@presets
def test_two_threads_do_not_disturb_each_other(backend: str, params: TVL1Params, pairs: Any) -> None:
    work = [pairs, pairs[::-1, :, ::-1].copy()]
    expected = [tvl1_flow(*one, params, backend=backend).tobytes() for one in work]
    wrong: list[str] = []
    gate = threading.Barrier(2, timeout=120)

    def compute(number: int) -> None:
        try:
            gate.wait()
            for turn in range(6):
                if tvl1_flow(*work[number], params, backend=backend).tobytes() != expected[number]:
                    wrong.append(f"thread {number}, turn {turn}")
        except Exception as error:  # noqa: BLE001 - told below, whatever it is
            wrong.append(f"thread {number}: {error!r}")
            gate.abort()

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@cuda_only
def test_two_threads_with_streams_of_their_own_do_not_disturb_each_other(backend: str, pairs: Any) -> None:
    cupy = importlib.import_module("cupy")
    expected = tvl1_flow(*pairs, FIXED, backend=backend).tobytes()
    found: list[bytes] = []

    def compute() -> None:
        with cupy.cuda.Stream(non_blocking=True) as stream:
            for _ in range(4):
                flow = tvl1_flow(*(cupy.asarray(stack) for stack in pairs), FIXED)
                found.append(flow.get(stream=stream).tobytes())

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@pytest.fixture
def limited_pool() -> Iterator[Any]:
    """CuPy's memory pool, to be given a limit; what was kept before is freed."""
    batches = importlib.import_module("flowkit_kernels.cuda.batches")
    pool = importlib.import_module("cupy").get_default_memory_pool()
    batches.forget_workers()
    yield pool
    pool.set_limit(size=0)
    batches.forget_workers()


@cuda_only
@presets
def test_a_pool_that_ends_early_halves_the_chunk_and_changes_no_bit(
    backend: str, params: TVL1Params, pairs: Any, limited_pool: Any
) -> None:
    """The free memory of the GPU, by which chunks are chosen, says nothing of a limit that the caller set."""
    batches = importlib.import_module("flowkit_kernels.cuda.batches")
    plenty = tvl1_flow(*pairs, params, backend=backend)
    needed = limited_pool.total_bytes()
    batches.forget_workers()
    kept = limited_pool.used_bytes()
    limited_pool.set_limit(size=kept + (needed - kept) // 2)
    assert tvl1_flow(*pairs, params, backend=backend).tobytes() == plenty.tobytes()
    assert limited_pool.total_bytes() <= kept + (needed - kept) // 2


@cuda_only
def test_a_pool_too_small_for_one_pair_is_an_error_that_says_so_and_spoils_nothing(
    backend: str, pairs: Any, limited_pool: Any
) -> None:
    plenty = tvl1_flow(*pairs, FIXED, backend=backend)
    importlib.import_module("flowkit_kernels.cuda.batches").forget_workers()
    limited_pool.set_limit(size=limited_pool.used_bytes() + 4096)
    with pytest.raises(DeviceOutOfMemory, match=r"^GPU: free memory must hold a single item"):
        tvl1_flow(*pairs, FIXED, backend=backend)
    limited_pool.set_limit(size=0)
    assert tvl1_flow(*pairs, FIXED, backend=backend).tobytes() == plenty.tobytes()


@pytest.mark.filterwarnings("ignore")  # torch warns of much when it is imported
@on_gpu
@presets
def test_torch_tensors_on_a_side_stream_are_taken_and_given_in_order(
    backend: str, params: TVL1Params, pairs: Any
) -> None:
    """The inputs are written late on a stream of torch's; their memory is written again as soon as the call has returned.

    Both from the GPU's own memory: the host would wait for a copy from its pageable memory, and nothing would be late.
    """
    torch = pytest.importorskip("torch", reason="no GPU library torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch finds")
    expected = tvl1_flow(*pairs, params, backend=backend)
    sources = [torch.from_numpy(np.ascontiguousarray(stack)).cuda() for stack in pairs]
    torch.cuda.synchronize()
    for _ in range(4):
        with torch.cuda.stream(torch.cuda.Stream()):
            tensors = [torch.zeros(stack.shape, device="cuda") for stack in pairs]
            torch.cuda._sleep(20_000_000)  # some 10 ms
            for tensor, source in zip(tensors, sources, strict=True):
                tensor.copy_(source)
            flow = tvl1_flow(*tensors, params, backend=backend)
            for tensor in tensors:
                tensor.fill_(float("nan"))
            found = torch.as_tensor(flow, device="cuda").cpu().numpy()
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("backend", "gpu"), [("cuda", True), ("numba-cuda", True), ("cpu", False)])
def test_a_backend_of_a_gpu_is_known_as_one(backend: str, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    assert needs_gpu(backend) == gpu
