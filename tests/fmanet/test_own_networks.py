"""Anybody's network in the honest protocol: named in the command, tried before anything is written, guarded while it trains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner, Result
from made_clips import made_clips, made_shards

from flowkit.errors import ConfigError
from fmanet import networks, run_folder
from fmanet.cli import main
from fmanet.errors import LeakError
from fmanet.own_networks.guard import unopened
from fmanet.own_networks.naming import own_network
from fmanet.own_networks.probing import probe
from fmanet.scoring.prediction_table import read_table
from fmanet.settings import NetworkConfig

HEAD = """
import torch
from torch import nn

SHARDS = {shards!r}


class Good(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.randn(4))
        self.linear = nn.Linear(4, config.classes)

    def forward(self, flow, valid, region):
        seen = torch.where(valid[:, :, None, None, None], flow.float(), 0.0) * region[:, None, None]
        return self.linear(self.scale * seen.mean((-2, -1)).flatten(1))
"""
NETWORKS = {
    "Several": """
    def forward(self, flow, valid, region):
        found = super().forward(flow, valid, region)
        return found[:, None].expand(-1, 3, -1) if self.training else found
""",
    "Wide": """
    def forward(self, flow, valid, region):
        return super().forward(flow, valid, region).repeat(1, 2)
""",
    "WideInTraining": """
    def forward(self, flow, valid, region):
        found = super().forward(flow, valid, region)
        return found[:, :2] if self.training else found
""",
    "Listing": """
    def forward(self, flow, valid, region):
        return super().forward(flow, valid, region).tolist()
""",
    "Nan": """
    def forward(self, flow, valid, region):
        return super().forward(flow, valid, region) / 0
""",
    "Restless": """
    def forward(self, flow, valid, region):
        import random
        return super().forward(flow, valid, region) + random.random()
""",
    "Gregarious": """
    def forward(self, flow, valid, region):
        return super().forward(flow, valid, region) - flow.mean()
""",
    "Remembering": """
    seen = []

    def forward(self, flow, valid, region):
        found = super().forward(flow, valid, region)
        if self.training and len(flow) > 4:
            self.seen.append(flow)
        return found * (1 + len(self.seen))
""",
    "Sharing": """
    shared = nn.LayerNorm(3)

    def __init__(self, config):
        super().__init__(config)
        self.norm = self.shared

    def forward(self, flow, valid, region):
        return self.norm(super().forward(flow, valid, region))
""",
    "ReadingHdf5": """
    def forward(self, flow, valid, region):
        import glob, h5py
        if self.training and len(flow) > 4:
            for path in glob.glob(SHARDS + "/shards/**/*.h5", recursive=True):
                with h5py.File(path) as file:
                    file["label"][:]
        return super().forward(flow, valid, region)
""",
    "ReadingThroughUs": """
    def forward(self, flow, valid, region):
        from pathlib import Path
        from flowkit import ShardFolder
        if self.training and len(flow) > 4:
            for shard in ShardFolder.open(Path(SHARDS)).shards():
                list(shard.samples())
        return super().forward(flow, valid, region)
""",
    "ReadingTheIndex": """
    def forward(self, flow, valid, region):
        if not self.training and len(flow) == 3:
            open(SHARDS + "/run.json", "rb").read()
        return super().forward(flow, valid, region)
""",
}
CODE = HEAD + "\n".join(f"\nclass {name}(Good):{body}" for name, body in NETWORKS.items())
EXAMPLES = Path(__file__).parents[2] / "examples"
RESNET = """
import sys

import torch

try:
    import torchvision
except RuntimeError:  # built for another torch: its operators are missing, which a ResNet does not use
    for name in [one for one in sys.modules if one.startswith("torchvision")]:
        del sys.modules[name]
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.append({examples!r})
from resnet_mmcof import ResNetMMCOF
"""
FLAGS = ("--epochs", "1", "--workers", "1", "--set", "train.batch=8")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(networks, "_REGISTERED", dict(networks._REGISTERED))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("shards") / "casme2", subjects=4, size=32)


@pytest.fixture
def module(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module in the working folder, with networks that are good and bad."""
    path = tmp_path / "some_nets.py"
    path.write_text(CODE.replace("{shards!r}", repr(str(shards))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop("some_nets", None)


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_example_with_a_resnet_runs(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet_here.py").write_text(RESNET.replace("{examples!r}", repr(str(EXAMPLES))))
    command = [sys.executable, "-m", "fmanet.cli", "train", str(shards), "--network", "resnet_here:ResNetMMCOF"]
    flags = ("--protocol", "holdout", "--hold-out", "casme2/s00,casme2/s01", *FLAGS)
    done = subprocess.run(
        [*command, "--inputs", "mmcof", "--out", "run", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(read_table(Path("run/predictions.csv")).rows) == 6
    odd = subprocess.run([*command, "--out", "odd", *flags], capture_output=True, text=True, check=False)
    assert (odd.returncode, "inputs must be mmcof; got both" in odd.stderr) == (2, True), odd.stderr


@pytest.mark.parametrize("name", ["Good", "Several"])
def test_a_class_named_on_the_command_line_goes_through_the_whole_protocol(
    name: str, module: Path, shards: Path
) -> None:
    done = fmanet("train", shards, "--network", f"some_nets:{name}", "--out", "run", *FLAGS, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 4
    assert len(read_table(Path("run/predictions.csv")).rows) == 12
    stored = run_folder.open_run(Path("run"))[1].network.network
    assert stored == own_network(f"some_nets:{name}")
    assert "brought it along" in Path("run/report.html").read_text()


def test_the_code_of_a_stored_run_runs_only_if_it_is_named(module: Path, shards: Path) -> None:
    assert fmanet("train", shards, "--network", "some_nets:Good", "--out", "run", *FLAGS).exit_code == 0
    commands = {
        "predict": ("predict", "run", shards, "--out", "new.csv"),
        "report": ("report", "run"),
        "export": ("export", "run", "--out", "onnx", "--fold", "casme2.s00"),
    }
    spoilt = module.read_text() + "\nraise SystemExit('it was imported')\n"
    command = [sys.executable, "-m", "fmanet.cli"]
    honest = module.read_text()
    module.write_text(spoilt)
    for arguments in (*commands.values(), ("evaluate", "run"), ("settings", "--of", "run")):
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert "it was imported" not in done.stderr
        named = arguments[0] in commands
        assert done.returncode == (2 if named else 0), done.stderr
        assert not named or "Pass --network some_nets:Good" in done.stderr
    module.write_text(honest)
    for arguments in commands.values():
        done = subprocess.run(
            [*command, *map(str, arguments), "--network", "some_nets:Good"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_network_whose_source_has_changed_is_another(module: Path, shards: Path) -> None:
    command = [sys.executable, "-m", "fmanet.cli"]
    train = [*command, "train", str(shards), "--network", "some_nets:Good", "--out", "run", *FLAGS]
    assert subprocess.run(train, capture_output=True, check=False).returncode == 0
    module.write_text(module.read_text() + "\n# more\n")
    again = subprocess.run(train, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "network.network some_nets:Good@" in again.stderr
    report = subprocess.run(
        [*command, "report", "run", "--network", "some_nets:Good"], capture_output=True, text=True, check=False
    )
    assert (report.returncode, "the module was changed since" in report.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Wide", r"answers must be one logit for each of 3 classes, \(4, 3\); got \(4, 6\)"),
        ("WideInTraining", r"answers must be one logit for each of 3 classes, \(4, 3\); got \(4, 2\)"),
        ("Listing", "answers must be a tensor of logits; got list"),
        ("Nan", "answers must be finite"),
        ("Restless", "must depend on the seed alone|must not depend on the clips beside it"),
        ("Gregarious", "answers of one clip must not depend on the clips beside it"),
    ],
)
def test_a_network_that_breaks_the_protocol_is_refused_before_anything_is_written(
    name: str, says: str, module: Path, shards: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        probe(NetworkConfig(network=own_network(f"some_nets:{name}")), made_clips(2, 1))
    done = fmanet("train", shards, "--network", f"some_nets:{name}", "--out", "run", *FLAGS)
    assert done.exit_code == 2, done.stderr
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["Remembering", "Sharing", "ReadingHdf5", "ReadingThroughUs", "ReadingTheIndex"])
def test_a_planted_leak_ends_the_run(name: str, module: Path, shards: Path) -> None:
    """Whether a network remembers other folds or reads the held-out clips from the shards."""
    done = fmanet("train", shards, "--network", f"some_nets:{name}", "--out", "run", *FLAGS)
    assert done.exit_code == 2, done.stdout + done.stderr
    says = "must learn from the clips that it is given" if name.startswith("Reading") else "It keeps something of an"
    assert says in done.stderr
    assert not Path("run/scores.json").exists()


def test_one_video_under_two_names_is_caught_for_every_network(module: Path, shards: Path) -> None:
    done = fmanet("train", shards, shards, "--network", "some_nets:Good", "--out", "run", *FLAGS)
    assert (done.exit_code, "each clip must be there once" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("some_nets:Nobody", "some_nets has no Nobody"),
        ("nowhere_nets:Good", "nowhere_nets cannot be imported"),
        ("some_nets:SHARDS", "must be a class of networks"),
        ("some nets:Good", "must be one of fmanet, lda, svm, action-units, shallow, cnn, or package.module:Class"),
        ("some_nets:Good@0123456789ab", "its source must be that of 0123456789ab"),
        ("cnm", "is not one of"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(name: str, says: str, module: Path, shards: Path) -> None:
    done = fmanet("train", shards, "--network", name, "--out", "run", *FLAGS)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_the_guard_lets_other_files_be_and_goes_away(shards: Path, tmp_path: Path) -> None:
    file = next(shards.glob("shards/**/*.h5"))
    other = tmp_path / "mine.h5"
    with h5py.File(other, "w") as written:
        written["x"] = 1
    with unopened([shards], "mine"):
        with h5py.File(other):
            pass
        with pytest.raises(LeakError, match="network mine: it must learn from the clips"):
            h5py.File(file)
        with pytest.raises(LeakError):
            file.read_bytes()
        (tmp_path / "link").symlink_to(shards)
        with pytest.raises(LeakError):
            (tmp_path / "link" / "run.json").read_bytes()
    with h5py.File(file) as found:
        assert len(found["clip_id"]) == 12
