"""Settings: TOML, assignments and flags, checked all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowkit.config import ExtractConfig, load_config
from flowkit.errors import ConfigError
from flowkit.settings_io import differences
from flowkit_kernels import TVL1Params


def test_the_later_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('backend = "cpu"\n[align]\nsize = 96\n[tvl1]\nlambda_ = 0.2\ntheta = 0.4\n')
    config = load_config(file, ["tvl1.lambda_=0.1", "align.size=112"], align__size=128, align__match_light=None)
    assert (config.backend, config.tvl1.lambda_, config.tvl1.theta, config.align.size) == ("cpu", 0.1, 0.4, 128)


def test_a_preset_is_the_base_that_assignments_change() -> None:
    config = load_config(None, ["tvl1.preset=opencv", "tvl1.lambda_=0.1"])
    assert config.tvl1 == TVL1Params(**{**_plain(TVL1Params.preset("opencv")), "lambda_": 0.1})


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["align.size=7", "tvl1.lambda=0.1", "shard.compress=gzip", "tvl1.warps=many", "colour=3"])
    told = str(caught.value)
    for part in (
        "align.size must be from",
        "tvl1.lambda: unknown setting. Did you mean tvl1.lambda_?",
        "shard.compress must be one of",
        "tvl1.warps",
    ):
        assert part in told
    assert "colour: unknown setting. Known: frames, align, tvl1, mmcof, shard, backend." in told


@pytest.mark.parametrize("text", ["tvl1.lambda_", "=3", ""])
def test_an_assignment_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must look like"):
        load_config(None, [text])


def test_settings_survive_json() -> None:
    config = load_config(None, ["align.size=64", "mmcof.gate=hard"])
    assert ExtractConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_fingerprint_sees_every_setting_and_nothing_else(tmp_path: Path) -> None:
    base = ExtractConfig()
    assert base.fingerprint() == load_config(None, ["tvl1.preset=micro"]).fingerprint()
    assert base.fingerprint() != load_config(None, ["mmcof.floor_px=0.06"]).fingerprint()
    points = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, text in zip(points, ("same", "same", "other"), strict=True):
        path.write_text(text)
    prints = [load_config(None, align__method="landmarks", align__landmarks=str(p)).fingerprint() for p in points]
    assert prints[0] == prints[1] != prints[2]


def test_differences_name_the_setting_and_both_values() -> None:
    old, new = ExtractConfig().to_dict(), load_config(None, ["tvl1.lambda_=0.1"]).to_dict()
    assert differences(old, new) == ["tvl1.lambda_ 0.15 -> 0.1"]


def _plain(params: TVL1Params) -> dict[str, object]:
    return {name: getattr(params, name) for name in params.__dataclass_fields__}
