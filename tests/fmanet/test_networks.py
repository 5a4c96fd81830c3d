"""One registration makes a network known, a network from elsewhere too: to settings, commands, workers, ladder and report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_clips import made_shards

import fmanet
from flowkit.errors import ConfigError
from fmanet import checkpoint, networks, run_folder
from fmanet.ablation import ladder, rungs
from fmanet.building import build_network
from fmanet.cli import main
from fmanet.networks import INPUTS, OWN, all_networks, network_names, register_network
from fmanet.reports.run_report import write_report
from fmanet.run_options import RunOptions
from fmanet.scoring.prediction_table import read_table
from fmanet.settings import NetworkConfig, RunSettings, TrainSettings
from web_page import Page

TOY = """
import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.linear = nn.Linear(4, config.classes + {more})

    def forward(self, flow, valid, region):
        seen = torch.where(valid[:, :, None, None, None], flow.float(), 0.0) * region[:, None, None]
        return self.linear(self.scale * seen.mean((-2, -1)).flatten(1))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(networks, "_REGISTERED", dict(networks._REGISTERED))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module outside the package, with networks in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "toy_net.py").write_text(TOY.format(more=0))
    (folder / "odd_net.py").write_text(TOY.format(more=1))
    monkeypatch.syspath_prepend(folder)
    yield "toy_net:Toy"
    for name in ("toy_net", "odd_net"):
        sys.modules.pop(name, None)


def settings_of(network: str, **change: Any) -> RunSettings:
    return RunSettings(network=NetworkConfig(network=network, **change), train=TrainSettings(epochs=2, batch=8))


# ------------------------------------------------------------------------------------------------------- a network of your own


def test_a_network_from_elsewhere_goes_through_the_whole_protocol(toy: str, tmp_path: Path) -> None:
    shards = made_shards(tmp_path / "shards", subjects=3, size=32)
    source, out = fmanet.ClipSource((shards,), "3-class"), tmp_path / "run"
    fmanet.register_network(
        "toy", toy, inputs=("both", "rise"), origins=(("a notebook", "all of it"),), cite="Toy et al."
    )
    summary = fmanet.train_run(source, out, settings_of("toy"), RunOptions(workers=2))
    assert (summary.exit_code, summary.planned, summary.done) == (0, 3, 3)
    assert len(read_table(out / "predictions.csv").rows) == 9
    facts, settings, plan = run_folder.open_run(out)
    assert facts["settings"]["network"]["network"] == settings.network.network == "toy"
    loaded = checkpoint.load(run_folder.record_path(out, plan, plan.members[0]))
    assert set(loaded.model.state_dict()) == {"scale", "linear.weight", "linear.bias"}
    assert fmanet.predict_shards(out, [shards], tmp_path / "new.csv")
    page = Page(write_report(out))
    assert OWN in page.text
    assert ["a notebook", "all of it"] in page.rows
    assert "Cite flowkit (CITATION.cff), Toy et al., and each data set" in page.text
    assert "2510.07810" not in page.text
    again = fmanet.train_run(source, tmp_path / "again", settings_of("toy"), RunOptions(workers=1))
    assert again.scores == summary.scores
    networks._REGISTERED.pop("toy")
    with pytest.raises(ConfigError, match=r"run\.json: network must be one of .* got 'toy'\. .*register_network"):
        run_folder.open_run(out)


def test_a_stored_name_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_net.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="network must be one of"):
        NetworkConfig.from_dict({"network": "hostile_net:Net"})
    with pytest.raises(ConfigError, match="network must be one of"):
        RunSettings.from_dict({"network": {"network": "hostile_net:Net"}})


def test_a_name_may_be_the_place_of_the_network(toy: str) -> None:
    register_network(toy, toy)
    assert RunSettings.from_dict({"network": {"network": toy}}).network.network == toy


def test_every_layer_starts_from_the_seed(toy: str) -> None:
    register_network("toy", toy)
    config = NetworkConfig(network="toy")
    first, other = build_network(config, 3).state_dict(), build_network(config, 4).state_dict()
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    again = build_network(config, 3).state_dict()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["scale"], other["scale"])


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        ("odd_net:Toy", r"answers must be one logit for each of 3 classes, \(4, 3\); got \(4, 4\)"),
        ("toy_net:Elsewhere", "must be importable where networks are built; got module 'toy_net' has no attribute"),
        ("nowhere_net:Toy", "must be importable where networks are built; got No module named 'nowhere_net'"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_anything_is_written(
    toy: str, tmp_path: Path, builder: str, says: str
) -> None:
    register_network("mine", builder)
    source = fmanet.ClipSource((made_shards(tmp_path / "shards", subjects=2, size=32),), "3-class")
    with pytest.raises(ConfigError, match=f"network mine: .*{says}"):
        fmanet.train_run(source, tmp_path / "run", settings_of("mine"), RunOptions(workers=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "builder", "inputs", "says"),
    [
        ("a b", "net:Net", ("both",), "name must be letters, digits"),
        ("", "net:Net", ("both",), "name must be letters, digits"),
        ("mine", "net.Net", ("both",), "builder must be module:attribute"),
        (
            "mine",
            "__main__:Net",
            ("both",),
            "builder must be module:attribute, of a module that worker processes can import",
        ),
        ("mine", "net:Net", ("left",), "inputs must be some of both, rise, fall, cof, mmcof; got left"),
        ("mine", "net:Net", (), "inputs must be some of both, rise, fall, cof, mmcof; got none"),
        (
            "fmanet",
            "net:Net",
            ("both",),
            r"network fmanet: name must be that of one network; got another, built by net:Net",
        ),
    ],
)
def test_what_cannot_be_registered_is_told(name: str, builder: str, inputs: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        register_network(name, builder, inputs=inputs)
    assert network_names() == ("fmanet", "lda", "svm", "action-units", "shallow", "cnn")


def test_the_same_registration_twice_is_one() -> None:
    register_network("mine", "net:Net", inputs=["rise"])
    register_network("mine", "net:Net", inputs=["rise"])
    assert network_names()[-1] == "mine"
    with pytest.raises(ConfigError, match="inputs must be one of rise for 'mine'; got 'both'"):
        NetworkConfig(network="mine")
    assert len(ladder(RunSettings())) == 18  # the ladder is that of the method


# ------------------------------------------------------------------------------------------------------- those of flowkit


@pytest.mark.parametrize("network", all_networks(), ids=lambda network: network.name)
def test_a_network_is_built_and_explained_by_its_registration_alone(network: networks.Network) -> None:
    assert network.about
    assert network.origins
    assert network.ladder
    for inputs in INPUTS:
        if inputs in network.inputs:
            build_network(NetworkConfig(network=network.name, inputs=inputs), 0)
        else:
            with pytest.raises(ConfigError, match=f"inputs must be one of {', '.join(network.inputs)} for"):
                NetworkConfig(network=network.name, inputs=inputs)


def test_commands_and_settings_offer_what_is_registered() -> None:
    options = {option.name: option for option in main.commands["train"].params}
    assert tuple(options["network__network"].type.choices) == network_names()  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError,
        match=r"network\.network must be one of fmanet, lda, svm, action-units, shallow, cnn; got 'cnm'\. Did you mean cnn",
    ):
        RunSettings.from_dict({"network": {"network": "cnm"}})


def test_the_method_stands_at_the_end_of_the_ladder() -> None:
    found = [changes["network"] for _, changes in rungs()]
    assert found == ["lda"] * 2 + ["svm"] * 2 + ["action-units", "shallow"] + ["cnn"] * 5 + ["fmanet"] * 7
    assert rungs()[-1] == ("FMANet", {"inputs": "both", "network": "fmanet"})


# ------------------------------------------------------------------------------------------------------- the public names


def test_importing_the_package_loads_neither_torch_nor_the_kernels() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nimport fmanet\n"
        "light = {'torch', 'numpy', 'h5py', 'flowkit', 'flowkit_kernels'} & set(sys.modules)\n"
        "from fmanet import RunSettings, register_network\nimport fmanet.cli\n"
        "sys.exit(', '.join(sorted(light | {'torch', 'safetensors', 'cv2'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_no_module_has_it() -> None:
    assert sorted(fmanet.__all__) == sorted(fmanet._HOME)
    assert all(getattr(fmanet, name) is not None for name in fmanet.__all__)
    modules = {path.stem for path in Path(str(fmanet.__file__)).parent.glob("*.py")}
    assert not modules & set(fmanet.__all__)
    with pytest.raises(AttributeError, match="module 'fmanet' has no attribute 'nonsense'"):
        _ = fmanet.nonsense
