"""Names that are offered for scripts act as the original's: each beside it on a few inputs."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import hyperparameter_search, optimization, trainer, trainer_utils
from transformers.data import data_collator
from transformers.integrations import integration_utils

import surestep
from surestep import hyperparameter_search as our_search
from surestep.errors import ModelError
from surestep.trainer.search.backend import backend_class

FILES = (
    *("FSDP_MODEL_NAME", "OPTIMIZER_NAME", "OPTIMIZER_NAME_BIN", "SCALER_NAME", "SCHEDULER_NAME"),
    *("TRAINER_STATE_NAME", "TRAINING_ARGS_NAME"),
)


@pytest.mark.parametrize("name", FILES)
def test_files_have_their_names(name: str) -> None:
    assert getattr(surestep, name) == getattr(trainer, name)


def test_other_constants() -> None:
    assert surestep.PREFIX_CHECKPOINT_DIR == trainer_utils.PREFIX_CHECKPOINT_DIR
    assert surestep.DEFAULT_PROGRESS_CALLBACK is surestep.ProgressCallback
    assert trainer.DEFAULT_PROGRESS_CALLBACK is transformers.ProgressCallback
    for name in ("DataCollator", "InputDataClass", "DataClass", "DataClassType"):
        assert hasattr(surestep, name), "for annotations"


SCHEDULES: dict[str, dict[str, Any]] = {
    "get_constant_schedule": {},
    "get_constant_schedule_with_warmup": {"num_warmup_steps": 5},
    "get_linear_schedule_with_warmup": {"num_warmup_steps": 5, "num_training_steps": 30},
    "get_cosine_schedule_with_warmup": {"num_warmup_steps": 5, "num_training_steps": 30, "num_cycles": 1.2},
    "get_cosine_with_hard_restarts_schedule_with_warmup": {
        "num_warmup_steps": 5,
        "num_training_steps": 30,
        "num_cycles": 3,
    },
    "get_cosine_with_min_lr_schedule_with_warmup": {"num_warmup_steps": 5, "num_training_steps": 30, "min_lr": 0.01},
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate": {
        "num_warmup_steps": 5,
        "num_training_steps": 30,
        "min_lr_rate": 0.2,
        "warmup_lr_rate": 0.1,
    },
    "get_inverse_sqrt_schedule": {"num_warmup_steps": 5},
    "get_polynomial_decay_schedule_with_warmup": {"num_warmup_steps": 5, "num_training_steps": 30, "power": 2.0},
    "get_wsd_schedule": {"num_warmup_steps": 5, "num_decay_steps": 7, "num_training_steps": 30},
}
WATCHING: dict[str, dict[str, Any]] = {
    "get_greedy_schedule": {"patience": 1, "smooth": True, "window_size": 3},
    "get_reduce_on_plateau_schedule": {"patience": 1, "factor": 0.5},
}


def rates(room: Any, name: str, options: dict[str, Any], last_epoch: int | None = None) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    if last_epoch is not None:
        optimizer.param_groups[0]["initial_lr"] = 0.1
        options = {**options, "last_epoch": last_epoch}
    schedule = getattr(room, name)(optimizer, **options)
    noted = []
    for step in range(40):
        optimizer.step()
        schedule.step(*([1.0 + (step * 7 % 5)] if name in WATCHING else []))
        noted.append(optimizer.param_groups[0]["lr"])
    return noted


@pytest.mark.parametrize("last_epoch", [None, 12])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, last_epoch: int | None) -> None:
    assert rates(surestep, name, SCHEDULES[name], last_epoch) == rates(optimization, name, SCHEDULES[name], last_epoch)


@pytest.mark.parametrize("name", WATCHING)
def test_schedules_that_watch_a_metric(name: str) -> None:
    assert rates(surestep, name, WATCHING[name]) == rates(optimization, name, WATCHING[name])


def test_the_table_of_schedules() -> None:
    theirs = {kind.value: make.__name__ for kind, make in optimization.TYPE_TO_SCHEDULER_FUNCTION.items()}

    assert {kind.value: make.__name__ for kind, make in surestep.TYPE_TO_SCHEDULER_FUNCTION.items()} == theirs


def test_averages_of_a_stream() -> None:
    one, other = (room.StreamingAverage(3) for room in (surestep, optimization))

    assert [one.streamavg(value) for value in (1.0, 4.0, 2.0, 9.0)] == [
        other.streamavg(value) for value in (1.0, 4.0, 2.0, 9.0)
    ]


ROWS = [{"label": 1, "x": [1.0, 2.0]}, {"label": 0, "x": [3.0, 4.0]}]


@pytest.mark.parametrize("name", ["torch_default_data_collator", "numpy_default_data_collator"])
def test_stacking(name: str) -> None:
    one, other = (getattr(room, name)(ROWS) for room in (surestep, data_collator))

    assert one.keys() == other.keys()
    assert all(one[key].dtype == other[key].dtype and one[key].tolist() == other[key].tolist() for key in one)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [None, 4])
@pytest.mark.parametrize("name", ["_torch_collate_batch", "_numpy_collate_batch"])
def test_padding_token_ids(name: str, multiple: int | None, side: str) -> None:
    tokenizer = SimpleNamespace(pad_token="[PAD]", _pad_token="[PAD]", pad_token_id=9, padding_side=side)
    one, other = (
        getattr(room, name)([[1, 2, 3], [4]], tokenizer, pad_to_multiple_of=multiple)
        for room in (surestep, data_collator)
    )

    assert type(one) is type(other)
    assert one.tolist() == other.tolist()


def test_padding_without_the_advice_on_fast_tokenizers() -> None:
    said = {"Asking-to-pad-a-fast-tokenizer": False}
    seen = []
    tokenizer = SimpleNamespace(
        deprecation_warnings=said, pad=lambda features, **_: seen.append(dict(said)) or features
    )
    for room in (surestep, data_collator):
        assert room.pad_without_fast_tokenizer_warning(tokenizer, [1], padding=True) == [1]

    assert seen == [{"Asking-to-pad-a-fast-tokenizer": True}] * 2
    assert said == {"Asking-to-pad-a-fast-tokenizer": False}


@pytest.mark.parametrize("value", [torch.ones(2, requires_grad=True), np.ones(2), [1.0, 1.0]], ids=["t", "a", "l"])
def test_arrays_of_anything(value: Any) -> None:
    assert surestep.to_numpy(value).tolist() == data_collator.to_numpy(value).tolist() == [1.0, 1.0]
    assert surestep.tolist(value) == [1.0, 1.0]


def test_whole_words_are_masked_by_the_name_of_older_years() -> None:
    assert issubclass(surestep.DataCollatorForWholeWordMask, surestep.DataCollatorForLanguageModeling)
    assert surestep.DataCollatorForWholeWordMask(
        SimpleNamespace(mask_token="[M]"), mask_replace_prob=1.0, random_replace_prob=0.0
    ).whole_word_mask


def test_backends_of_a_search() -> None:
    theirs = {
        kind.value: backend.__name__
        for kind, backend in hyperparameter_search.ALL_HYPERPARAMETER_SEARCH_BACKENDS.items()
    }

    assert theirs == {"optuna": "OptunaBackend", "ray": "RayTuneBackend", "wandb": "WandbBackend"}
    for value, name in theirs.items():
        assert backend_class(value) is getattr(our_search, name)


class Draws(ModuleType):
    """Stands in for Ray Tune: every distribution is its name with its arguments."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given: (name, given)


def test_default_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Draws("ray")
    ray.tune = Draws("ray.tune")
    for module in (ray, ray.tune, ModuleType("wandb")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("surestep.optional.installed", lambda name: True)
    for name in ("is_wandb_available", "is_ray_tune_available"):
        monkeypatch.setattr(f"transformers.integrations.{name}", lambda: True)

    assert surestep.default_hp_space_wandb(None) == trainer_utils.default_hp_space_wandb(None)
    ours, theirs = surestep.default_hp_space_ray(None), trainer_utils.default_hp_space_ray(None)
    # A seed is a whole number: the original draws a fraction, which its arguments then cut.
    assert {**ours, "seed": None} == {**theirs, "seed": None}


def test_trackers_by_their_names_in_report_to(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {name: kind.__name__ for name, kind in integration_utils.INTEGRATION_TO_CALLBACK.items()}

    assert {name: kind.__name__ for name, kind in surestep.INTEGRATION_TO_CALLBACK.items()} == theirs
    assert len(surestep.INTEGRATION_TO_CALLBACK) == len(theirs)
    for asked in (None, "none", "tensorboard", ["tensorboard", "wandb"], []):
        names = [kind.__name__ for kind in surestep.get_reporting_integration_callbacks(asked)]
        assert names == [kind.__name__ for kind in integration_utils.get_reporting_integration_callbacks(asked)]
    assert surestep.get_available_reporting_integrations() == integration_utils.get_available_reporting_integrations()
    with pytest.raises(KeyError):
        _ = surestep.INTEGRATION_TO_CALLBACK["nothing"]


def test_the_folder_of_a_log() -> None:
    assert surestep.default_logdir()[:11] == integration_utils.default_logdir()[:11]


@pytest.mark.parametrize("deterministic", [True, False])
def test_seeds(deterministic: bool) -> None:
    drawn = []
    try:
        for room in (surestep, trainer_utils):
            room.set_seed(3, deterministic)
            assert torch.are_deterministic_algorithms_enabled() is deterministic
            drawn.append((torch.rand(2).tolist(), np.random.rand(2).tolist()))
    finally:
        torch.use_deterministic_algorithms(False)

    assert drawn[0] == drawn[1]


def test_quantised_models_are_looked_at() -> None:
    for room in (surestep, trainer_utils):
        room.validate_quantization_for_training(nn.Linear(1, 1))
    model = nn.Linear(1, 1)
    model.is_quantized, model.quantization_method = True, "bitsandbytes"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="purely quantized"):
        trainer_utils.validate_quantization_for_training(model)
    with pytest.raises(ModelError, match="has no adapters"):
        surestep.validate_quantization_for_training(model)
