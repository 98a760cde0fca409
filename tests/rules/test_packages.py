"""Rule: the packages listed in pyproject.toml are exactly the folders with Python files in them."""

import re
import tomllib

from source_tree import PACKAGE, ROOT, package_sources


def tree_packages() -> set[str]:
    return {source.package for source in package_sources()}


def differences(listed: list[str], found: set[str]) -> list[str]:
    return [
        *(f"{name}: in the tree, not in pyproject.toml" for name in sorted(found - set(listed))),
        *(f"{name}: in pyproject.toml, not in the tree" for name in sorted(set(listed) - found)),
        *(f"{name}: listed twice" for name in sorted({name for name in listed if listed.count(name) > 1})),
    ]


def project() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_listed_packages_are_the_tree() -> None:
    listed = project()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    assert differences(listed, tree_packages()) == []


def test_every_package_has_an_init_file() -> None:
    paths = {source.path for source in package_sources()}
    folders = {path.rpartition("/")[0] for path in paths}
    assert [folder for folder in folders if f"{folder}/__init__.py".lstrip("/") not in paths] == []


def test_version_is_stated_alike_everywhere() -> None:
    version = project()["project"]["version"]
    stated = re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(), re.MULTILINE)
    assert stated is not None
    assert stated[1] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_rule_sees_a_missing_a_surplus_and_a_repeated_package() -> None:
    found = {PACKAGE, "planaria.new"}
    assert differences([PACKAGE, PACKAGE, "planaria.gone"], found) == [
        "planaria.new: in the tree, not in pyproject.toml",
        "planaria.gone: in pyproject.toml, not in the tree",
        "planaria: listed twice",
    ]
