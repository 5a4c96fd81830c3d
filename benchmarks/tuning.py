"""Which settings to train with, asked of inner splits alone: no clip is ever predicted that its fold holds out.

    python benchmarks/tuning.py SHARDS --set network.floor_px=0 --try train.epochs=60 --try network.strain=true --out FILE

For every second fold of leave-one-subject-out, a quarter of the *training* subjects is set aside, a network is trained on the
rest, and predicts those set aside; UF1 of all such predictions together is one row. Each row, the base included, is a
configuration tried, and all of them are kept in the file: rows are added to those that are there.

What this cannot rule out: a fold's held-out subject is a training subject of the other folds, so the choice of settings has
seen everybody's labels, though never a held-out prediction.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import machine
from flowkit.settings_io import load_values
from flowkit_kernels.host import cores
from fmanet.batches import derived_seed
from fmanet.building import build_network
from fmanet.dataset import Clips, ShardDataset
from fmanet.metrics import score
from fmanet.protocol import Fold, inner_split, loso, split
from fmanet.settings import RunSettings
from fmanet.training import predict, train

SHARE = 0.25
"""Of the training subjects, set aside."""
_clips: dict[tuple[str, str], Clips] = {}


def clips_of(shards: str, grouping: str) -> Clips:
    """The clips, read once a process."""
    if (shards, grouping) not in _clips:
        _clips[shards, grouping] = ShardDataset([Path(shards)], grouping).clips()
    return _clips[shards, grouping]


def asked(shards: str, settings: RunSettings, fold: Fold, seed: int) -> list[tuple[str, str]]:
    """Truth and prediction of each clip that is set aside within the training side of a fold."""
    clips = clips_of(shards, settings.classes)
    training, _ = split(clips, fold)
    kept, aside = inner_split(training, SHARE, derived_seed(seed, fold.name, "tuning"))
    trained = train(kept, settings.network, settings.train, derived_seed(seed, fold.name))
    model = build_network(settings.network, 0)
    model.load_state_dict(trained.state)
    found = predict(model, aside, settings.train).argmax(1)
    return [(clips.classes[int(t)], clips.classes[int(p)]) for t, p in zip(aside.target, found, strict=True)]


def tried(pool: ProcessPoolExecutor, shards: str, changes: list[str], base: list[str], seeds: int) -> dict[str, Any]:
    """One configuration: UF1 for each seed over all inner splits."""
    settings = RunSettings.from_dict(load_values(None, [*base, *changes]))
    clips = clips_of(shards, settings.classes)
    folds = loso(clips)[::2]
    begin = time.perf_counter()
    uf1 = []
    for seed in range(seeds):
        jobs = [pool.submit(asked, shards, settings, fold, seed) for fold in folds]
        pairs = [pair for job in jobs for pair in job.result()]
        truth, said = zip(*pairs, strict=True)
        uf1.append(round(score(truth, said, clips.classes).uf1, 4))
    seconds = round(time.perf_counter() - begin, 1)
    return {
        "changes": changes,
        "uf1_by_seed": uf1,
        "uf1": round(sum(uf1) / seeds, 4),
        "folds": len(folds),
        "seconds": seconds,
    }


def main() -> None:
    """Try, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("--set", dest="base", action="append", default=[], help="setting of every row")
    parser.add_argument(
        "--try", dest="changes", action="append", default=[], help="settings of one row, blanks between"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    before = json.loads(options.out.read_text())["results"] if options.out.exists() else {"rows": []}
    rows, known = before["rows"], {json.dumps([row["base"], row["changes"]]) for row in before["rows"]}
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's threads
    with ProcessPoolExecutor(cores(), spawn) as pool:
        for text in ["", *options.changes]:
            changes = text.split()
            if json.dumps([options.base, changes]) in known:
                continue
            row = {"base": options.base, **tried(pool, options.shards, changes, options.base, options.seeds)}
            rows.append(row)
            sys.stdout.write(f"{row['uf1']:.4f} {row['uf1_by_seed']} {row['seconds']:6.1f} s  {text or '(base)'}\n")
            sys.stdout.flush()
            machine.write(options.out, "tuning", {"share_set_aside": SHARE, "tried": len(rows), "rows": rows})


if __name__ == "__main__":
    main()
