"""What imports cost under `exec`: counted modules, beside those of the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surestep.optional import installed
from tests.compat.running import Ended, execute, python

COUNT = "import json, sys\n{}\nprint('FACTS', json.dumps({{'modules': sorted(sys.modules)}}))\n"
# What runs a name that is not offered here: the original's own module, under another name beside its stand-in.
ORIGINAL, STARTUP = "_the_original_", "sitecustomize"


def modules(run: Callable[..., Ended], code: str, folder: Path) -> set[str]:
    (folder / "script.py").write_text(COUNT.format(code))
    ended = run("script.py", folder=folder)
    assert ended.code == 0, ended.err
    return set(ended.facts["modules"])


def ours(found: set[str]) -> set[str]:
    return {name for name in found if name.partition(".")[0] == "surestep"}


@pytest.mark.parametrize("library", ["trl", "trl.trainer.sft_trainer", "sentence_transformers"], ids=lambda name: name)
def test_a_library_that_subclasses_loads_nothing_more_than_ours(tmp_path: Path, library: str) -> None:
    package = library.partition(".")[0]
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    stock = modules(python, f"import {library}", tmp_path)
    here = modules(execute, f"import {library}", tmp_path)
    more = {name for name in here - stock if not name.startswith(ORIGINAL)} - {STARTUP}

    assert more == ours(here), sorted(more - ours(here))
    assert len(here - ours(here)) <= len(stock) + len([name for name in here if name.startswith(ORIGINAL)]) + 1


def test_a_program_without_the_original_loads_one_module_more(tmp_path: Path) -> None:
    assert modules(execute, "", tmp_path) - modules(python, "", tmp_path) == {STARTUP}


def test_the_original_alone_loads_none_of_its_places_homes(tmp_path: Path) -> None:
    stock = modules(python, "import transformers", tmp_path)
    here = modules(execute, "import transformers", tmp_path)

    assert here - stock == {
        STARTUP,
        *("surestep", "surestep.compat", "surestep.compat.installing", "surestep.compat.stand_in"),
        *("surestep.compat.homes", "surestep.compat.older_top"),
    }


def test_the_trainer_takes_the_place_of_the_originals(tmp_path: Path) -> None:
    """The original's trainer and what it alone needs are not loaded: less than half of its modules."""
    code = "from transformers import Trainer, TrainingArguments"
    stock, here = modules(python, code, tmp_path), modules(execute, code, tmp_path)

    assert not {"accelerate", "datasets", "peft"} & here
    assert not [name for name in here if name.startswith(ORIGINAL)]
    assert len(here) < len(stock) / 2


def test_a_worker_that_loads_a_collator_loads_no_trainer(tmp_path: Path) -> None:
    loaded = modules(execute, "from transformers import DataCollatorWithPadding, EvalPrediction", tmp_path)

    assert "surestep.data.collators.padding" in loaded
    assert not {"surestep.trainer.trainer", "surestep.config.arguments"} & loaded
