"""The original's names at its module paths under `surestep`, and from `surestep` itself."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
from tests.unit.compat.paths import COMMAND, FOLDER, files, modules

import surestep
import surestep.trainer
from surestep.compat.homes import HOMES, offered
from surestep.errors import UnservedNameError


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_file_is_what_is_written_from_the_table(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == files()[path], f"write it anew with: {COMMAND}"


def test_the_folder_has_no_other_files() -> None:
    assert set(FOLDER.glob("*.py")) == {path for path in files() if path.parent == FOLDER}


@pytest.mark.parametrize("name", modules())
def test_a_module_has_the_names_of_the_original_as_they_live_here(name: str) -> None:
    module = importlib.import_module(f"surestep.{name}")

    for original in modules()[name]:
        for member, home in HOMES[original].items():
            assert getattr(module, member) == getattr(importlib.import_module(home), member), member


@pytest.mark.parametrize("name", sorted(offered()))
def test_the_package_itself_offers_every_name(name: str) -> None:
    assert getattr(surestep, name) == getattr(importlib.import_module(offered()[name]), name)
    assert name in dir(surestep)


def test_the_trainers_package_is_the_module_of_that_name() -> None:
    listed = {name: home for home, names in surestep.trainer._HOMES.items() for name in names}

    assert listed == HOMES["transformers.trainer"]
    assert surestep.trainer.Trainer is surestep.Trainer
    with pytest.raises(AttributeError, match=r"module 'surestep\.trainer' has no attribute 'Trainr'"):
        _ = surestep.trainer.Trainr


def test_the_collators_have_the_longer_path_too() -> None:
    from surestep.data import data_collator

    for name in HOMES["transformers.data.data_collator"]:
        assert getattr(data_collator, name) == getattr(surestep, name)


def test_a_name_that_is_left_out_says_why() -> None:
    with pytest.raises(UnservedNameError, match="it is accelerate's own class; import it from accelerate"):
        exec("from surestep import ParallelismConfig")
    with pytest.raises(AttributeError, match="module 'surestep' has no attribute '__wrapped__'"):
        _ = surestep.__wrapped__


def test_a_wheel_holds_the_modules_where_their_paths_say() -> None:
    """Editors and type checkers follow files, not the path of a package."""
    project = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    assert included == {f"src/surestep/compat/paths/{name}.py": f"surestep/{name}.py" for name in modules()}


def test_type_checkers_are_told_of_every_name() -> None:
    source = Path(surestep.__file__).read_text(encoding="utf-8")

    assert "    from surestep.compat.names import *" in source[source.index("if TYPE_CHECKING:") :]
