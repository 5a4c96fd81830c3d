"""What each package lists in `__all__` is there, documented, and all that it shows; old names work with a warning."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

import flowkit
import flowkit_kernels
import fmanet

OLD = {"flowkit.shards": ("Shard", "ShardFolder", "COLUMNS", "shard_image"), "flowkit.index": ("Index",)}
TODAY = {"Shard": flowkit.Shard, "ShardFolder": flowkit.ShardFolder, "Index": flowkit.Index}


@pytest.mark.parametrize("package", [flowkit, flowkit_kernels, fmanet], ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_says_what_it_is(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        package.nothing_of_this_name  # noqa: B018 - it is the look that counts


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in OLD.items() for name in names])
def test_old_names_work_with_a_warning(module: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"^{module}\.{name}: .* Use flowkit\."):
        found = getattr(importlib.import_module(module), name)
    assert found is TODAY.get(name, found)


@pytest.mark.parametrize("module", OLD)
def test_an_old_module_has_no_other_names(module: str) -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        importlib.import_module(module).nothing_of_this_name  # noqa: B018
