"""The model card for people: what a pretrained network is, how it was made, what it is for, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

ORDINARY: Final = {"samples": 1000, "seed": 0, "size": 112, "form": "flow", "label_shares": "equal", "per_person": 25}
"""Defaults of `flowkit synth --level flow` for the options that a card names."""
FITS: Final = {
    "px": "shards of `flowkit extract` with its default alignment and solver, in pixels of the crop",
    "minmax": "shards of `flowkit import stst`: 28 x 28 pictures whose scale and zero are lost",
}
NOT_FOR: Final = (
    "It is not a lie detector, and it does not read minds: it says which of three groups of facial movement the flow resembles.",
    "Do not use it for decisions about people.",
    "The synthetic people have an adult face without glasses, beard, wrinkles or make-up, and move by action units in fixed "
    "proportions. Children, paralysis, speech and chewing were never seen.",
    "A score for a publication needs training with held-out subjects (`fmanet train`); this network can be its start "
    "(`--pretrained`).",
)


def card(content: Mapping[str, Any], measured: Mapping[str, Any] | None = None) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    content : mapping
        Of model.json.
    measured : mapping, optional
        Of measured.json: figures on other clips than synthetic ones.
    """
    parts = (
        _what(content),
        _made(content),
        _fits(content),
        _use(content),
        _figures(content, measured),
        ["## What it is not for", "", *(f"- {line}" for line in NOT_FOR)],
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def commands(content: Mapping[str, Any]) -> list[str]:
    """Return the commands that make the model."""
    made, folders = [], []
    for number, synth in enumerate(content["synth"], 1):
        folder = "samples" if len(content["synth"]) == 1 else f"samples-{number}"
        given = " ".join(
            f"--{name.replace('_', '-')} {synth[name]}" for name, usual in ORDINARY.items() if synth[name] != usual
        )
        made.append(f"flowkit synth --level flow {given} --out {folder}".replace("  ", " "))
        folders.append(folder)
    return [*made, f"fmanet pretrain {' '.join(folders)} --out model{_flags(content)}"]


def _flags(content: Mapping[str, Any]) -> str:
    changed = content["changes"]
    return "".join(f" --set {name}={value}" for name, value in changed.items())


def _what(content: Mapping[str, Any]) -> list[str]:
    network = content["network"]
    classes = ", ".join(content["classes"])
    return [
        f"# Pretrained {network['network']}, {content['units']}",
        "",
        "A light network that tells three groups of micro-expressions apart from dual-phase optical flow (onset to apex, apex to "
        f"offset): {classes} (the grouping `{content['grouping']}` of the MEGC challenges). Trained on synthetic faces only: "
        "nobody real is in its weights.",
    ]


def _made(content: Mapping[str, Any]) -> list[str]:
    trained, versions = content["trained_on"], content["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        "## How it was made",
        "",
        *(f"    {line}" for line in commands(content)),
        "",
        f"{trained['samples']} samples of {trained['people']} synthetic people, {trained['epochs']} epochs, on one thread "
        f"({named}). The same commands with the same versions give the same weights. Weights: `{content['weights']['name']}`, "
        f"SHA-256 `{content['weights']['sha256']}`.",
    ]


def _fits(content: Mapping[str, Any]) -> list[str]:
    return [
        "## What it fits",
        "",
        f"{FITS[content['units']][0].upper()}{FITS[content['units']][1:]}. Shards in other units, of another alignment or of an "
        "earlier flowkit are refused.",
    ]


def _use(content: Mapping[str, Any]) -> list[str]:
    return [
        "## How to use it",
        "",
        "    fmanet predict --pretrained shards --out answers.csv",
        "    fmanet train shards --pretrained --out run",
        "",
        "`fmanet predict --pretrained` chooses the shipped model for the units of the shards; `fmanet predict MODEL shards` takes "
        "a model folder.",
    ]


def _figures(content: Mapping[str, Any], measured: Mapping[str, Any] | None) -> list[str]:
    aside = {"name": "synthetic people set aside", **content["set_aside"]}
    tests: list[Mapping[str, Any]] = [aside, *(measured["tests"] if measured else ())]
    lines = [
        "## How far to trust it",
        "",
        _calibrated(content, measured),
        "",
        "| clips of | clips | people | UF1 | UAR | accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for test in tests:
        cells = (test["name"], test["clips"], test["people"], *(_value(test[name]) for name in ("uf1", "uar", "acc")))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    recalibrated = "temperature" in (
        measured or {}
    )  # the bands of the people set aside are of another temperature then
    lines += ["", *_bands(tests[1:] if recalibrated else tests)]
    if measured:
        lines += ["", *measured["notes"]]
    else:
        lines += ["", "It was not measured on real clips."]
    return lines


def _calibrated(content: Mapping[str, Any], measured: Mapping[str, Any] | None) -> str:
    if measured and "temperature" in measured:
        return f"Probabilities are calibrated on {measured['calibrated_on']} (temperature {measured['temperature']})."
    return f"Probabilities are calibrated on the synthetic people set aside (temperature {content['temperature']})."


def _bands(tests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Share right by the largest probability; how many clips in brackets."""
    yield "Share of right answers by their probability; how many clips in brackets:"
    yield ""
    edges = [f"{band['from']:g} to {band['to']:g}" for band in tests[0]["bands"]]
    yield f"| clips of | {' | '.join(edges)} |"
    yield f"| --- |{' --- |' * len(edges)}"
    for test in tests:
        cells = [
            f"{'-' if band['right'] is None else format(band['right'], '.2f')} ({band['clips']})"
            for band in test["bands"]
        ]
        yield f"| {test['name']} | {' | '.join(cells)} |"


def _value(found: float | Mapping[str, float]) -> str:
    """A score, with its 95 % interval over subjects where there is one."""
    if isinstance(found, Mapping):
        return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found:.3f}"
