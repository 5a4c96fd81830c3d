"""Files made to do harm: each is refused in clear words, none is followed, none runs, none takes the machine with it.

The table of docs/security.md names these tests. Videos and images, and files in the place of settings, stand further down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile_shards import TAMPERS, UNITS, leading_out, never_written, recommitted, zstd_tampers

from conftest import flowkit
from flowkit import RunOptions, load_config
from flowkit.errors import FlowkitError, ShardCorrupt
from flowkit.extraction.pipeline import preview
from flowkit.inputs.manifest import write_manifest
from flowkit.interop.export import export
from flowkit.reports.shard_report import write_report
from flowkit.storage import commit, hashed_json, shard_checks
from flowkit.storage.folder import ShardFolder
from flowkit.storage.inspection import inspect, verify
from flowkit.storage.schema import COLUMNS
from flowkit.storage.shard_reader import Shard
from flowkit.storage.shard_writer import shard_image
from fmanet.dataset import ShardDataset
from hostile_files import KINDS, little_memory, no_file
from json_mutations import mutations
from shard_builder import DATASETS, LABELS, _clip, build_folder

SECRET = b"0123456789 nobody may read this 0123456789"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """Read-only by agreement."""
    return ShardFolder.open(build_folder(tmp_path_factory.mktemp("honest") / "out"))


@pytest.fixture(scope="module")
def zstd_folder(folder: ShardFolder, tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """The first shard, compressed."""
    shard = first(folder)
    settings = folder.run["settings"] | {"shard": {**folder.run["settings"]["shard"], "compress": "zstd"}}
    out = tmp_path_factory.mktemp("zstd")
    content = {k: v for k, v in shard.record.content.items() if k not in ("schema", "task", "file")}
    samples = list(shard.samples())
    samples[0]["regions"] = np.zeros_like(samples[0]["regions"])  # eleven bytes
    record = commit.publish(out, 0, shard_image(samples, settings), content)
    return ShardFolder(out, {**folder.run, "settings": settings}, (record,))


def first(folder: ShardFolder) -> Shard:
    return next(iter(folder.shards()))


def secret_beside(folder: ShardFolder, tmp_path: Path) -> Path:
    """A file of secrets, and one in HDF5 with the very columns that a link could want."""
    (tmp_path / "secret").write_bytes(SECRET)
    shutil.copy(first(folder).path, tmp_path / "secret.h5")
    return tmp_path / "secret"


def read_everything(shard: Shard) -> None:
    """All ways that lead into a shard; the first refusal comes out."""
    for column in COLUMNS:
        if not column.optional:
            shard.column(column.name)
    list(shard.samples())


# ------------------------------------------------------------------------------------------------------------------ shards


@pytest.mark.parametrize("name", leading_out(Path("secret")))
def test_a_shard_never_reads_another_file(folder: ShardFolder, tmp_path: Path, name: str) -> None:
    secret = secret_beside(folder, tmp_path)
    tamper = leading_out(secret)[name]
    record = recommitted(first(folder), tamper, tmp_path / "out")
    assert record.data_path is not None
    column = "label" if "texts" in name else "faces" if "faces" in name else "residual"
    if column != "faces":
        with h5py.File(record.data_path) as file:  # a reader that trusts gets what it should not
            leaked = file[column][:].tobytes()
        with h5py.File(secret.with_suffix(".h5")) as file:
            assert leaked in (SECRET[: len(leaked)], file["residual"][:].tobytes())
    for checked in (True, False):
        with pytest.raises(ShardCorrupt, match=f"{column} must follow the schema; got (a link|data outside the file)"):
            read_everything(Shard(record, folder.run["settings"], verify=checked))


@pytest.mark.parametrize("name", TAMPERS)
def test_a_shard_that_is_not_the_schema_is_refused(folder: ShardFolder, tmp_path: Path, name: str) -> None:
    tamper, says = TAMPERS[name]
    shard = Shard(recommitted(first(folder), tamper, tmp_path / "out"), folder.run["settings"])
    assert shard.path.stat().st_size < 200_000_000
    with little_memory(), pytest.raises(ShardCorrupt, match=says):
        read_everything(shard)


def test_a_file_must_hold_the_numbers_it_declares(folder: ShardFolder, tmp_path: Path) -> None:
    record = recommitted(first(folder), never_written, tmp_path / "out", packed=True)
    assert record.content["file"]["bytes"] < first(folder).path.stat().st_size / 2
    with pytest.raises(ShardCorrupt, match="must hold the numbers it declares; got"):
        Shard(record, folder.run["settings"]).column("flow")
    recommitted(first(folder), lambda file: None, tmp_path / "honest", packed=True)
    (honest,) = ShardFolder(tmp_path / "honest", folder.run, tuple(commit.read_records(tmp_path / "honest"))).shards()
    read_everything(honest)


@pytest.mark.parametrize("name", UNITS)
def test_units_that_are_none_are_refused(folder: ShardFolder, tmp_path: Path, name: str) -> None:
    shard = Shard(recommitted(first(folder), UNITS[name], tmp_path / "out"), folder.run["settings"])
    with pytest.raises(ShardCorrupt, match=r"units must be px or minmax; got .{1,70}\. Do not trust"):
        _ = shard.units


def test_a_compressed_chunk_becomes_what_the_schema_says_or_nothing(zstd_folder: ShardFolder, tmp_path: Path) -> None:
    read_everything(first(zstd_folder))
    for number, (name, (tamper, says)) in enumerate(zstd_tampers().items()):
        record = recommitted(first(zstd_folder), tamper, tmp_path / str(number))
        assert record.content["file"]["bytes"] < 200_000, name
        shard = Shard(record, zstd_folder.run["settings"])
        with little_memory(), pytest.raises(ShardCorrupt, match=says):
            read_everything(shard)


def test_what_else_lies_in_a_shard_is_never_opened(folder: ShardFolder, tmp_path: Path) -> None:
    """Further datasets, links and attributes: the closed list of columns is read as ever."""
    secret = secret_beside(folder, tmp_path)

    def add(file: Any) -> None:
        file["more"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/")
        file["circle"] = h5py.SoftLink("/circle")
        file.create_dataset("bomb", (10**12,), "f8", chunks=(1 << 16,))
        file.create_dataset("elsewhere", (4,), "u1", external=[(str(secret), 0, 4)])
        file.attrs["settings"] = "x" * 20_000_000
        file.attrs.create("axes", np.ones(1_000_000))

    shard = Shard(recommitted(first(folder), add, tmp_path / "out"), folder.run["settings"])
    with little_memory():
        assert [one["sample_hash"] for one in shard.samples()] == [
            one["sample_hash"] for one in first(folder).samples()
        ]
    for name in ("more", "more/flow", "circle", "bomb", "elsewhere", "/flow", "."):
        with pytest.raises(KeyError):
            shard.column(name)


PLUGIN = """
#include <cstdio>
#include <cstdlib>
__attribute__((constructor)) static void loaded() {
    if (std::FILE *file = std::fopen(std::getenv("LOADED"), "a")) { std::fputs("loaded\\n", file); std::fclose(file); }
}
extern "C" int H5PLget_plugin_type() { return 0; }
extern "C" const void *H5PLget_plugin_info() { return nullptr; }
"""
READ_WITH_PLUGINS = """
import pathlib, sys
import h5py
from flowkit.errors import ShardCorrupt
from flowkit import Shard, ShardFolder
path, out, loaded = map(pathlib.Path, sys.argv[1:])
folder = ShardFolder.open(out)
for checked in (True, False):
    try:
        next(iter(folder.shards(verify=checked))).sample(0)
    except ShardCorrupt as error:
        print(error)
assert not loaded.exists(), "flowkit had a plugin loaded"
paths = [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())]
try:
    h5py.File(path)["flow"][0]
except OSError:
    pass
assert loaded.exists(), "the plugin is none, or flowkit took the path away for good"
print(paths)
"""


def test_no_plugin_is_loaded_for_a_file_that_asks_for_one(folder: ShardFolder, tmp_path: Path) -> None:
    """In a process of its own; a reader that trusts loads it there, which shows that it could be loaded."""
    (tmp_path / "plugin.cpp").write_text(PLUGIN)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    build = ["g++", "-shared", "-fPIC", "-o", str(plugins / "libplugin.so"), str(tmp_path / "plugin.cpp")]
    subprocess.run(build, check=True, timeout=60)
    out = tmp_path / "out"
    shutil.copytree(folder.path, out, ignore=shutil.ignore_patterns("shards"))
    record = recommitted(first(folder), TAMPERS["a filter nobody knows"][0], out)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HDF5_PLUGIN_PATH": str(plugins),
        "LOADED": str(tmp_path / "loaded"),
    }
    command = [sys.executable, "-c", READ_WITH_PLUGINS, str(record.data_path), str(out), str(tmp_path / "loaded")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("got filters [4242]") == 2
    assert str(plugins) in done.stdout


def test_libhdf5_has_no_folder_of_plugins_while_a_shard_is_opened(
    folder: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    check = shard_checks.check_columns
    monkeypatch.setattr(shard_checks, "check_columns", lambda *given: sizes.append(h5py.h5pl.size()) or check(*given))
    before = [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())]
    first(folder).sample(0)
    assert (sizes, bool(before)) == ([0], True)
    assert [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())] == before


@pytest.mark.parametrize("what", ["shard", "record", "folder"])
def test_links_that_lead_out_of_a_folder_are_not_followed(folder: ShardFolder, tmp_path: Path, what: str) -> None:
    out, elsewhere = shutil.copytree(folder.path, tmp_path / "out"), tmp_path / "elsewhere"
    record = ShardFolder.open(out).records[0]
    assert record.data_path is not None
    moved = {"shard": record.data_path, "record": record.path, "folder": record.path.parent}[what]
    shutil.move(moved, elsewhere)
    moved.symlink_to(elsewhere)
    found = ShardFolder.open(out)
    if what != "shard":
        assert 0 not in [one.task for one in found.records]
        assert record.path in commit.invalid_records(out)
        return
    for checked in (True, False):
        with pytest.raises(ShardCorrupt, match="or a link that leads elsewhere"):
            next(iter(found.shards(verify=checked))).sample(0)


def test_a_folder_that_lies_elsewhere_as_a_whole_is_fine(folder: ShardFolder, tmp_path: Path) -> None:
    """Somebody's other disk."""
    out = shutil.copytree(folder.path, tmp_path / "out")
    shutil.move(out / "shards", tmp_path / "disk")
    (out / "shards").symlink_to(tmp_path / "disk")
    (tmp_path / "linked").symlink_to(out)
    for path in (out, tmp_path / "linked"):
        assert len(list(next(iter(ShardFolder.open(path).shards())).samples())) == len(first(folder))


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips a shard, each shard hostile in another way."""
    base = tmp_path_factory.mktemp("hostile")
    cases = {
        name: tamper for name, (tamper, _) in TAMPERS.items() if name != "gzip bomb"
    }  # which takes seconds to make
    cases |= leading_out(base / "secret")
    honest = ShardFolder.open(build_folder(base / "honest", clips=2 * len(cases), failures=0))
    secret_beside(honest, base)
    out = shutil.copytree(honest.path, base / "out")
    shutil.rmtree(out / "shards")
    for shard, tamper in zip(honest.shards(), cases.values(), strict=True):
        recommitted(shard, tamper, out)
    return out


def test_commands_name_every_hostile_shard_and_show_none(hostile_folder: Path, tmp_path: Path) -> None:
    shards = len(list(hostile_folder.glob("shards/*/*.h5")))
    assert flowkit("inspect", hostile_folder).code == 0  # it reads records alone
    for command in (("verify",), ("report",), ("export", "--format", "npz", "--out", tmp_path / "npz")):
        done = flowkit(command[0], hostile_folder, *command[1:])
        assert (done.code, "Traceback" in done.err) == (1, False), done.err
        said = done.out + done.err
        assert len({line for line in said.splitlines() if ".h5: " in line}) >= shards, said
        assert SECRET[:8].decode() not in said
    assert SECRET[:8] not in (hostile_folder / "report.html").read_bytes()
    assert {path.name for path in (tmp_path / "npz").rglob("*") if path.is_file()} == {"export.json", "clips.csv"}
    with pytest.raises(ShardCorrupt):
        [list(shard.samples()) for shard in ShardFolder.open(hostile_folder).shards()]


# ----------------------------------------------------------------------------------------------------- records, run, plan


def readings(out: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that reads a folder of shards, by the name of its command."""
    yield "inspect", lambda: inspect(out)
    yield "verify", lambda: verify(out)
    yield "report", lambda: write_report(out, clips=2)
    yield "export", lambda: export(out, out / "npz", "npz")
    yield "train", lambda: ShardDataset([out], None).clips()
    manifest, config = out.parent / "manifest.csv", load_config(None, **SETTINGS)
    yield "extract", lambda: preview(manifest, out, config, RunOptions(root=out.parent))


SETTINGS: dict[str, Any] = {
    "frames__missing_offset": "invalid",
    "align__method": "none",
    "align__size": 32,
    "shard__clips": 2,
    "backend": "cpu",
}
"""Those of `build_folder`."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder of two shards, and the manifest that it was made of."""
    out = build_folder(tmp_path / "out")
    clips = [_clip(name, int(name[-3:]), LABELS, DATASETS) for name in ("clip-000", "clip-001", "clip-002", "fail-000")]
    write_manifest(tmp_path / "manifest.csv", clips)
    for _, read in readings(out):
        read()
    return out


@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["run.json", "plan/000000.json", "shards/000/000000.json"])
def test_a_json_file_of_another_form_is_refused_by_every_command(small: Path, name: str, count: int) -> None:
    """Now this value and now that is one of another kind, under a hash that fits."""
    path = small / name
    content = hashed_json.decode(path.read_bytes())
    assert content is not None
    refused = 0
    path.write_bytes(hashed_json.encode(content))
    assert (len(ShardFolder.open(small).records), verify(small).problems) == (2, ())  # the hash is not what is refused
    changes = list(mutations(content, 3, seed=1))
    tried = random.Random(1).sample(changes, min(count, len(changes)))
    for what, changed in tried:
        path.write_bytes(hashed_json.encode(changed))
        for command, read in readings(small):
            shutil.rmtree(small / "npz", ignore_errors=True)
            try:
                read()
            except FlowkitError as error:
                refused += error.exit_code in (1, 2)
            except Exception as error:
                raise AssertionError(f"{command} of {name} with {what}") from error
        refused += name.startswith("shards") and len(ShardFolder.open(small).records) == 1
    assert refused > count / 2


BOMBS = {
    "brackets": b"[" * 1_000_000,
    "objects": b'{"content":' * 100_000,
    "a number of a million digits": b'{"sha256": "", "content": ' + b"9" * 1_000_000 + b"}",
    "no number": b'{"sha256": NaN, "content": {"schema": NaN}}',
    "another encoding": '{"sha256": "", "content": {}}'.encode("utf-16"),
    "half a character": b'{"sha256": "\xed\xa0\x80", "content": {"schema": 1}}',
    "nothing": b"",
    "zeros": bytes(1000),
    "a list": b'["sha256", "content"]',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_bombs_are_refused(small: Path, bomb: str) -> None:
    for name in ("run.json", "plan/000000.json", "shards/000/000000.json"):
        path = small / name
        before = path.read_bytes()
        path.write_bytes(BOMBS[bomb])
        if name.startswith("shards"):
            assert [record.task for record in ShardFolder.open(small).records] == [1]
            assert any(str(path) in problem for problem in verify(small).problems)
        else:
            with pytest.raises(ShardCorrupt, match="as it was written"):
                inspect(small)
        path.write_bytes(before)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_waited_for_among_the_shards(small: Path, kind: str) -> None:
    names = ["run.json", "plan/000000.json", "shards/000/000000.json"]
    names += [str(path.relative_to(small)) for path in small.glob("shards/000/000000-*.h5")]
    for name in names:
        out = shutil.copytree(small, small.parent / name.replace("/", "-"))
        no_file(out / name, kind)
        with little_memory():
            for command, read in readings(out):
                if command == "export":
                    shutil.rmtree(out / "npz", ignore_errors=True)
                with contextlib.suppress(FlowkitError):
                    read()
        if name.startswith("shards"):
            assert len(ShardFolder.open(out).records) == 1  # the other one
        else:
            with pytest.raises(ShardCorrupt, match="as it was written"):
                inspect(out)


@pytest.mark.timeout(120)
def test_a_record_may_vouch_for_a_pipe_and_still_nobody_waits(small: Path) -> None:
    """Of zero bytes, with their hash: all that the record says holds."""
    record = ShardFolder.open(small).records[0]
    assert record.data_path is not None
    file = {**record.content["file"], "bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    record.path.write_bytes(hashed_json.encode({**record.content, "file": file}))
    no_file(record.data_path, "pipe")
    for checked in (True, False):
        with pytest.raises(ShardCorrupt, match="must be a file among the shards"):
            next(iter(ShardFolder.open(small).shards(verify=checked))).sample(0)
