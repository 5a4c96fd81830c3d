"""Compiled kernels on disk: found where they lie, stored where there is room, never read where they may be somebody else's."""

from __future__ import annotations

import ast
import os
import pickle
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from flowkit_kernels import (
    BackendUnavailable,
    MMCOFParams,
    TVL1Params,
    is_compiled,
    mmcof,
    phase_flow,
    tvl1_flow,
    warm_up,
)
from flowkit_kernels.cpu import code_cache, operations
from flowkit_kernels.cpu.code_cache import KernelCache
from flowkit_kernels.probing import obstacles

TYPES = (numba.types.int64,)


def tripled(value: int) -> int:
    """Compile quickly, in the place of a kernel."""
    return 3 * value


def compiled() -> tuple[Any, int]:
    """The function as a new process has it, called once, and how often it had to be compiled for that."""
    function = numba.njit(tripled)
    function._cache = KernelCache(tripled, shared=True)
    assert function(14) == 42
    return function, sum(function.stats.cache_misses.values())


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Give the cache other folders, and let it look at them anew."""

    def use(*paths: Path) -> None:
        code_cache._why_not.cache_clear()
        monkeypatch.setattr(code_cache, "candidates", lambda: iter(paths))

    yield use
    monkeypatch.undo()
    code_cache._why_not.cache_clear()
    code_cache._temporary.cache_clear()


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder that not even root can make."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


@contextmanager
def full_disk() -> Iterator[None]:
    """Let this process write no byte to any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_code_is_stored_in_the_first_folder_with_room_and_found_there(
    folders: Callable[..., None], nowhere: Path, tmp_path: Path
) -> None:
    folders(nowhere, tmp_path / "a", tmp_path / "b")
    function, compilations = compiled()
    assert (compilations, compiled()[1]) == (1, 0)
    assert code_cache.folder_of(((function, TYPES),)) == tmp_path / "a"
    assert not (tmp_path / "b").exists()
    assert "Not a directory" in code_cache._why_not(nowhere)


def test_code_is_loaded_from_a_folder_that_cannot_be_written(folders: Callable[..., None], tmp_path: Path) -> None:
    """As from an image that was warmed up when it was built."""
    folders(tmp_path / "built")
    compiled()
    with full_disk():
        folders(tmp_path / "built", tmp_path / "other")
        assert compiled()[1] == 0
    assert not (tmp_path / "other").exists()


def test_where_nothing_can_be_stored_the_error_names_the_variable(
    folders: Callable[..., None], nowhere: Path, tmp_path: Path
) -> None:
    with full_disk():
        folders(nowhere, tmp_path / "full")
        with pytest.raises(BackendUnavailable, match="Set NUMBA_CACHE_DIR"):
            compiled()
        with pytest.raises(
            BackendUnavailable, match=r"folder: Not a directory; .*full: File too large\)\. Set NUMBA_CACHE_DIR"
        ):
            warm_up("cpu")
        assert not is_compiled()


@pytest.mark.parametrize("which", ["*.nbi", "*.nbc"], ids=["index", "data"])
@pytest.mark.parametrize("keep", [0, 1, 40, -1, None], ids=["empty", "a byte", "a start", "all but a byte", "noise"])
def test_a_damaged_file_is_compiled_anew_and_replaced(
    folders: Callable[..., None], tmp_path: Path, which: str, keep: int | None
) -> None:
    folders(tmp_path / "cache")
    compiled()
    (file,) = (tmp_path / "cache").glob(which)
    content = file.read_bytes()
    file.write_bytes(np.random.default_rng(0).bytes(len(content)) if keep is None else content[:keep])
    assert [compiled()[1] for _ in range(2)] == [1, 0]


def test_data_that_is_gone_or_older_than_its_index_is_compiled_anew(
    folders: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path / "cache")
    compiled()
    (data,) = (tmp_path / "cache").glob("*.nbc")
    old = data.read_bytes()
    data.unlink()
    assert [compiled()[1] for _ in range(2)] == [1, 0]
    monkeypatch.setattr(code_cache, "_stamp", lambda: "after an update")
    assert [compiled()[1] for _ in range(2)] == [1, 0]
    data.write_bytes(old)  # killed between index and data
    assert [compiled()[1] for _ in range(2)] == [1, 0]


def test_the_stamp_covers_every_source_that_is_compiled() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("flowkit_kernels.cpu.")]
    functions = [value for module in modules for value in vars(module).values() if hasattr(value, "py_func")]
    homes = {function.py_func.__module__ for function in functions}
    assert {"flowkit_kernels.cpu.tvl1", "flowkit_kernels.numba_shared"} <= homes
    assert {source_of(home) for home in homes} <= set(code_cache.SOURCES)
    paths = code_cache.HERE.rglob("*.py")  # what compiles also where nothing of the backend imports it
    users = {str(path.relative_to(code_cache.HERE)) for path in paths if "simd import" in path.read_text("utf-8")}
    assert users <= set(code_cache.SOURCES)


def test_the_stamp_covers_every_source_of_a_constant() -> None:
    """Numba compiles in what a module takes from another."""
    for source in set(code_cache.SOURCES) - {
        "params.py"
    }:  # which imports checks of arguments, and they are not compiled
        tree = ast.parse((code_cache.HERE / source).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowkit_kernels"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                inner = [name for name in names if (code_cache.HERE / source_of(name)).exists()]
                for name in inner or [node.module or ""]:
                    assert source_of(name) in {*code_cache.SOURCES, "cpu/code_cache.py"}, (source, name)


def source_of(module: str) -> str:
    return f"{module.partition('.')[2].replace('.', '/')}.py"


def test_a_folder_that_another_user_could_have_filled_is_not_used(
    folders: Callable[..., None], nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code_cache._temporary.cache_clear()
    home = code_cache._temporary()
    assert home == tmp_path / f"flowkit-kernels-{os.geteuid()}"

    def trusted() -> bool:
        folders(nowhere, home / "kernels")
        assert (code_cache.storage() is None) == (not code_cache._is_private(home))
        return code_cache.storage() is not None

    (tmp_path / "elsewhere").mkdir(mode=0o700)
    home.symlink_to("elsewhere")
    assert not trusted()
    home.unlink()
    home.touch()
    assert not trusted()
    home.unlink()
    home.mkdir()
    home.chmod(0o770)
    assert not trusted()
    home.rmdir()
    assert trusted()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    tmp_path.chmod(0o777)  # without the sticky bit anybody can put another folder in its place
    assert not trusted()
    tmp_path.chmod(0o1777)
    with monkeypatch.context() as other:
        other.setattr(code_cache, "_user", lambda: os.geteuid() + 1)
        assert not code_cache._is_private(home)
    assert trusted()


def test_code_in_a_folder_that_is_not_trusted_is_never_unpickled(
    folders: Callable[..., None], nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path / "theirs")
    compiled()
    (index,) = (tmp_path / "theirs").glob("*.nbi")
    index.write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    monkeypatch.setattr(code_cache, "_is_trusted", lambda folder: folder.name != "theirs")
    folders(tmp_path / "theirs", tmp_path / "ours")
    assert compiled()[1] == 1
    assert not (tmp_path / "sprung").exists()
    assert any((tmp_path / "ours").glob("*.nbc"))


class _Trap:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_without_a_home_nothing_is_looked_for_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "~")  # what Python leaves of ~ where it finds no home
    assert all(folder.is_absolute() for folder in code_cache.candidates())
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Path("/home/somebody/.cache/numba") in [folder.parent for folder in code_cache.candidates()]


def test_who_waits_for_a_process_that_hangs_compiles_in_the_end(
    folders: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path)
    held = code_cache._locked(tmp_path / f"{KernelCache(tripled, shared=True)._name}.lock")
    assert held is not None
    monkeypatch.setattr(code_cache, "LONGEST_WAIT_S", 0.3)
    assert compiled()[1] == 1
    os.close(held)


def test_no_call_needs_other_code_than_what_is_compiled_ahead() -> None:
    """Whatever the layout of the arrays and the parameters."""
    assert warm_up("cpu") >= 0
    assert is_compiled()
    assert warm_up("cpu") == warm_up("reference") == 0
    before = [(function, set(function.signatures)) for function, _ in operations.entries()]
    assert all(types in signatures for (_, types), (_, signatures) in zip(operations.entries(), before, strict=True))
    faces = np.random.default_rng(0).random((1, 3, 32, 40), dtype=np.float32)
    frozen = faces.copy()
    frozen.flags.writeable = False
    for images in (faces, frozen, np.asfortranarray(faces), np.repeat(faces, 2, axis=3)[..., ::2]):
        for params in (
            TVL1Params(scales=2, scale_step=0.8, warps=1),
            TVL1Params.preset("opencv"),
            TVL1Params(tau=1 / 8, epsilon=1),
        ):
            flow = phase_flow(images, params, backend="cpu")
            tvl1_flow(images[:, 0], images[:, 1], params, backend="cpu", threads=2)
        flow.flags.writeable = False
        for settings in (MMCOFParams(), MMCOFParams(region="image", gate="hard", alpha=2), MMCOFParams(border_px=1)):
            mmcof(flow, settings, backend="cpu")
            mmcof(flow, settings, mask=images[:, 0] >= 0, backend="cpu")
    assert [(function, set(function.signatures)) for function, _ in operations.entries()] == before


def test_without_numbas_compiler_the_cpu_backend_says_what_to_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    obstacles.forget()
    try:
        with pytest.raises(BackendUnavailable, match=r"NUMBA_DISABLE_JIT is set.* Unset NUMBA_DISABLE_JIT; or choose"):
            tvl1_flow(np.zeros((1, 20, 20), np.float32), np.zeros((1, 20, 20), np.float32), backend="cpu")
        with pytest.raises(BackendUnavailable, match=r"Unset NUMBA_DISABLE_JIT\.$"):
            warm_up("cpu")
        assert not is_compiled()
        tvl1_flow(np.zeros((1, 20, 20), np.float32), np.zeros((1, 20, 20), np.float32), backend="reference")
    finally:
        obstacles.forget()
