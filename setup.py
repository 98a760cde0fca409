"""Builds the compiled wheel when `PLANARIA_COMPILE=1` asks for it; otherwise the wheel is pure, as pyproject.toml says.

The modules of `[tool.planaria.compiled]` in pyproject.toml are compiled by mypyc to one extension module, beside their
source files, which stay in the wheel. docs/performance.md has the gains; tests/rules/test_compiled.py has the
rules that a compiled module keeps.
"""

import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).resolve().parent
BUILDS = {"bdist_wheel", "build_ext"}
"""Other commands ask for requirements or metadata, and need no extension modules."""


def extensions(modules: list[str]) -> list[Any]:
    from mypyc.build import mypycify  # noqa: PLC0415 - not there until the build's requirements are installed

    # The modules' names begin with "planaria", whatever the name of the checkout's folder.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "planaria").symlink_to(ROOT, target_is_directory=True)
        os.environ["MYPYPATH"] = folder
        paths = [f"{folder}/{module.replace('.', '/')}.py" for module in modules]
        # `make types` has checked the types.
        options = ["--config-file=", "--cache-dir=build/mypyc", "--ignore-missing-imports"]
        return mypycify([*options, *paths], opt_level="3", multi_file=True, group_name="planaria")


def settings() -> dict[str, Any]:
    if os.environ.get("PLANARIA_COMPILE") != "1":
        return {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    compiled = project["tool"]["planaria"]["compiled"]
    # mypyc reads the types of imported modules.
    requires = [compiled["compiler"], *project["project"]["dependencies"]]
    modules = extensions(compiled["modules"]) if BUILDS & set(sys.argv) else []
    return {"setup_requires": requires, "ext_modules": modules}


# Named, so that this file is not taken for a module of the package, whose folder is this one.
setup(script_name=__file__, **settings())
