"""A trained network as an ONNX file that other programs run: the same answers as here, checked before the file is published.

    flow, valid, region -> network, and once more in the mirror if the run predicts so -> logits, probabilities

Each network of a run becomes a file of its own: that of one fold and seed, which never saw the subjects that its fold held out.
A run with --final has one that saw everybody.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from flowkit import __version__
from flowkit.errors import ConfigError, EnvironmentMissing
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.listing import listed
from flowkit.storage import durable_files, hashed_json
from flowkit.storage.schema import ACTION_UNITS
from fmanet import checkpoint, run_folder
from fmanet.building import answers_each, seen_names
from fmanet.dataset import MAX_SIZE, MIN_SIZE
from fmanet.errors import CheckpointRefused, ExportMismatch, FoldsMissing
from fmanet.loss import LEAST, probabilities
from fmanet.plan import Member, Plan, member_keys
from fmanet.transforms import flip

EVERY_FOLD: Final = "all"
INPUTS: Final = ("flow", "valid", "region", "action_units")
"""The last one only of networks that see it."""
OUTPUTS: Final = ("logits", "probabilities")
TOLERANCE: Final = 1e-4
"""Largest difference from PyTorch that an exported network may show, in logits and in probabilities."""
CHECKED_BATCHES: Final = (1, 7)
LIBRARIES: Final = ("onnx", "onnxscript", "onnxruntime")
TOLD: Final = {
    "size": int,
    "flip_test": bool,
    "grouping": str,
    "units": str,
    "face": str,
    "fold": str,
    "seed": int,
    "held_out": list,
    "epochs": int,
}
"""What a record must say of its network, and as what."""
NOISE: Final[tuple[tuple[type[Warning], str], ...]] = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"# The axis name: batch will not be used, since it shares the same shape constraints"),
)
"""What PyTorch's exporter says about itself, by category and beginning; nothing that a user could act on."""
NOISY_LOGGER: Final = "torch.onnx._internal.exporter._registration"
LAYOUT: Final = {
    "flow": "(batch, 2 phases: rise, fall, 2 components: u right, v down, size, size) float32, in `units` (px of this size); with "
    "`face` canonical as flowkit.canonical_flow gives it, where a clip has landmarks",
    "valid": "(batch, 2) bool: whether rise and fall hold motion",
    "region": "(batch, size, size) bool: inside the face, on the same grid",
    "action_units": "(batch, 2: apex, offset, action units) float32: strengths in cm, as shards have them (au_hint); 0: unknown",
    "logits": "(batch, classes) float32; their softmax are the probabilities; of action units, their sigmoid",
    "probabilities": "(batch, classes) float32, in the order of `classes`; those of action units are each by itself",
}
Arrays = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network: its file, the JSON beside it, and the largest difference from PyTorch that was found."""

    model: Path
    facts: Path
    difference: float


class Predictor(nn.Module):
    """A network with the last steps of `training.predict`, in float32: the mean over the mirror image, and probabilities.

    Parameters
    ----------
    network : nn.Module
        Set to evaluate.
    mirrored : bool
        Average the probabilities over each clip and its mirror image.
    """

    def __init__(self, network: nn.Module, mirrored: bool) -> None:
        super().__init__()
        self.network, self.mirrored = network, mirrored
        self.eval()

    def forward(
        self, flow: Tensor, valid: Tensor, region: Tensor, action_units: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, 2, 2, H, W), (B, 2), (B, H, W), (B, 2, U) -> logits, and what they mean, (B, classes) each.

        Action units are given to networks that see them, and to no other.
        """
        given = (flow, valid, region, *([] if action_units is None else [action_units]))
        if not self.mirrored:
            logits: Tensor = self.network(*given)
        else:  # clips and mirror images pass together: half the graph of two passes
            views = zip(given, flip(*given), strict=True)
            both = self.network(*(torch.cat(pair) for pair in views)).unflatten(
                0, (2, -1)
            )  # (2 B, classes) -> (2, B, classes)
            if answers_each(self.network):
                shares = both.sigmoid().mean(0)
                return torch.logit(shares, LEAST), shares
            logits = both.log_softmax(-1).logsumexp(0) - math.log(2)  # the mean of probabilities, as a logarithm
        return logits, probabilities(logits, each=answers_each(self.network))


def export_onnx(
    run: Path,
    out: Path,
    *,
    fold: str | None = None,
    seed: int | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> list[Exported]:
    """Write networks of a run as ONNX, each with a JSON beside it that says what it takes and where it comes from.

    The number of clips at a time is free; the size of the flow is the run's.

    Parameters
    ----------
    run : Path
        A run folder.
    out : Path
        Folder of the files; made if need be. Files of the same name are replaced.
    fold : str, optional
        Name of a fold; every fold, if left out or "all".
    seed : int, optional
        Every seed, if left out.
    reporter : Reporter, optional
        Told of each network; silent by default.
    stop : Stop, optional
        Asked before each network.

    Returns
    -------
    list of Exported

    Raises
    ------
    ConfigError
        No run, fold or seed of that name.
    FoldsMissing, CheckpointRefused, ShardCorrupt
        What was to be exported is not there, or damaged.
    EnvironmentMissing
        The libraries of the extra `onnx` are not installed.
    ExportMismatch
        An exported network does not answer as PyTorch does; it was not published.
    DiskFull
    Interrupted
        Files that were written stay, whole.
    """
    reporter, stop = reporter or Silent(), stop or Stop("export")
    libraries = _libraries()
    facts, _, plan = run_folder.open_run(run)
    run_folder.refuse_earlier(run, facts)
    keys = member_keys(plan, facts["fingerprint"], facts["clips"]["digest"])
    chosen = _chosen(plan, fold, seed)
    untrained = [plan.title(member) for member in chosen if not run_folder.read_record(run, plan, member, keys[member])]
    if untrained:
        raise FoldsMissing(
            f"{run}: a network must be trained before it is exported; got none of {listed(untrained)}. Run the same fmanet "
            "train again."
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    reporter.start(len(chosen))
    try:
        for member in chosen:
            stop.check()
            written.append(_export(libraries, run, out, plan, member))
            reporter.advance(1, 0)
    finally:
        reporter.finish()
    return written


def _chosen(plan: Plan, fold: str | None, seed: int | None) -> list[Member]:
    """Networks that a fold's name and a seed choose."""
    names = [one.name for one in plan.folds]
    if fold not in (None, EVERY_FOLD, *names):
        raise ConfigError(
            f"export: --fold must be one of {listed(names)}, or {EVERY_FOLD}; got {fold!r}. Name one of them."
        )
    if seed not in (None, *plan.seeds):
        raise ConfigError(f"export: --seed must be one of {listed(plan.seeds)}; got {seed}. Name one of them.")
    return [
        member
        for member in plan.members
        if fold in (None, EVERY_FOLD, names[member.fold]) and seed in (None, member.seed)
    ]


def _export(libraries: Mapping[str, Any], run: Path, out: Path, plan: Plan, member: Member) -> Exported:
    path = run_folder.record_path(run, plan, member)
    loaded = checkpoint.load(path)
    _check_told(loaded.content, path)
    predictor = Predictor(loaded.model, loaded.content["flip_test"])
    size = loaded.content["size"]
    facts = _facts(loaded, size)
    content = onnx_bytes(predictor, size, facts, libraries)
    difference = largest_difference(predictor, content, size, libraries)
    name = f"{loaded.network.network.replace(':', '.')}-{plan.folds[member.fold].name}-seed-{member.seed}"
    if not difference <= TOLERANCE:
        raise ExportMismatch(
            f"{out / name}.onnx: answers must be PyTorch's within {TOLERANCE:g}; got a difference of {difference:g}. The file was "
            "not written: report this, with the versions that pip list names."
        )
    model, side = out / f"{name}.onnx", out / f"{name}.json"
    file = {"name": model.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    check = {"largest_difference": difference, "tolerance": TOLERANCE, "batches": list(CHECKED_BATCHES)}
    layout = {name: LAYOUT[name] for name in (*seen_names(loaded.model), *OUTPUTS)}
    told = {"schema": hashed_json.SCHEMA, "file": file, **facts, "layout": layout, "check": check}
    durable_files.replace_file(model, content)
    durable_files.replace_file(side, json.dumps(told, indent=1).encode() + b"\n")
    return Exported(model, side, difference)


def _check_told(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a record that a run did not write; a size from it decides how much memory is taken."""
    odd = [name for name, kind in TOLD.items() if type(content.get(name)) is not kind]
    if odd or not MIN_SIZE <= content["size"] <= MAX_SIZE:
        raise CheckpointRefused(
            f"{path}: record must hold {', '.join(TOLD)}, and a size from {MIN_SIZE} to {MAX_SIZE}; got others for "
            f"{listed(odd) or 'size'}. Do not trust this file: restore it from a copy, or train again."
        )


def _facts(loaded: checkpoint.Checkpoint, size: int) -> dict[str, Any]:
    """What a user of the file has to know; also inside it, as its metadata."""
    content = loaded.content
    return {
        "classes": list(loaded.classes),
        "grouping": content["grouping"],
        "units": content["units"],
        "size": size,
        "face": content["face"],
        "action_units": list(ACTION_UNITS),
        "alignment": content.get("alignment", []),
        "network": loaded.network.to_dict(),
        "mirrored": content["flip_test"],
        "fold": content["fold"],
        "seed": content["seed"],
        "held_out": content["held_out"],
        "epochs": content["epochs"],
        "weights_sha256": content["weights"]["sha256"],
        "versions": {"flowkit": __version__, "torch": torch.__version__},
    }


def onnx_bytes(
    predictor: Predictor, size: int, facts: Mapping[str, Any], libraries: Mapping[str, Any] | None = None
) -> bytes:
    """A network as the bytes of an ONNX file.

    Parameters
    ----------
    predictor : Predictor
    size : int
        Side of the flow, in pixels.
    facts : mapping
        What the file says of itself: its metadata_props, each value as JSON, texts as they are.
    libraries : mapping, optional
        The imported libraries by name.

    Raises
    ------
    EnvironmentMissing
    """
    onnx = (libraries or _libraries())["onnx"]
    batch, names = torch.export.Dim("batch"), seen_names(predictor.network)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            predictor,
            random_clips(2, size)[: len(names)],
            dynamo=True,
            input_names=names,
            output_names=OUTPUTS,
            dynamic_shapes={name: {0: batch} for name in names},
            external_data=False,
            verbose=False,
        )
        model = cast(Any, program).model_proto
    _forget_sources(model.graph)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def largest_difference(
    predictor: Predictor, content: bytes, size: int, libraries: Mapping[str, Any] | None = None
) -> float:
    """How far onnxruntime's answers are from PyTorch's, on random clips with valid and invalid phases; infinite if not a number.

    Parameters
    ----------
    predictor : Predictor
    content : bytes
        Of an ONNX file.
    size : int
        Side of the flow, in pixels.
    libraries : mapping, optional
        The imported libraries by name.
    """
    runtime = (libraries or _libraries())["onnxruntime"]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for clips in CHECKED_BATCHES:
        names = seen_names(predictor.network)
        arrays = random_clips(clips, size)[: len(names)]
        found = session.run(list(OUTPUTS), {name: t.numpy() for name, t in zip(names, arrays, strict=True)})
        with torch.no_grad():
            wanted = predictor(*arrays)
        apart = [float((torch.from_numpy(own) - one).abs().max()) for own, one in zip(found, wanted, strict=True)]
        largest = max(largest, *(value if math.isfinite(value) else math.inf for value in apart))
    return largest


def random_clips(clips: int, size: int) -> Arrays:
    """What networks see of clips that nobody filmed, always the same: every pair of valid phases takes its turn."""
    generator = torch.Generator().manual_seed(clips)
    flow = torch.randn(clips, 2, 2, size, size, generator=generator)
    numbers = torch.arange(clips)
    valid = torch.stack([numbers % 4 < 2, numbers % 2 < 1], dim=1)  # both, rise, fall, none
    region = torch.rand(clips, size, size, generator=generator) < 0.8
    action_units = torch.randn(clips, 2, len(ACTION_UNITS), generator=generator) * (numbers % 3 > 0)[:, None, None]
    return flow, valid, region, action_units


def _forget_sources(graph: Any) -> None:
    """Remove what the exporter notes of the machine and of the code: paths of files, and stack traces."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of `NOISE`, and no remark that torchvision, which nothing here needs, is not installed."""
    logger = logging.getLogger(NOISY_LOGGER)
    with warnings.catch_warnings():
        for category, message in NOISE:
            warnings.filterwarnings("ignore", message, category)
        logger.addFilter(_is_news)
        try:
            yield
        finally:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("torchvision is not installed")


def _libraries() -> dict[str, Any]:
    """The libraries of the extra `onnx`, by name.

    Raises
    ------
    EnvironmentMissing
    """
    found = {}
    for name in LIBRARIES:
        try:
            with _quiet():
                found[name] = importlib.import_module(name)
        except ImportError as error:
            raise EnvironmentMissing(
                f"export: {', '.join(LIBRARIES)} must be installed; got {name}: {error}. Install the extra onnx: "
                "pip install 'flowkit-mer[onnx]'."
            ) from error
    return found
