"""Every form that a method of the trainer ever had can be written in a subclass: it runs, is told, or is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from surestep import Trainer
from surestep.trainer.older_names import GONE_METHODS, POINTS, UNCALLED
from tests.small import Points, quick
from tests.unit.config.test_releases import RELEASES

METHODS: dict[str, dict[str, str]] = RELEASES["methods"]
ONCE = {point.once for point in POINTS.values()} | {"get_optimizers", "_prediction_loop"}
# Of parts that have no counterpart: reached through nothing that is served.
BEHIND = {
    "_add_sm_patterns_to_gitignore", "_align_special_tokens", "_deepspeed_sp_compute_loss",
    "_defer_fsdp_gradient_reduction", "_finish_current_push", "_fsdp_qlora_plugin_updates", "_has_mixed_mesh_grads",
    "_is_attention_mask_causal", "_maybe_log_save_evalute", "_mixed_mesh_grad_norm",
    "_push_from_checkpoint", "_sync_replicated_trainable_parameters", "_tune_save_checkpoint", "init_git_repo",
    "propagate_args_to_deepspeed",
}  # fmt: skip
# Called by users, or in runs that these are not.
BY_OTHERS = {"create_model_card", "hyperparameter_search", "init_hf_repo", "push_to_hub", "train"}


def names_of(form: str) -> list[str]:
    return [one.partition("=")[0] for one in form.split(", ")] if form else []


def overriding(name: str, form: str) -> tuple[type[Trainer], list[str]]:
    """Return a subclass with a method of that form, which hands over to `super()` in the words of its time."""
    calls: list[str] = []
    static = isinstance(vars_of(name), staticmethod)
    given = ", ".join(names_of(form))
    own = "" if static else "self, "
    handed = f"Trainer.{name}({given})" if static else f"super(Mine, self).{name}({given})"
    source = f"def {name}({own}{form}):\n    calls.append('{name}')\n    return {handed}\n"
    space: dict[str, Any] = {"calls": calls, "Trainer": Trainer, "__name__": __name__}
    exec(source, space)
    method = staticmethod(space[name]) if static else space[name]
    space["Mine"] = type("Mine", (Trainer,), {name: method})
    return space["Mine"], calls


def vars_of(name: str) -> Any:
    return next(vars(kind)[name] for kind in Trainer.__mro__ if name in vars(kind))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_every_release_has_an_answer(name: str) -> None:
    assert hasattr(Trainer, name) or name in {*UNCALLED, *GONE_METHODS, *ONCE, *BEHIND}


OLD_FORMS = [
    (name, form)
    for name, forms in METHODS.items()
    for form in list(forms)[:-1] if name in vars(Trainer) or hasattr(Trainer, name)
    if name not in BY_OTHERS | UNCALLED.keys()
]  # fmt: skip


def write_and_read(trainer: Trainer) -> None:
    trainer.train()
    trainer.evaluate()
    trainer.predict(Points(4))


def settings() -> dict[str, Any]:
    return {
        "save_strategy": "epoch", "eval_strategy": "epoch", "eval_dataset": Points(4), "logging_steps": 2,
        "gradient_accumulation_steps": 2, "learning_rate": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "form"), OLD_FORMS, ids=[f"{name}({form})" for name, form in OLD_FORMS])
def test_an_old_form_runs_and_changes_nothing(tmp_path: Path, name: str, form: str) -> None:
    import torch

    plain = quick(tmp_path / "plain", **settings())
    plain.train()
    kind, calls = overriding(name, form)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = quick(tmp_path / "old", kind, **settings())
        write_and_read(trainer)

    told = [str(one.message) for one in caught if one.category is FutureWarning]
    if name in POINTS and names_of(form) != list(POINTS[name].names):
        assert calls
        assert len([line for line in told if f"write {name}(" in line]) == 1
    assert torch.equal(plain.model.layer.weight, trainer.model.layer.weight)
    assert (tmp_path / "old" / "checkpoint-3").is_dir()


@pytest.mark.parametrize("name", POINTS)
def test_the_table_has_the_parameters_of_today(name: str) -> None:
    import inspect

    parameters = list(inspect.signature(getattr(Trainer, name)).parameters.values())
    if not isinstance(vars_of(name), staticmethod):
        parameters = parameters[1:]
    names = [one.name for one in parameters if one.name not in POINTS[name].supply]
    assert list(POINTS[name].names) == names
    assert {one.name for one in parameters if one.default is not one.empty} >= POINTS[name].defaults.keys()


@pytest.mark.parametrize("name", GONE_METHODS)
def test_what_nothing_calls_any_more_is_told(tmp_path: Path, name: str) -> None:
    kind = type("Mine", (Trainer,), {name: lambda self, *_, **__: None})

    with pytest.warns(FutureWarning, match=rf"Nothing calls Mine\.{name} any more\. In its place: "):
        quick(tmp_path, kind)
