"""Shards that an attacker wrote, each in its own way, under a commit record that vouches for every byte of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from flowkit.storage import commit
from flowkit.storage.commit import Record
from flowkit.storage.schema import SHARD_SCHEMA
from flowkit.storage.shard_reader import Shard

CLIPS, SIZE = 2, 32
"""Of each shard of `build_folder`."""
FLOW = (1, 2, 2, SIZE, SIZE)
UNKNOWN_FILTER = 4242

Tamper = Callable[[Any], None]


def recommitted(shard: Shard, tamper: Tamper, out: Path, *, packed: bool = False) -> Record:
    """Commit a tampered copy of a shard in another folder, as if it were honest; `packed`: without what was removed."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        copy = Path(shutil.copy(shard.path, scratch))
        with h5py.File(copy, "r+") as file:
            tamper(file)
            if packed:
                copy = Path(scratch, "packed.h5")
                with h5py.File(copy, "w", libver="latest") as small:
                    for name in file:
                        file.copy(name, small)
                    small.attrs.update(file.attrs)
        content = {k: v for k, v in shard.record.content.items() if k not in ("schema", "task", "file")}
        return commit.publish(out, shard.record.task, copy.read_bytes(), content)


def replaced(name: str, *shape: Any, **how: Any) -> Tamper:
    """Put another dataset in the place of one."""

    def tamper(file: Any) -> None:
        del file[name]
        file.create_dataset(name, *shape, **how)

    return tamper


def linked(name: str, link: Any) -> Tamper:
    def tamper(file: Any) -> None:
        if name in file:
            del file[name]
        file[name] = link

    return tamper


def told(name: str, value: Any, **how: Any) -> Tamper:
    """Put another attribute in the place of one."""
    return lambda file: file.attrs.create(name, value, **how)


def leading_out(secret: Path) -> dict[str, Tamper]:
    """What would read another file: `secret`, or `secret` with .h5, a file of this schema."""
    other = str(secret.with_suffix(".h5"))

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((CLIPS, 2), "<f4")
        layout[:] = h5py.VirtualSource(other, "residual", (CLIPS, 2))
        del file["residual"]
        file.create_virtual_dataset("residual", layout)

    return {
        "external storage of numbers": replaced("residual", (CLIPS, 2), "<f4", external=[(str(secret), 0, 8 * CLIPS)]),
        "external storage of texts": replaced(
            "label", (CLIPS,), h5py.string_dtype("utf-8", 8), external=[(str(secret), 0, 8 * CLIPS)]
        ),
        "external link": linked("residual", h5py.ExternalLink(other, "residual")),
        "external link in place of faces": linked("faces", h5py.ExternalLink(other, "faces")),
        "virtual dataset": virtual,
    }


def _loop(file: Any) -> None:
    linked("onset", h5py.SoftLink("/loop"))(file)
    file["loop"] = h5py.SoftLink("/onset")


def _group(file: Any) -> None:
    del file["onset"]
    file.create_group("onset").create_dataset("onset", (CLIPS,), "<i4")


def _named_type(file: Any) -> None:
    file["type"] = np.dtype("<i4")
    replaced("onset", (CLIPS,), dtype=file["type"])(file)


def _unknown_filter(file: Any) -> None:
    """A filter that libhdf5 does not know: it would look for one in the folders of HDF5_PLUGIN_PATH."""
    del file["flow"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(FLOW)
    properties.set_filter(UNKNOWN_FILTER, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((CLIPS, *FLOW[1:]))
    flow = h5py.h5d.create(file.id, b"flow", h5py.h5t.IEEE_F16LE, space, properties)
    for row in range(CLIPS):
        flow.write_direct_chunk((row, 0, 0, 0, 0), bytes(2 * 4 * SIZE**2))


def _inflating(file: Any) -> None:
    """One chunk that becomes 512 MB: shape and chunk are those of the bomb, not of the schema."""
    side = 8192
    del file["flow"]
    flow = file.create_dataset(
        "flow", (CLIPS, 2, 2, side, side), "<f2", chunks=(1, 2, 2, side, side), compression="gzip"
    )
    flow[0] = np.zeros((2, 2, side, side), np.float16)


def never_written(file: Any) -> None:
    """Chunks without a byte: so little can pretend to be any number of clips."""
    for name in ("flow", "mmcof", "landmarks", "regions"):
        shape, dtype, chunks = file[name].shape, file[name].dtype, file[name].chunks
        replaced(name, shape, dtype, chunks=chunks)(file)


TAMPERS: Mapping[str, tuple[Tamper, str]] = {
    "soft link": (linked("residual", h5py.SoftLink("/removed")), "residual must follow the schema; got a link"),
    "soft link to itself": (linked("residual", h5py.SoftLink("/residual")), "got a link"),
    "soft links in a circle": (_loop, "onset .* got a link"),
    "soft link in place of faces": (linked("faces", h5py.SoftLink("/flow")), "faces .* got a link"),
    "shape bomb": (
        replaced("flow", (50_000_000, *FLOW[1:]), "<f2", chunks=FLOW),
        r"got shape \(50000000, 2, 2, 32, 32\) where \(2, 2, 2, 32, 32\)",
    ),
    "shape that may grow": (
        replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, maxshape=(None, *FLOW[1:])),
        "flow .* got shape",
    ),
    "gzip": (replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, compression="gzip"), r"got filters \[1\]"),
    "gzip bomb": (_inflating, "flow .* got shape"),
    "lzf": (replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, compression="lzf"), r"got filters \[32000\]"),
    "fletcher32": (replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, fletcher32=True), r"got filters \[3\]"),
    "a filter nobody knows": (_unknown_filter, r"got filters \[4242\]"),
    "zstd in a folder without": (
        replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, **hdf5plugin.Zstd()),
        r"got filters \[32015\]",
    ),
    "wrong type": (replaced("flow", (CLIPS, *FLOW[1:]), "<f8", chunks=FLOW), "flow .* got type float64"),
    "wrong byte order": (replaced("onset", (CLIPS,), ">i4"), "onset .* got type >i4"),
    "wrong rank": (replaced("flow", (CLIPS, 4, SIZE, SIZE), "<f2", chunks=(1, 4, SIZE, SIZE)), "flow .* got shape"),
    "wrong chunks": (replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=(2, *FLOW[1:])), "flow .* got chunks"),
    "no chunks": (replaced("flow", (CLIPS, *FLOW[1:]), "<f2"), "flow .* got chunks None"),
    "a single value": (replaced("onset", (), "<i4"), r"onset .* got shape \(\)"),
    "no value": (replaced("onset", data=h5py.Empty("<i4")), "onset .* got shape None"),
    "a group": (_group, "onset .* got a group"),
    "a type": (linked("onset", np.dtype("<i4")), "onset .* got a group or a type"),
    "a type of its own name": (_named_type, "onset .* got type"),
    "compound": (replaced("onset", (CLIPS,), np.dtype([("a", "<i4")])), "onset .* got type"),
    "enumeration": (replaced("onset", (CLIPS,), h5py.enum_dtype({"a": 1}, "<i4")), "onset .* got type"),
    "references": (replaced("onset", (CLIPS,), h5py.ref_dtype), "onset .* got type object"),
    "texts of any length": (replaced("label", data=["a", "b"], dtype=h5py.string_dtype()), "label .* got type object"),
    "texts of 16 MB": (replaced("label", (CLIPS,), h5py.string_dtype("utf-8", 1 << 24)), "label .* got type"),
    "texts in no encoding": (replaced("label", data=np.array([b"a\xff", b"b"])), "label .* got type"),
    "texts that are not UTF-8": (
        replaced("label", data=np.array([b"a\xff", b"b"], h5py.string_dtype("utf-8", 2))),
        "cannot be read .*utf-8",
    ),
    "no column": (lambda file: file.__delitem__("transform"), "transform .* got no dataset"),
    "no schema": (lambda file: file.attrs.__delitem__("schema"), "schema must be from 1 to 2; got None"),
    "schema of 20 MB": (told("schema", np.ones(5_000_000, np.int32)), "schema must be from 1 to 2; got None"),
    "schema as text": (told("schema", "1" * 1_000_000), "schema must be from 1 to 2; got None"),
    "schema as reference": (lambda file: told("schema", file.ref)(file), "schema must be from 1 to 2; got None"),
    "schema as list": (told("schema", np.ones(1, np.int64)), "schema must be from 1 to 2; got None"),
    "schema below 1": (told("schema", 0), "schema must be from 1 to 2; got 0"),
    "older schema with newer columns": (told("schema", 1), "turn .* got a column of schema 2 in a shard of schema 1"),
    "no column of the newest schema": (lambda file: file.__delitem__("au_hint"), "au_hint .* got no dataset"),
    "newer schema": (told("schema", SHARD_SCHEMA + 1), "newer flowkit"),
}
"""What it does, and what the refusal says."""

UNITS: Mapping[str, Tamper] = {
    "list": told("units", np.array(["px", "px"], object)),
    "50 MB": told("units", "p" * 50_000_000),
    "half a character": told("units", np.bytes_(b"\xff")),
    "nothing": told("units", h5py.Empty("S1")),
    "compound": told("units", np.zeros((), np.dtype([("a", "i4")]))),
    "absent": lambda file: file.attrs.__delitem__("units"),
}


def zstd_frame(count: int) -> bytes:
    """What libhdf5's filter makes of so many zeros."""
    with h5py.File("frame", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", (count,), "u1", chunks=(count,), **hdf5plugin.Zstd(clevel=3))
        data[:] = np.zeros(count, np.uint8)
        return bytes(data.id.read_direct_chunk((0,))[1])


def chunked(frame: bytes, mask: int = 0) -> Tamper:
    """Put a frame in the place of the first clip's flow."""
    return lambda file: file["flow"].id.write_direct_chunk((0, 0, 0, 0, 0), frame, mask)


def zstd_tampers() -> dict[str, tuple[Tamper, str]]:
    """For a folder of `compress = zstd`, where chunks inflate."""
    right = 2 * 4 * SIZE**2
    bomb = zstd_frame(1 << 29)

    def twice(file: Any) -> None:
        """A frame of the right size, in which lies a bomb."""
        del file["flow"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(FLOW)
        for number in (h5py.h5z.FILTER_SHUFFLE, 32015, 32015):
            properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((CLIPS, *FLOW[1:]))
        h5py.h5d.create(file.id, b"flow", h5py.h5t.IEEE_F16LE, space, properties)

    return {
        "512 MB in a chunk": (chunked(bomb), f"a chunk that does not become {right} bytes"),
        "a frame that does not say": (chunked(bomb[:4] + b"\0" + bomb[5:]), "a chunk that does not become"),
        "a frame that lies": (chunked(_saying(bomb, right)), "cannot be read"),
        "no frame at all": (chunked(bytes(64)), "a chunk that does not become"),
        "a few bytes": (chunked(b"\x28\xb5\x2f\xfd"), "a chunk that does not become"),
        "a chunk without its filters": (chunked(bytes(right), 3), "a chunk that does not become"),
        "a bomb in a frame": (twice, r"got filters \[2, 32015, 32015\]"),
        "missing chunks": (
            replaced("flow", (CLIPS, *FLOW[1:]), "<f2", chunks=FLOW, shuffle=True, **hdf5plugin.Zstd(clevel=3)),
            "got 0 chunks",
        ),
    }


def _saying(frame: bytes, count: int) -> bytes:
    """The frame with another size in its head."""
    honest = zstd_frame(count)
    head = {0: 1, 1: 2, 2: 4, 3: 8}
    skip = 5 + (0 if frame[4] & 32 else 1) + head[frame[4] >> 6]
    keep = 5 + (0 if honest[4] & 32 else 1) + head[honest[4] >> 6]
    return honest[:keep] + frame[skip:]
