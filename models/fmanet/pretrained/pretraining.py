"""`pretrain`: a network trained on synthetic samples, its temperature and its trust found on synthetic people set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit._version import __version__
from flowkit.errors import ConfigError
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.provenance import versions_of
from flowkit.storage import durable_files, hashed_json
from flowkit.storage.schema import SHARD_SCHEMA
from fmanet import checkpoint
from fmanet.batches import derived_seed
from fmanet.building import State, build_network, load_weights
from fmanet.dataset import Clips
from fmanet.flow_origin import alignment
from fmanet.pretrained.card import card
from fmanet.pretrained.model_folder import CARD_FILE, KIND, MODEL_FILE, Model, read_model
from fmanet.pretrained.samples import load_samples
from fmanet.pretrained.settings import GROUPING, SIZE, PretrainSettings, defaults, start_settings
from fmanet.pretrained.start import tables_over
from fmanet.pretrained.trust import best_temperature, trust, with_temperature
from fmanet.protocol import inner_split
from fmanet.training import Trained, predict, train


def pretrain(
    samples: Sequence[Path],
    out: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Model:
    """Train a network on samples and write its model folder.

    Parameters
    ----------
    samples : sequence of Path
        Folders of `flowkit synth --level flow`.
    out : Path
        The model folder; made if need be.
    changes : mapping, optional
        What differs from `defaults`, as nested tables.
    overwrite : bool
        Replace the model that `out` holds.
    reporter : Reporter, optional
        Told of each epoch; silent by default.
    stop : Stop, optional
        Asked after each epoch; what was stopped wrote nothing.

    Returns
    -------
    Model
        The same samples, settings and versions give the same weights.

    Raises
    ------
    ConfigError, ShardCorrupt, TrainingImpossible, TrainingDiverged, DiskFull, Interrupted

    Examples
    --------
    >>> pretrain([Path("samples")], Path("model")).classes  # doctest: +SKIP
    ('negative', 'positive', 'surprise')
    """
    reporter, stop = reporter or Silent(), stop or Stop("pretrain", resumes=False)
    _refuse_full(out, overwrite)
    found = load_samples(samples, SIZE)
    stop.check()
    settings = _settings(found.clips, changes or {})
    kept, aside = inner_split(found.clips, settings.set_aside, settings.seed)

    trained = _trained(kept, settings, reporter, stop)
    model = build_network(settings.network, 0)
    load_weights(model, trained.state)
    shares = predict(model, aside, settings.train)
    temperature = best_temperature(shares, aside.target.numpy())
    content = {
        "schema": hashed_json.SCHEMA,
        "kind": KIND,
        "network": settings.network.to_dict(),
        "grouping": GROUPING,
        "classes": list(kept.classes),
        "units": kept.units,
        "size": SIZE,
        "face": "canonical" if all(kept.carried) else "own",
        "alignment": fitting(found.stands_for),
        "shard_schema": SHARD_SCHEMA,
        "flip_test": settings.train.flip_test,
        "temperature": temperature,
        "start_settings": start_settings(settings),
        "settings": settings.to_dict(),
        "changes": dict(_flat(changes or {})),
        "synth": [dict(one) for one in found.synth],
        "set_aside": trust(with_temperature(shares, temperature), aside),
        "trained_on": {"samples": len(kept), "people": len(set(kept.subject)), "epochs": trained.epochs},
        "versions": {"flowkit": __version__, **versions_of(("torch", "safetensors", "numpy"))},
    }
    return _publish(out, content, trained.state)


def _trained(clips: Clips, settings: PretrainSettings, reporter: Reporter, stop: Stop) -> Trained:
    def on_epoch(epoch: int, state: State) -> None:
        reporter.advance(1, 0)
        stop.check()

    reporter.start(settings.train.epochs)
    seed = derived_seed(settings.seed, "pretrain")
    try:
        return train(clips, settings.network, settings.train, seed, on_epoch=on_epoch)
    finally:
        reporter.finish()


def fitting(stands_for: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the alignments of shards that samples are like: where landmarks come from does not matter."""
    own = alignment(stands_for)
    if own["align"]["method"] == "none":
        return [own]
    return [{**own, "align": {**own["align"], "method": method}} for method in ("landmarks", "mediapipe")]


def _settings(clips: Clips, changes: Mapping[str, Any]) -> PretrainSettings:
    values = tables_over(defaults(clips.units).to_dict(), changes)
    values["network"]["classes"] = len(clips.classes)
    return PretrainSettings.from_dict(values)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _refuse_full(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: --out must be a folder; got a file. Choose another.")
    there = sorted(path.name for path in out.glob("*")) if out.is_dir() else []
    if (out / MODEL_FILE).exists() and not overwrite:
        raise ConfigError(
            f"{out}: --out must not hold a model; got one. Use another --out, or --overwrite to replace it."
        )
    if there and not (out / MODEL_FILE).exists():
        raise ConfigError(f"{out}: --out must be an empty folder; got one with {there[0]} in it. Choose another.")


def _publish(out: Path, content: Mapping[str, Any], state: State) -> Model:
    out.mkdir(parents=True, exist_ok=True)
    weights = durable_files.publish_hashed(out, "model-{}.safetensors", checkpoint.encode_weights(state))
    whole = {**content, "weights": weights}
    durable_files.replace_file(out / MODEL_FILE, hashed_json.encode(whole))
    model = read_model(out)
    durable_files.replace_file(out / CARD_FILE, card(model.content).encode())
    for path in out.glob("model-*.safetensors"):  # those of a model that was replaced
        if path.name != weights["name"]:
            path.unlink()
    return model
