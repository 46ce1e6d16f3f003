"""When a run logs, evaluates, saves and stops, and which model is the best."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.parity.harness import Case, Seen, as_parameters, check
from tests.parity.models import Net, Points

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2}
EVALUATED = {"evaluate": lambda: Points(20, seed=1)}


def absolute_error(prediction: Any) -> dict[str, float]:
    return {"mae": float(np.abs(prediction.predictions - prediction.label_ids).mean())}


def steps_of(seen: Seen, name: str) -> list[int]:
    return [entry["step"] for entry in seen.logs if name in entry]


LOGGING = [
    Case("log every third step", {**BASE, "logging_steps": 3}),
    Case("log the first step too", {**BASE, "logging_steps": 5, "logging_first_step": True}),
    Case("log by a share of the run", {**BASE, "logging_steps": 0.1}, shows=lambda s: len(steps_of(s, "loss")) == 8),
    Case("log by epoch", {**BASE, "logging_strategy": "epoch"}, shows=lambda s: steps_of(s, "loss") == [13, 26]),
    Case("log never", {**BASE, "logging_strategy": "no"}, shows=lambda s: steps_of(s, "loss") == []),
    Case("log the first step only", {**BASE, "logging_strategy": "no", "logging_first_step": True}),
    Case("a log interval past the end", {**BASE, "logging_steps": 500}),
]

EVALUATION = [
    Case("evaluate by epoch", {**BASE, "eval_strategy": "epoch"}, EVALUATED),
    Case("evaluate by steps", {**BASE, "eval_strategy": "steps", "eval_steps": 5, "logging_steps": 5}, EVALUATED),
    Case(
        "evaluate by a share of the run",
        {**BASE, "eval_strategy": "steps", "eval_steps": 0.25},
        EVALUATED,
        lambda seen: steps_of(seen, "eval_loss") == [7, 14, 21, 26],
    ),
    Case(
        "evaluate by the interval of the log",
        {**BASE, "eval_strategy": "steps", "logging_steps": 4},
        EVALUATED,
        lambda seen: steps_of(seen, "eval_loss") == [4, 8, 12, 16, 20, 24, 26],
    ),
    Case("evaluate at the start", {**BASE, "eval_strategy": "epoch", "eval_on_start": True}, EVALUATED),
    Case(
        "evaluate late, in steps",
        {**BASE, "eval_strategy": "steps", "eval_steps": 4, "eval_delay": 13},
        EVALUATED,
        lambda seen: steps_of(seen, "eval_loss") == [16, 20, 24, 26],
    ),
    Case(
        "evaluate late, in epochs",
        {**BASE, "eval_strategy": "epoch", "eval_delay": 2},
        EVALUATED,
        lambda seen: steps_of(seen, "eval_loss") == [26],
    ),
    Case(
        "evaluate with a metric over accumulation",
        {**BASE, "eval_strategy": "steps", "eval_steps": 2, "gradient_accumulation_steps": 3},
        {**EVALUATED, "compute_metrics": absolute_error},
        lambda seen: "eval_mae" in seen.last_logs,
    ),
    Case(
        "several sets to evaluate on",
        {**BASE, "eval_strategy": "epoch"},
        {"evaluate": lambda: {"near": Points(9, seed=1), "far": Points(7, seed=2)}, "compute_metrics": absolute_error},
        lambda seen: {"eval_near_mae", "eval_far_loss"} <= seen.last_logs.keys(),
    ),
]

BEST = {**BASE, "eval_strategy": "steps", "eval_steps": 4, "learning_rate": 0.05, "metric_for_best_model": "loss"}


def keeps(*steps: int) -> Any:
    return lambda seen: seen.files == sorted(f"checkpoint-{step}" for step in steps)


SAVING = [
    Case("save by steps", {**BASE, "save_strategy": "steps", "save_steps": 10}, shows=keeps(10, 20, 26)),
    Case("save by a share of the run", {**BASE, "save_strategy": "steps", "save_steps": 0.4}, shows=keeps(11, 22, 26)),
    Case("save by epoch", {**BASE, "save_strategy": "epoch"}, shows=keeps(13, 26)),
    Case("save by epoch, cut short", {**BASE, "save_strategy": "epoch", "max_steps": 20}, shows=keeps(13, 20)),
    Case(
        "save the last two",
        {**BASE, "save_strategy": "steps", "save_steps": 5, "save_total_limit": 2},
        shows=keeps(25, 26),
    ),
    Case(
        "save weights only",
        {**BASE, "save_strategy": "steps", "save_steps": 10, "save_only_model": True},
        shows=keeps(10, 20, 26),
    ),
    Case(
        "the best at the end, by steps",
        {**BEST, "save_strategy": "steps", "save_steps": 4, "load_best_model_at_end": True},
        EVALUATED,
        lambda seen: seen.state.best_global_step not in (None, 26),
    ),
    Case(
        "the best at the end, by epoch, with a limit of one",
        {
            **BEST,
            "num_train_epochs": 4,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "greater_is_better": True,
        },
        EVALUATED,
        keeps(13),
    ),
    Case(
        "the best by a metric that grows",
        {
            **BEST,
            "save_strategy": "steps",
            "save_steps": 4,
            "metric_for_best_model": "score",
            "load_best_model_at_end": True,
        },
        {**EVALUATED, "compute_metrics": lambda p: {"score": -absolute_error(p)["mae"]}},
        lambda seen: seen.state.best_metric < 0,
    ),
    Case(
        "the best by a metric that is said to fall",
        {
            **BEST,
            "save_strategy": "steps",
            "save_steps": 4,
            "metric_for_best_model": "eval_gap",
            "greater_is_better": False,
            "load_best_model_at_end": True,
        },
        {**EVALUATED, "compute_metrics": lambda p: {"gap": absolute_error(p)["mae"]}},
        lambda seen: seen.state.best_metric > 0,
    ),
    Case("save the best only", {**BEST, "save_strategy": "best"}, EVALUATED, lambda seen: 0 < len(seen.files) < 7),
    Case(
        "save the best only, keep one",
        {**BEST, "save_strategy": "best", "save_total_limit": 1, "load_best_model_at_end": True},
        EVALUATED,
        lambda seen: seen.files == [f"checkpoint-{seen.state.best_global_step}"],
    ),
    Case(
        "the best of several sets",
        {**BEST, "save_strategy": "steps", "save_steps": 4, "metric_for_best_model": "eval_far_loss"},
        {"evaluate": lambda: {"near": Points(9, seed=1), "far": Points(7, seed=2)}},
        lambda seen: seen.state.best_global_step is not None,
    ),
    Case(
        "evaluate and save at once, dropout and accumulation",
        {
            **BEST,
            "gradient_accumulation_steps": 2,
            "eval_steps": 2,
            "save_strategy": "steps",
            "save_steps": 2,
            "load_best_model_at_end": True,
        },
        {**EVALUATED, "model": lambda: Net(0.4)},
    ),
]


@as_parameters(LOGGING + EVALUATION + SAVING)
def test_reports_equal_the_originals(case: Case) -> None:
    check(case)
