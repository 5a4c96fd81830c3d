"""`settings` of both programs: what is listed, what is written and taken back, what is refused, and words for a slip."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import flowkit.cli
import fmanet.cli
import version_0_1
from flowkit.config import ExtractConfig, load_config
from flowkit.errors import ConfigError
from flowkit.settings_classes import build
from flowkit.settings_io import listing, load_values, to_toml
from flowkit.storage import hashed_json
from flowkit.storage.run_file import stored_run
from fmanet.settings import RunSettings
from shard_builder import build_folder

PROGRAMS: dict[str, tuple[click.Group, Any]] = {
    "flowkit": (flowkit.cli.main, ExtractConfig),
    "fmanet": (fmanet.cli.main, RunSettings),
}
UNITS = {
    "frames.bit_depth": "bits",
    "frames.average": "frames",
    "align.size": "pixels",
    "tvl1.epsilon": "pixels",
    "tvl1.median_filtering": "pixels",
    "mmcof.floor_px": "pixels",
    "mmcof.border_px": "pixels",
    "size": "pixels",
    "network.working": "pixels",
    "network.floor_px": "the unit of the flow",
    "train.augment.rotation_deg": "degrees",
    "train.augment.translation_px": "pixels of the field",
    "train.augment.drift": "the unit of the flow",
}
PURE_NUMBERS = {
    "frames.index_base",
    *(f"tvl1.{name}" for name in ("tau", "lambda_", "theta", "scales", "scale_step", "warps")),
    *("tvl1.outer_iterations", "tvl1.inner_iterations", "shard.clips", "seeds"),
    *(f"mmcof.{name}" for name in ("theta_1", "theta_2", "alpha", "beta", "k", "c")),
    *(f"network.{name}" for name in ("classes", "grid", "streams", "width", "dropout", "power")),
    *(f"network.{name}" for name in ("theta_1", "alpha", "beta", "k", "c")),
    *(
        f"train.{name}"
        for name in ("epochs", "batch", "rate", "scalar_rate", "weight_decay", "mixup", "gamma", "inner_share")
    ),
    *("train.stack", "train.threads", "train.augment.flip", "train.augment.scale", "train.augment.gain"),
}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(program: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(PROGRAMS[program][0], [str(argument) for argument in arguments])


# ------------------------------------------------------------------------------------------------------- what is listed


def test_each_setting_has_an_effect_and_each_number_a_unit_or_none_on_purpose(program: str) -> None:
    for setting in listing(PROGRAMS[program][1]()):
        assert len(setting.effect) > 8, setting.name
        assert setting.effect[0].isupper() or setting.effect[0] in '"', setting.name
        assert setting.unit == UNITS.get(setting.name, ""), setting.name
        if type(setting.default) in (int, float) and not setting.unit:
            assert setting.name in PURE_NUMBERS, f"{setting.name}: give its unit, or list it as a pure number"


def test_the_listing_has_every_field(program: str) -> None:
    def fields(value: Any, prefix: str = "") -> dict[str, Any]:
        found = {}
        for field in dataclasses.fields(value):
            one = getattr(value, field.name)
            inner = dataclasses.is_dataclass(one)
            found |= fields(one, f"{prefix}{field.name}.") if inner else {f"{prefix}{field.name}": one}
        return found

    defaults = PROGRAMS[program][1]()
    assert {setting.name: setting.value for setting in listing(defaults)} == fields(defaults)
    rows = json.loads(run(program, "settings", "--json").stdout)
    assert [row["name"] for row in rows] == [setting.name for setting in listing(defaults)]
    assert {"value", "default", "unit", "effect", "choices"} <= set(rows[0])


def test_an_option_takes_each_value_of_its_setting_and_states_its_default(program: str) -> None:
    main, kind = PROGRAMS[program]
    settings = {setting.name.replace(".", "__"): setting for setting in listing(kind())}
    options = [
        (command.name, settings[option.name], option)
        for command in main.commands.values()
        for option in command.params
        if isinstance(option, click.Option) and isinstance(option.type, click.Choice) and option.name in settings
    ]
    assert options
    for command, setting, option in options:
        assert set(option.type.choices) == set(setting.choices), f"{command}: {setting.name}"
        assert f"[default: {setting.default}]" in (option.help or ""), f"{command}: {setting.name}"


def test_what_is_printed_shows_name_default_unit_and_effect() -> None:
    text = run("flowkit", "settings").stdout
    assert "[align]" in text
    assert "# Side of the square crop.\n# Unit: pixels. Default: 224.\nsize = 224\n" in text
    assert '# One of "none", "zstd". Default: "none".\ncompress = "none"\n' in text
    assert max(map(len, text.splitlines())) <= 100


# ---------------------------------------------------------------------------------------------------- there and back again


def read_back(program: str, file: Path) -> Any:
    cls = PROGRAMS[program][1]
    return build(cls, load_values(file))


def test_the_file_that_is_written_gives_the_same_fingerprint(program: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    done = run(program, "settings", "--out", file)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{file}\n", "")
    assert file.read_text() == run(program, "settings").stdout
    assert read_back(program, file).fingerprint() == PROGRAMS[program][1]().fingerprint()


def test_a_file_that_was_edited_changes_what_was_edited(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    run("flowkit", "settings", "--out", file)
    file.write_text(file.read_text().replace("lambda_ = 0.15", "lambda_ = 0.1"))
    assert load_config(file) == load_config(None, ["tvl1.lambda_=0.1"])


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return st.lists(_values(str), max_size=3).map(tuple)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    numbers = st.floats(allow_nan=False)
    return {bool: st.booleans(), int: st.integers(), float: numbers, str: texts}[hint]


@dataclasses.dataclass(frozen=True)
class _Inner:
    """A table.

    Attributes
    ----------
    number : float, in pixels
        What it does.
    names : tuple of str
        What they do.
    """

    number: float = 0.5
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Any:
    """Settings.

    Attributes
    ----------
    text : str
        What it does.
    table : _Inner
    flag : bool
        What it does.
    count : int
        What it does.
    choice : {"a", "b"}
        What it does.
    """

    text: str = ""
    table: _Inner = dataclasses.field(default_factory=_Inner)
    flag: bool = False
    count: int = 0
    choice: Literal["a", "b"] = "a"


@given(
    st.builds(
        _Any, _values(str), st.builds(_Inner, _values(float), _values(tuple[str, ...])), _values(bool), _values(int)
    )
)
def test_whatever_settings_hold_their_toml_holds_too(settings: _Any) -> None:
    assert build(_Any, tomllib.loads(to_toml(settings, ["Title"]))) == settings


def test_the_settings_of_a_folder_are_taken_back_to_its_fingerprint(undisturbed: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_bytes((undisturbed / "run.json").read_bytes())
    (old / "index.npz").write_bytes(b"")
    version_0_1.write_anew(old)
    for number, folder in enumerate((undisturbed, old)):
        file = tmp_path / f"{number}.toml"
        done = run("flowkit", "settings", "--of", folder, "--out", file)
        assert (done.exit_code, done.stderr) == (0, "")
        assert load_config(file).fingerprint() == stored_run(undisturbed)["fingerprint"]
        assert "size = 96" in file.read_text()


def test_a_file_that_is_known_by_its_content_is_named_for_the_user_to_write(tmp_path: Path) -> None:
    points = tmp_path / "landmarks.csv"
    points.write_text("clip_id,point,x,y\n")
    config = load_config(None, align__method="landmarks", align__landmarks=str(points), backend="cpu")
    folder = build_folder(tmp_path / "out")
    stored = {**stored_run(folder), "settings": config.to_dict(), "fingerprint": config.fingerprint()}
    (folder / "run.json").write_bytes(hashed_json.encode(stored))
    file = tmp_path / "settings.toml"
    done = run("flowkit", "settings", "--of", folder, "--out", file)
    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: align.landmarks: The file has the content sha256:")
    with pytest.raises(ConfigError, match=r"align\.landmarks must name a file"):
        load_config(file)
    assert load_config(file, [f"align.landmarks={points}"]).fingerprint() == config.fingerprint()


# ------------------------------------------------------------------------------------------------------ what is refused


def test_no_file_is_overwritten_unless_asked(program: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("mine")
    done = run(program, "settings", "--out", file)
    assert (done.exit_code, file.read_text()) == (2, "mine")
    assert "is there already. Choose another name, or pass --overwrite." in done.stderr
    assert run(program, "settings", "--out", file, "--overwrite").exit_code == 0
    assert tomllib.loads(file.read_text())


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_places_that_take_no_file_are_refused_in_words(program: str, tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    places = {
        tmp_path / "none" / "x.toml": "cannot be written (No such file or directory)",
        tmp_path / "file" / "x.toml": "cannot be written (Not a directory)",
        tmp_path: "is a",
    }
    for place, says in places.items():
        done = run(program, "settings", "--out", place, *more)
        assert (done.exit_code, done.stdout) == (2, "")
        assert says in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_settings_of_an_extraction_is_refused_in_words(tmp_path: Path) -> None:
    assert "got no run.json" in run("flowkit", "settings", "--of", tmp_path / "none").stderr
    out = build_folder(tmp_path / "out")
    stored = stored_run(out)
    imported = {**stored, "settings": {**stored["settings"], "import": {"from": "pictures"}}}
    (out / "run.json").write_bytes(hashed_json.encode(imported))
    assert "was imported, not extracted" in run("flowkit", "settings", "--of", out).stderr
    (out / "run.json").write_bytes((out / "run.json").read_bytes()[:-9])
    damaged = run("flowkit", "settings", "--of", out)
    assert damaged.exit_code == 1
    assert "must be as it was written" in damaged.stderr
    (out / "run.json").write_bytes(hashed_json.encode({"schema": hashed_json.SCHEMA, "kind": "fmanet run"}))
    other = run("flowkit", "settings", "--of", out)
    assert (other.exit_code, "must be one of flowkit extract; got another tool's" in other.stderr) == (2, True)
    (out / "run.json").write_bytes(hashed_json.encode({"schema": hashed_json.SCHEMA, "settings": 3}))
    assert run("flowkit", "settings", "--of", out).exit_code == 1


# -------------------------------------------------------------------------------------------------------------- a slip


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tvl1": {"lamda": 0.1}}, "settings: tvl1.lamda: unknown setting. Did you mean tvl1.lambda_?"),
        ({"tvl1": {"lambda": 0.1}}, "tvl1.lambda: unknown setting. Did you mean tvl1.lambda_?"),
        ({"lambda_": 0.1}, "settings: lambda_: unknown setting. Did you mean tvl1.lambda_?"),
        ({"size": 96}, "settings: size: unknown setting. Did you mean align.size?"),
        ({"tvl2": {"lambda_": 0.1}}, "settings: tvl2: unknown setting. Did you mean tvl1?"),
        ({"tvl1.lambda_": 0.1}, "tvl1.lambda_: unknown setting."),
        (
            {"shard": {"colour": 1}},
            "shard.colour: unknown setting. Known: shard.clips, shard.compress, shard.keep_faces.",
        ),
        ({"shard": {"compress": "zst"}}, "shard.compress must be one of none, zstd; got 'zst'. Did you mean zstd?"),
        ({"shard": {"compress": 3}}, "shard.compress must be one of none, zstd; got 3. Choose one of them."),
        ({"align": 3}, "align must be a table; got 3. Set align.NAME instead."),
        ({"tvl1": {"preset": "opencw"}}, "name must be one of micro, fixed, opencv; got 'opencw'"),
    ],
)
def test_a_slip_in_a_settings_file_is_named_with_what_was_meant(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExtractConfig.from_dict(values)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_slip_is_named_by_both_programs_wherever_it_is_made(tmp_path: Path) -> None:
    file = tmp_path / "slip.toml"
    for program, before, slip, meant in (
        ("flowkit", ("check", "clips.csv"), "tvl1.lamda", "tvl1.lambda_"),
        ("fmanet", ("train", "shards", "--out", "run"), "train.epoch", "train.epochs"),
    ):
        table, _, name = slip.partition(".")
        file.write_text(f"[{table}]\n{name} = 1\n")
        for flags in (("--set", f"{slip}=1"), ("--config", str(file))):
            done = run(program, *before, *flags)
            assert done.exit_code == 2
            assert f"{slip}: unknown setting. Did you mean {meant}?" in done.stderr
