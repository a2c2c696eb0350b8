"""What docs/diffusion.md names can be imported from its package."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs/diffusion.md").read_text()
SECTION = re.compile(r"^### `([a-z_/]+)`\n(.*?)(?=^##|\Z)", re.M | re.S)
NAMED = {
    module.replace("/", "."): re.findall(r"^\| `(\w+)", table, re.M)
    for module, table in SECTION.findall(PAGE)
}
PACKAGES = ["diffjax.diffusion"] + [
    f"diffjax.diffusion.{name}" for name in ("likelihood", "sampling", "training")
]


def in_package(package):
    """The modules of a package, each with the names that the page has of it."""
    prefix = package.removeprefix("diffjax.diffusion").lstrip(".")
    return {
        module.rpartition(".")[2]: names
        for module, names in NAMED.items()
        if module.rpartition(".")[0] == prefix
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_what_the_page_names_and_its_modules_stay_modules(package):
    modules = in_package(package)
    assert modules
    loaded = importlib.import_module(package)
    wanted = []
    for module, names in modules.items():
        source = importlib.import_module(f"{package}.{module}")
        assert getattr(loaded, module) is source
        for name in names:
            if name not in modules:
                assert getattr(loaded, name) is getattr(source, name)
                wanted.append(name)
    assert sorted(loaded.__all__) == sorted(wanted)
