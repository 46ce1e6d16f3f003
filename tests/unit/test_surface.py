"""The public face is complete, and does not change unnoticed."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import surestep
from surestep.training.callback import EVENTS

SURFACE = Path(__file__).with_name("surface.json")
REGENERATE = "python tests/unit/test_surface.py"
# Private methods that subclasses of the original override.
CENSUS = (
    "_determine_best_metric", "_evaluate", "_finalize_training", "_get_collator_with_removed_columns",
    "_get_dataloader", "_get_eval_sampler", "_get_learning_rate", "_get_num_items_in_batch", "_get_output_dir",
    "_get_train_sampler", "_inner_training_loop", "_load_best_model", "_load_from_checkpoint",
    "_load_optimizer_and_scheduler", "_load_rng_state", "_load_scaler", "_maybe_log_save_evaluate",
    "_move_model_to_device", "_prepare_input", "_prepare_inputs", "_remove_unused_columns", "_save",
    "_save_checkpoint", "_save_optimizer_and_scheduler", "_save_rng_state", "_save_scaler",
    "_set_signature_columns_if_needed", "_track_num_input_tokens",
)  # fmt: skip
# What a trainer that generates has of its own.
GENERATING = (
    "__init__", "evaluate", "load_generation_config", "predict", "prediction_step", "_pad_tensors_to_max_len",
)  # fmt: skip


def signature(function: Any) -> str:
    return str(inspect.signature(function))


def members(kind: type) -> list[str]:
    return sorted(name for name in dir(kind) if not name.startswith("_"))


def surface() -> dict[str, Any]:
    """Describe the public face as plain data."""
    trainer = surestep.Trainer
    methods = [name for name in members(trainer) if callable(getattr(trainer, name))]
    return {
        "names": sorted(surestep.__all__),
        "Trainer": {name: signature(getattr(trainer, name)) for name in ("__init__", *methods, *CENSUS)},
        "Seq2SeqTrainer": {name: signature(getattr(surestep.Seq2SeqTrainer, name)) for name in GENERATING},
        "TrainerCallback": {name: signature(getattr(surestep.TrainerCallback, name)) for name in EVENTS},
        "fields": {
            kind.__name__: [f"{field.name}: {field.type}" for field in dataclasses.fields(kind)]
            for kind in (surestep.TrainerState, surestep.TrainerControl)
        },
        "members": {
            kind.__name__: members(kind)
            for kind in (
                surestep.EvalLoopOutput,
                surestep.EvalPrediction,
                surestep.ExportableState,
                surestep.PredictionOutput,
                surestep.TrainOutput,
            )
        },
    }


def test_the_face_is_the_one_on_file() -> None:
    on_file = json.loads(SURFACE.read_text(encoding="utf-8"))
    now = surface()
    for part in now:
        assert now[part] == on_file.get(part), (
            f"The public surface has changed in '{part}'. If that is meant, write it down with: {REGENERATE}"
        )
    assert now.keys() == on_file.keys()


def test_all_names_are_sorted_and_can_be_imported() -> None:
    assert list(surestep.__all__) == sorted(surestep.__all__)
    for name in surestep.__all__:
        assert getattr(surestep, name).__name__ == name
    assert set(surestep.__all__) <= set(dir(surestep))


def test_a_star_imports_them_all() -> None:
    names: dict[str, Any] = {}
    exec("from surestep import *", names)

    assert set(surestep.__all__) <= names.keys()


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'surestep' has no attribute 'Trainr'"):
        _ = surestep.Trainr


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(surestep.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {(node.module, alias.name, alias.asname) for node in imports for alias in node.names if alias.name != "*"}

    assert seen == {(module, name, name) for module, names in surestep._HOMES.items() for name in names}


@pytest.mark.parametrize("kind", ["Trainer", "Seq2SeqTrainer"])
def test_methods_have_the_parameters_of_the_original(kind: str) -> None:
    import transformers

    theirs, ours = getattr(transformers, kind), getattr(surestep, kind)
    later = {"create_model_card"}
    for name in [name for name in dir(ours) if hasattr(theirs, name) and inspect.isfunction(getattr(ours, name))]:
        if name in later or (name.startswith("__") and name != "__init__"):
            continue
        one, other = (inspect.signature(getattr(kind, name)).parameters for kind in (theirs, ours))
        stock, mine = (
            {key: value.default for key, value in side.items() if value.kind is not value.VAR_KEYWORD}
            for side in (one, other)
        )
        assert list(mine)[: len(stock)] == list(stock), name
        # What the original demands may have a default here.
        assert {key: mine[key] for key, value in stock.items() if value is not inspect.Parameter.empty} == {
            key: value for key, value in stock.items() if value is not inspect.Parameter.empty
        }, name


def test_events_are_those_of_the_original_in_its_words() -> None:
    import transformers

    theirs = {name for name in dir(transformers.TrainerCallback) if name.startswith("on_")}
    assert set(EVENTS) == theirs
    for name in EVENTS:
        one, other = (
            list(inspect.signature(getattr(side.TrainerCallback, name)).parameters) for side in (transformers, surestep)
        )
        # `metrics` comes by keyword, as everything does; the original names it in one event and in no other.
        assert [parameter for parameter in one if parameter != "metrics"] == other, name


def test_the_page_of_compatibility_is_what_the_tables_say() -> None:
    from tests.unit.compat import page

    assert page.PAGE.read_text(encoding="utf-8") == page.text(), f"write it anew with: {page.COMMAND}"


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {SURFACE}")
