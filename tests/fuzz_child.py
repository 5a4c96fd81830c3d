"""What a fuzz test runs in a child: damaged files, one after the other, each said before it is read and each outcome after.

The parent (`fuzzed`) starts the child again behind a mutation that ended it or made it hang. Lines on stdout: `begin N`, then
`N OUTCOME [detail]`.
"""

from __future__ import annotations

import io
import os
import random
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

START_S = 120
"""To start a child on a busy machine: imports."""
HANG_S = 20
"""For one mutation; the slowest takes a tenth of a second on an idle machine."""


@dataclass
class Fuzzed:
    """Outcomes by name, and of each but the expected ones the first detail."""

    counts: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)


def fuzzed(kind: str, folder: Path, count: int) -> Fuzzed:
    """Read `count` mutations of what lies in a folder; "crash" and "hang" are outcomes too."""
    found = Fuzzed()
    after = 0
    while after < count:
        begun = after
        for line in _child(kind, folder, after, count):
            number, outcome, *detail = line.split(" ", 2)
            if number == "begin":
                begun = int(outcome)
                continue
            found.counts[outcome] += 1
            found.details.setdefault(outcome, f"{number}: {' '.join(detail)}")
            after = begun + 1 if outcome in ("crash", "hang") else int(number) + 1
    return found


def _child(kind: str, folder: Path, first: int, count: int) -> Iterator[str]:
    """Lines of a child; one more where it died or hung."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__, kind, str(folder), str(first), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        held, limit = b"", START_S
        while True:
            ready, _, _ = select.select([process.stdout], [], [], limit)
            block = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not block:
                break
            *whole, held = (held + block).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
            limit = HANG_S
        if not ready:
            process.kill()
        code = process.wait()
    if not ready:
        yield "begin-or-later hang"
    elif code != 0:
        yield f"begin-or-later crash exit {code}"


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four bit flips, block swaps, truncations, insertions, overwritten lengths."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not changed:
            break
        kind, at = draw.randrange(6), draw.randrange(len(changed))
        if kind == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            other, length = draw.randrange(len(changed)), draw.randint(1, 64)
            changed[at : at + length], changed[other : other + length] = (
                changed[other : other + length],
                changed[at : at + length],
            )
        elif kind == 2:
            del changed[at : at + draw.choice((1, 8, len(changed)))]
        elif kind == 3:
            changed[at:at] = draw.randbytes(draw.randint(1, 16))
        else:
            width = draw.choice((2, 4, 8))
            value = draw.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), draw.getrandbits(8 * width)))
            at -= at % width * (kind == 4)
            changed[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))
    return bytes(changed)


def in_the_head(content: bytes, draw: random.Random) -> bytes:
    """As `mutated`, half the time among the bytes that are not zero: in HDF5 and in headers those are the records."""
    if draw.random() < 0.5:
        return mutated(content, draw)
    changed = bytearray(content)
    structure = [at for at in range(len(changed)) if changed[at]]
    for _ in range(draw.randint(1, 6)):
        changed[draw.choice(structure)] = draw.randrange(256)
    return bytes(changed)


def _shards(folder: Path, vouched: bool) -> Callable[[int], str]:
    """Damaged shards: behind the record of the honest one, or with nothing to hold libhdf5 back."""
    from flowkit.errors import ShardCorrupt
    from flowkit.storage.commit import Record
    from flowkit.storage.folder import ShardFolder
    from flowkit.storage.shard_reader import Shard

    honest = ShardFolder.open(folder)
    shard = next(iter(honest.shards()))
    content, expected = shard.path.read_bytes(), [list(map(_plain, one.items())) for one in map(dict, shard.samples())]
    texts = ("clip_id", "dataset", "subject", "label", "apex_source", "source_hash", "extra")
    path = folder / "shards" / "000" / "fuzzed.h5"
    record = Record(shard.record.task, path.with_suffix(".json"), dict(shard.record.content))

    def read(number: int) -> str:
        path.write_bytes(in_the_head(content, random.Random(number)))
        damaged = Shard(record, honest.run["settings"], verify=not vouched)
        damaged.path = path
        try:
            with damaged:
                found = [list(map(_plain, one.items())) for one in damaged.samples()]
                _ = damaged.units
        except ShardCorrupt:
            return "refused"
        if found == expected:
            return "identical"
        same_numbers = [
            [(name, value) for name, value in one if name not in texts]
            == [(name, value) for name, value in other if name not in texts]
            for one, other in zip(found, expected, strict=True)
        ]
        return "other-texts" if all(same_numbers) else "other-numbers"

    return read


def _plain(item: tuple[str, object]) -> tuple[str, object]:
    import numpy as np

    name, value = item
    return name, value if isinstance(value, str) else np.asarray(value).tobytes()


def _json(folder: Path) -> Callable[[int], str]:
    """Damaged run, plan and records: the bytes, or the content under a hash that fits."""
    import json

    from flowkit.errors import ShardCorrupt
    from flowkit.storage import hashed_json
    from flowkit.storage.inspection import inspect, verify
    from json_mutations import mutations

    names = ["run.json", "plan/000000.json", "shards/000/000000.json", "shards/000/000001.json"]
    honest = {name: (folder / name).read_bytes() for name in names}
    expected = inspect(folder), len(verify(folder).problems)
    changes = {name: [one for _, one in mutations(json.loads(text)["content"], 4, 5)] for name, text in honest.items()}

    def read(number: int) -> str:
        draw = random.Random(number)
        name = draw.choice(names)
        if draw.random() < 0.5:
            text = mutated(honest[name], draw)
        else:
            content = draw.choice(changes[name])
            text = hashed_json.encode(content)
        (folder / name).write_bytes(text)
        try:
            found = inspect(folder), len(verify(folder).problems)
        except ShardCorrupt:
            return "refused"
        finally:
            (folder / name).write_bytes(honest[name])
        if found == expected:
            return "identical"
        return "told" if found[1] else "another-value"

    return read


def _media(folder: Path) -> Callable[[int], str]:
    """Damaged images and videos."""
    from flowkit.config import FrameConfig
    from flowkit.errors import ClipError
    from flowkit.inputs.clip import Clip
    from flowkit.inputs.frames import read_frames

    honest = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}

    def read(number: int) -> str:
        draw = random.Random(number)
        name = draw.choice(list(honest))
        image = name.startswith("image")
        place = folder / "clip"
        place.mkdir(exist_ok=True)
        damaged = place / f"1{Path(name).suffix}" if image else folder / f"damaged{Path(name).suffix}"
        content = honest[name]
        head = bytes(mutated(content[:600], draw)) + content[600:] if draw.random() < 0.5 else mutated(content, draw)
        damaged.write_bytes(head)
        clip = Clip("c", "clip" if image else damaged.name, 1, 1, 1, "s", "d", "x")
        try:
            read_frames(clip, folder, FrameConfig(bit_depth=16))
        except ClipError as error:
            return f"refused {error.code}"
        finally:
            damaged.unlink()
        return "frames"

    return read


def main() -> None:
    """`fuzz_child.py KIND FOLDER FIRST COUNT`."""
    kind, folder, first, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    makers: dict[str, Callable[[], Callable[[int], str]]] = {
        "shards": lambda: _shards(folder, vouched=False),
        "vouched": lambda: _shards(folder, vouched=True),
        "json": lambda: _json(folder),
        "media": lambda: _media(folder),
    }
    read = makers[kind]()
    out = io.TextIOWrapper(os.fdopen(os.dup(1), "wb", 0), write_through=True)
    for number in range(first, count):
        out.write(f"begin {number}\n")
        try:
            outcome = read(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            outcome = f"exception {type(error).__name__}: {error}".replace("\n", " ")
        out.write(f"{number} {outcome}\n")


if __name__ == "__main__":
    main()
