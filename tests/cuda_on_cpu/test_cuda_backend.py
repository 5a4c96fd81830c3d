"""The whole backend "cuda", its kernels and its host side, on the CPU: answers, chunks, streams, graphs, arrays, errors."""

from __future__ import annotations

import errno
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from backend_workload import chunks_of
from cupy_standin import SCHEDULES, Machine, standin
from kernel_scenes import INTERIOR, scene
from runner import CpuModule, missing

import flowkit_kernels
from flowkit_kernels import (
    BackendUnavailable,
    DeviceLost,
    DeviceOutOfMemory,
    MMCOFParams,
    ShapeError,
    TVL1Params,
    mmcof,
    phase_flow,
    tvl1_flow,
)

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
MICRO, FIXED, OPENCV = map(TVL1Params.preset, ("micro", "fixed", "opencv"))
SHORT = TVL1Params(scales=2, scale_step=0.8, warps=2, inner_iterations=6)
"""Enough to tell right from wrong where the answer itself is not at stake."""
WATCHED = TVL1Params(scales=2, scale_step=0.8, warps=2, outer_iterations=2, inner_iterations=12, epsilon=0.02)
presets = pytest.mark.parametrize("params", [MICRO, FIXED, OPENCV], ids=["micro", "fixed", "opencv"])
short = pytest.mark.parametrize("params", [SHORT, WATCHED], ids=["fixed", "opencv"])


@pytest.fixture
def machine() -> Iterator[Machine]:
    with standin() as running:
        yield running


def pairs(count: int, shape: tuple[int, int] = (20, 40)) -> tuple[Any, Any]:
    made = [scene(*shape, seed) for seed in range(count)]
    return np.concatenate([one.reference for one in made]), np.concatenate([one.moving for one in made])


@presets
@pytest.mark.parametrize("shape", [(16, 16), (17, 40), (61, 33), (80, 112)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_any_size_gives_the_twins_answer(machine: Machine, params: TVL1Params, shape: tuple[int, int]) -> None:
    reference, moving = pairs(1, shape)
    twin = tvl1_flow(reference, moving, params, backend="reference")
    difference = abs(tvl1_flow(reference, moving, params, backend="cuda") - twin)
    if min(shape) > 60:
        assert difference[INTERIOR].mean() <= (0.015 if params is OPENCV else 3e-3)
    else:
        assert np.median(difference) <= 1e-4
        assert difference.mean() <= 1e-2  # at the border, which such sizes mostly are, the problem itself jumps


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@short
def test_the_answer_does_not_depend_on_the_order_of_threads_and_blocks(params: TVL1Params, order: str) -> None:
    reference, moving = pairs(2, (48, 96))
    answers = []
    for one in ("forward", order):
        with standin(order=one, seed=3):
            answers.append(tvl1_flow(reference, moving, params, backend="cuda"))
    assert answers[0].tobytes() == answers[1].tobytes()


@pytest.mark.parametrize("change", [{"median_filtering": 1}, {"scales": 1}, {"warps": 1}, {"lambda_": 0.05}], ids=str)
def test_parameters_mean_what_they_mean_to_the_twin(machine: Machine, change: dict[str, Any]) -> None:
    reference, moving = pairs(1, (48, 56))
    params = TVL1Params(**change)
    twin = tvl1_flow(reference, moving, params, backend="reference")
    assert abs(tvl1_flow(reference, moving, params, backend="cuda") - twin)[INTERIOR].mean() <= 3e-3


@presets
def test_no_motion_gives_exactly_none(machine: Machine, params: TVL1Params) -> None:
    face = scene(33, 48).reference
    assert not tvl1_flow(face, face, params, backend="cuda").any()


def test_epsilon_ends_a_warp_after_the_iteration_that_reaches_it(machine: Machine) -> None:
    reference, moving = pairs(2, (40, 60))
    pleased = tvl1_flow(reference, moving, TVL1Params(epsilon=1e3, outer_iterations=3), backend="cuda")
    once = tvl1_flow(reference, moving, TVL1Params(inner_iterations=1), backend="cuda")
    assert pleased.tobytes() == once.tobytes()
    never = tvl1_flow(reference, moving, TVL1Params(epsilon=1e-12), backend="cuda")
    assert never.tobytes() == tvl1_flow(reference, moving, backend="cuda").tobytes()


@short
@pytest.mark.parametrize("schedule", ["random", "eager", "lazy"])
def test_a_pair_depends_on_no_other_and_no_chunk_on_the_course_of_the_streams(
    params: TVL1Params, schedule: str
) -> None:
    reference, moving = pairs(7)
    with standin(schedule=schedule) as machine:
        alone = [tvl1_flow(reference[n : n + 1], moving[n : n + 1], params, backend="cuda")[0] for n in range(7)]
        together = tvl1_flow(reference, moving, params, backend="cuda")
        with chunks_of(2, "cuda"):
            for _ in range(3):  # launched one by one, recorded, replayed
                in_chunks = tvl1_flow(reference, moving, params, backend="cuda")
                assert in_chunks.tobytes() == np.stack(alone).tobytes()
        assert together.tobytes() == np.stack(alone).tobytes()
        flows = [entry for entry in machine.log if entry.kind == "download" and entry.nbytes >= alone[0].nbytes]
        assert not {entry.stream for entry in flows} & {entry.stream for entry in machine.launches()}


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("watched", [False, True])
def test_chunks_are_alike_and_two_are_computed_at_once(watched: bool) -> None:
    from flowkit_kernels.cuda import batches

    for count in range(1, 70):
        for items in range(1, 70):
            chunks, at_once = batches.chunks_of(count, items, watched)
            sizes = [chunk.stop - chunk.start for chunk in chunks]
            assert [chunk.start for chunk in chunks] == [0, *np.cumsum(sizes)[:-1]]
            assert sum(sizes) == count
            assert sizes[0] == max(sizes) <= -(-items // at_once)
            assert min(sizes) >= max(1, sizes[0] - 1)
            assert at_once == (1 if watched else min(2, items, count))
            assert len(sizes) % at_once == 0 or len(sizes) == count


def test_pairs_that_an_epsilon_may_stop_are_computed_in_one_chunk(machine: Machine) -> None:
    """The host waits for each round's answer: a second chunk would only begin when the first has ended."""
    reference, moving = pairs(4)
    tvl1_flow(reference, moving, WATCHED, backend="cuda")
    assert {one.grid[2] for one in machine.launches("gradient_texels")} == {4}
    assert len({one.stream for one in machine.launches()}) == 1


@pytest.mark.parametrize("on_gpu", [False, True], ids=["host", "device"])
def test_images_of_many_sizes_leave_no_memory_behind(machine: Machine, on_gpu: bool) -> None:
    """Memory of a stream that is gone is nobody's: CuPy's pool keeps it for that stream."""
    import cupy

    pool, kept = cupy.get_default_memory_pool(), []
    for _ in range(3):
        for height in (40, 48, 56, 64):
            arrays = pairs(4, (height, 64))
            flow = tvl1_flow(*(map(upload, arrays) if on_gpu else arrays), SHORT, backend="cuda")
            del arrays, flow
        kept.append(pool.total_bytes())
    assert kept[2] == kept[1]


@pytest.mark.parametrize("on_gpu", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("share", [1.3, 1.6])
def test_a_limit_of_the_pool_leaves_room_for_what_fits(on_gpu: bool, share: float) -> None:
    """What a call that failed held must be free before a smaller chunk is tried."""
    reference, moving = pairs(2, (48, 64))
    with standin() as machine:
        tvl1_flow(
            *((upload(one[:1]) for one in (reference, moving)) if on_gpu else (reference[:1], moving[:1])),
            SHORT,
            backend="cuda",
        )
        needed = machine.memory[0].peak
    with standin():
        import cupy

        expected = tvl1_flow(reference, moving, SHORT, backend="cuda").tobytes()
    with standin():
        import cupy

        arrays = [upload(one) for one in (reference, moving)] if on_gpu else (reference, moving)
        cupy.get_default_memory_pool().set_limit(size=int(share * needed))
        flow = tvl1_flow(*arrays, SHORT, backend="cuda")
        assert (flow.get() if on_gpu else flow).tobytes() == expected


@short
def test_a_phase_that_is_not_valid_costs_nothing_and_is_zero(machine: Machine, params: TVL1Params) -> None:
    reference, moving = pairs(4)
    faces = np.stack([reference, moving, reference[::-1]], axis=1)
    valid = np.array([[True, True], [True, False], [False, False], [False, True]])
    both = phase_flow(faces, params, backend="cuda")
    before = len(machine.launches())
    some = phase_flow(faces, params, valid=valid, backend="cuda")
    computed = [entry for entry in machine.launches()[before:] if entry.name == "gradient_texels"]
    everything = [entry for entry in machine.launches()[:before] if entry.name == "gradient_texels"]
    assert 2 * sum(entry.grid[2] for entry in computed) == sum(
        entry.grid[2] for entry in everything
    )  # four pairs of eight
    assert not some[~valid].any()
    assert some[valid].tobytes() == both[valid].tobytes()
    rise = tvl1_flow(faces[:, 0], faces[:, 1], params, backend="cuda")
    assert rise.tobytes() == both[:, 0].tobytes()
    assert not phase_flow(faces, params, valid=np.zeros((4, 2), bool), backend="cuda").any()


def test_the_fixed_schedule_becomes_a_graph_at_its_second_use_and_others_never(machine: Machine) -> None:
    reference, moving = pairs(2)
    for params, replayed in ((SHORT, [False, True, True]), (WATCHED, [False] * 3)):
        seen = []
        for _ in range(3):
            before = len(machine.log)
            tvl1_flow(reference, moving, params, backend="cuda")
            seen.append(any(entry.kind == "graph" for entry in machine.log[before:]))
        assert seen == replayed


@short
def test_workers_that_are_forgotten_give_all_their_memory_back(machine: Machine, params: TVL1Params) -> None:
    """To the GPU, not to CuPy's pool: other processes and libraries wait for it."""
    import cupy

    from flowkit_kernels.cuda import batches

    reference, moving = pairs(3)
    for count in (3, 2):
        tvl1_flow(reference[:count], moving[:count], params, backend="cuda")
    assert cupy.get_default_memory_pool().total_bytes() > 0
    batches.forget_workers()
    assert cupy.get_default_memory_pool().total_bytes() == 0


@short
def test_too_little_memory_halves_the_chunk_and_changes_no_byte(params: TVL1Params) -> None:
    reference, moving = pairs(8, (24, 32))
    with standin() as machine:
        plenty = tvl1_flow(reference, moving, params, backend="cuda")
        needed = machine.memory[0].peak
    with standin(memory_bytes=needed // 3) as machine:
        assert tvl1_flow(reference, moving, params, backend="cuda").tobytes() == plenty.tobytes()
        assert max(entry.grid[2] for entry in machine.launches("gradient_texels")) < 8


def test_no_room_for_a_single_item_is_an_error_that_says_so() -> None:
    reference, moving = pairs(3)
    flow = np.ones((3, 2, 2, 40, 40), np.float32)
    with standin(memory_bytes=40_000):
        on_gpu = upload(reference)
        for call in (
            lambda: tvl1_flow(reference, moving, SHORT, backend="cuda"),
            lambda: mmcof(flow, backend="cuda"),
            lambda: tvl1_flow(on_gpu, on_gpu, SHORT),
        ):
            with pytest.raises(
                DeviceOutOfMemory, match=r"^GPU: free memory must hold a single item.* choose the backend cpu"
            ):
                call()


@pytest.mark.parametrize(
    "change", [{}, {"gate": "hard"}, {"direction": "rise"}, {"direction": "sum"}, {"modulate": False}]
)
def test_mmcof_gives_the_twins_answer(machine: Machine, change: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(3, 2, 2, 33, 40)).astype(np.float32)
    flow[1, 1] = 0
    flow[2] *= 1e-25  # squares that float32 does not have
    mask, params = rng.random((3, 33, 40)) < 0.6, MMCOFParams(floor_px=0.0, **change)
    twin = mmcof(flow, params, mask=mask, backend="reference")
    np.testing.assert_allclose(mmcof(flow, params, mask=mask, backend="cuda"), twin, atol=1e-6)
    on_gpu = mmcof(upload(flow), params, mask=upload(mask))
    np.testing.assert_allclose(on_gpu.get(), twin, atol=1e-6)


def test_there_may_be_more_items_than_a_grid_has_places_along_z(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch is checked against CUDA's limits, and then left out: so many blocks would take minutes here."""
    from flowkit_kernels import backend

    operations: Any = backend.load_operations("cuda")
    on_gpu = upload(np.zeros((65_537, 2, 2, 4, 4), np.float32))
    monkeypatch.setattr(CpuModule, "_run", lambda *_: None)
    operations.mmcof(on_gpu, MMCOFParams(), np.ones((65_537, 4, 4), np.bool_), 1)
    operations.ranges(on_gpu)
    assert [(entry.name, entry.grid) for entry in machine.launches()] == [
        ("mmcof", (65_537, 1, 1)),
        ("ranges", (65_537, 1, 1)),
    ]


def test_a_worker_is_only_given_up_once_nothing_of_it_runs() -> None:
    """On two GPUs, from one thread: what waits for one says nothing about the other."""
    reference, moving = pairs(2)
    for seed in range(4):
        with standin(devices=2, schedule="random", seed=seed):
            import cupy

            expected = tvl1_flow(reference, moving, SHORT, backend="cuda")
            with cupy.cuda.Device(0):
                first = tvl1_flow(upload(reference), upload(moving), SHORT)
            with cupy.cuda.Device(1):
                for scales in (1, 2, 3):  # as many workers as push the first one out
                    tvl1_flow(upload(reference), upload(moving), TVL1Params(scales=scales, scale_step=0.8, warps=1))
            with cupy.cuda.Device(0):
                assert first.get().tobytes() == expected.tobytes()


@pytest.mark.parametrize("failing", [3, 20])
def test_a_call_that_fails_in_its_midst_spoils_none_that_follow(machine: Machine, failing: int) -> None:
    import cupy

    from flowkit_kernels.cuda.device import CupyDevice

    reference, moving = pairs(3)
    expected = tvl1_flow(reference, moving, SHORT, backend="cuda")
    launch, left = CupyDevice.launch, failing

    def launch_or_fail(self: Any, *arguments: Any, **settings: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        launch(self, *arguments, **settings)

    for _ in range(3):
        left = failing
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CupyDevice, "launch", launch_or_fail)
            with pytest.raises(KeyboardInterrupt), cupy.cuda.Stream(non_blocking=True):
                tvl1_flow(
                    upload(moving), upload(reference), TVL1Params(scales=2, scale_step=0.8, warps=2, inner_iterations=5)
                )
        with cupy.cuda.Stream(non_blocking=True):
            assert tvl1_flow(upload(reference), upload(moving), SHORT).get().tobytes() == expected.tobytes()


def test_a_recording_that_fails_is_closed_and_begun_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    from flowkit_kernels.cuda.solver import Solver

    reference, moving = pairs(2)
    expected = tvl1_flow(reference, moving, SHORT, backend="cuda")
    with monkeypatch.context() as patch:
        solve, calls = Solver.solve, []

        def solve_or_fail(self: Any, phases: Any) -> Any:
            solve(self, phases)
            calls.append(1)
            if len(calls) == 1:
                raise cupy.cuda.runtime.CUDARuntimeError(2)
            return solve(self, phases)

        patch.setattr(Solver, "solve", solve_or_fail)
        assert tvl1_flow(reference, moving, SHORT, backend="cuda").tobytes() == expected.tobytes()
    for _ in range(3):
        assert tvl1_flow(reference, moving, SHORT, backend="cuda").tobytes() == expected.tobytes()


class Untaken:
    """A tensor that its library does not hand out, as torch's one with a gradient."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


@pytest.mark.parametrize(("kind", "taker"), [(1, "NumPy"), (2, "CuPy")])
def test_a_tensor_that_cannot_be_taken_over_is_refused_in_words(machine: Machine, kind: int, taker: str) -> None:
    with pytest.raises(
        ShapeError, match=rf"^tvl1_flow: reference must be an array that {taker} can take over; .*detach"
    ):
        tvl1_flow(Untaken(kind), Untaken(kind), backend="cuda")


def test_valid_phases_are_told_in_numpy(machine: Machine) -> None:
    faces = np.zeros((1, 3, 20, 20), np.float32)
    with pytest.raises(ShapeError, match=r"^phase_flow: valid must be a NumPy array \(N, 2\); got ndarray\. Convert"):
        phase_flow(faces, valid=upload(np.ones((1, 2), bool)), backend="cuda")


def upload(array: Any) -> Any:
    import cupy

    return cupy.asarray(array)


class Interfaced:
    """An array of another library, which knows the CUDA array interface and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class Tensor:
    """An array of another library that speaks DLPack, and whose library takes it back."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **settings: Any) -> Any:
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, int(self.array.device.id)


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.ModuleType("tensors")
    library.from_dlpack = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensors", library)
    monkeypatch.setattr(Tensor, "__module__", "tensors")


@pytest.mark.usefixtures("tensors")
@short
def test_arrays_on_the_gpu_are_used_where_they_lie_and_come_back_in_kind(machine: Machine, params: TVL1Params) -> None:
    import cupy

    reference, moving = pairs(2)
    expected = tvl1_flow(reference, moving, params, backend="cuda")
    on_gpu = [upload(images) for images in (reference, moving)]
    for wrap, kind in ((lambda array: array, cupy.ndarray), (Interfaced, cupy.ndarray), (Tensor, Tensor)):
        before = [entry.nbytes for entry in machine.log if entry.kind == "upload"]
        flow = tvl1_flow(*map(wrap, on_gpu), params)
        uploaded = [entry.nbytes for entry in machine.log if entry.kind == "upload"][len(before) :]
        assert isinstance(flow, kind)
        assert (flow.array if kind is Tensor else flow).get().tobytes() == expected.tobytes()
        assert all(size < reference.nbytes for size in uploaded)  # tables, no images


@pytest.mark.usefixtures("tensors")
def test_a_result_is_handed_over_in_order_with_the_stream_of_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's `__dlpack__` looks at the current GPU's stream, which need not be the array's."""
    reference, moving = pairs(2)
    with standin(devices=2):
        import cupy

        seen: list[int] = []

        def take_over(array: Any) -> Tensor:
            seen.append(cupy.cuda.get_current_stream().device_id)
            return Tensor(array)

        monkeypatch.setattr(sys.modules["tensors"], "from_dlpack", take_over)
        with cupy.cuda.Device(1):
            on_gpu = [Tensor(upload(images)) for images in (reference, moving)]
        tvl1_flow(*on_gpu, SHORT)
        assert seen == [1]
        assert cupy.cuda.Device().id == 0


def test_work_on_the_callers_stream_is_in_order_with_it(machine: Machine) -> None:
    import cupy

    reference, moving = pairs(3)
    expected = tvl1_flow(reference, moving, SHORT, backend="cuda")
    answers = []
    for _ in range(3):
        with cupy.cuda.Stream(non_blocking=True):
            answers.append(tvl1_flow(upload(reference), upload(moving), SHORT).get())
    assert all(answer.tobytes() == expected.tobytes() for answer in answers)


def test_a_stream_that_the_caller_chose_by_use_stays_the_current_one() -> None:
    """CuPy's own `with stream` forgets it: a recording would move all that follows to the default stream."""
    reference, moving = pairs(3)
    for schedule in SCHEDULES:
        with standin(schedule=schedule) as machine:
            import cupy

            expected = tvl1_flow(reference, moving, SHORT, backend="cuda")
            chosen = cupy.cuda.Stream(non_blocking=True).use()
            for _ in range(3):  # launched one by one, recorded, replayed
                before = len(machine.log)
                flow = tvl1_flow(upload(reference), upload(moving), SHORT)
                assert cupy.cuda.get_current_stream() is chosen
                assert 0 not in {entry.stream for entry in machine.log[before:] if entry.kind in ("graph", "launch")}
                assert flow.get(stream=chosen).tobytes() == expected.tobytes()
            tvl1_flow(reference, moving, SHORT, backend="cuda")
            assert cupy.cuda.get_current_stream() is chosen


def test_arrays_that_cannot_be_used_are_refused_in_words() -> None:
    reference, moving = pairs(2, (20, 20))
    with standin(devices=2):
        import cupy

        here = upload(reference)
        with cupy.cuda.Device(1):
            there = upload(moving)
        broken = reference.copy()
        broken[1, 3, 4] = np.nan
        wide, small = upload(np.concatenate([moving, moving], axis=2)), upload(moving[:, :15])
        for arguments, settings, message in (
            ((here, there), {}, r"arrays must lie on one GPU; got reference on 0, moving on 1\. Move"),
            ((here, moving), {}, r"moving must lie where reference does; got one on a GPU, the other not\. Move"),
            ((here, wide[:, :, ::2]), {}, r"moving must be C-contiguous on the GPU.*cupy\.ascontiguousarray"),
            (
                (here, here),
                {"backend": "cpu"},
                r"reference must lie in the host's memory for the backend cpu; got .*copy it",
            ),
            ((here, upload(broken)), {}, r"moving of pair 1 must be finite everywhere; got NaN"),
            ((here, upload(40 * moving)), {}, r"moving must be grey values from 0 to 1, or at most 16 times that; got"),
            ((here, upload(moving.astype(np.float64))), {}, r"moving must be of dtype float32; got float64"),
            ((here[:0], here[:0]), {}, r"reference must be one pair or more; got 0 pairs"),
            ((small, small), {}, r"reference must be at least 16 x 16 pixels; got 15 x 20"),
            ((here, here[:1]), {}, r"moving must be of the shape of reference"),
        ):
            with pytest.raises(ShapeError, match=f"^tvl1_flow: {message}"):
                tvl1_flow(*arguments, SHORT, **settings)


def test_an_empty_mask_on_the_gpu_is_refused(machine: Machine) -> None:
    flow, mask = np.ones((2, 2, 2, 20, 20), np.float32), np.ones((2, 20, 20), bool)
    mask[1] = False
    with pytest.raises(ShapeError, match="mask of pair 1 must be True somewhere"):
        mmcof(upload(flow), mask=upload(mask))


def test_a_lost_gpu_is_told_apart_from_other_trouble(machine: Machine) -> None:
    reference, moving = pairs(1, (20, 20))
    tvl1_flow(reference, moving, SHORT, backend="cuda")
    machine.lost = 700  # illegal address
    with pytest.raises(DeviceLost, match=r"^GPU: every call must succeed; got .*Run the same command again"):
        tvl1_flow(reference, moving, SHORT, backend="cuda")
    machine.lost = 1  # invalid value: nothing is lost
    with pytest.raises(BackendUnavailable, match=r"^GPU: every call must succeed; .*flowkit doctor"):
        tvl1_flow(reference, moving, SHORT, backend="cuda")


def test_kernels_that_cannot_be_kept_on_disk_are_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cupy, "RawModule", full)
    with pytest.raises(
        BackendUnavailable, match=r"^GPU: compiled kernels must .*No space left.* Set CUPY_CACHE_DIR to"
    ):
        tvl1_flow(*pairs(1, (20, 20)), SHORT, backend="cuda")


def test_devices_are_chosen_by_number_and_described() -> None:
    from flowkit_kernels import backend

    with standin(devices=2):
        backend.use_device("cuda", 1)
        described = backend.describe_device("cuda")
        assert described["index"] == 1
        assert {"name", "compute_capability", "driver", "runtime", "cupy", "memory_bytes"} <= set(described)
        with pytest.raises(
            BackendUnavailable, match=r"^device: number must be that of a GPU here, 0 to 1; got 2\. flowkit doctor"
        ):
            backend.use_device("cuda", 2)
        reference, moving = pairs(1, (20, 20))
        tvl1_flow(reference, moving, SHORT, backend="cuda")
    with pytest.raises(
        flowkit_kernels.ParameterError, match="device: backend must be one of cuda, numba-cuda; got cpu"
    ):
        backend.use_device("cpu", 0)
