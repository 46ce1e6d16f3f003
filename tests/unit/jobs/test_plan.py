"""Plans: the same numbers as the run that follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from surestep import TrainingArguments
from surestep.errors import JobError
from surestep.jobs.arguments import make_arguments
from surestep.jobs.job import Job, make_job
from surestep.jobs.memory import estimate, longest_samples
from surestep.jobs.plan import _rates, plan_job
from surestep.jobs.run import Request, run_job

EXAMPLES = Path(__file__).parents[3] / "examples"
ARGUMENTS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "logging_steps": 1,
    "disable_tqdm": True,
    "save_strategy": "no",
}


def _job(output: Path, **arguments: Any) -> Job:
    declared = {
        "task": {"name": "text_classification", "max_length": 16},
        "data": {"source": "messages.csv", "test": 0.2},
        "model": {"dim": 16, "num_layers": 1},
        "output_dir": str(output),
        "arguments": ARGUMENTS | arguments,
    }
    return make_job(declared, "messages")


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr_scheduler_type": "cosine", "warmup_steps": 3},
        {"lr_scheduler_type": "linear", "warmup_steps": 0.25},
        {"lr_scheduler_type": "constant"},
        {"max_steps": 7},
        {"num_train_epochs": 1.5},
    ],
    ids=str,
)
def test_the_plan_is_what_the_run_does(tmp_path: Path, arguments: dict[str, Any]) -> None:
    job = _job(tmp_path / "run", **arguments)
    plan = plan_job(job, EXAMPLES)
    assert not (tmp_path / "run").exists()
    found = run_job(Request(job, EXAMPLES, lambda text: None, lambda text: None)).results
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert plan.steps.max_steps == found["steps"] == max(logged)
    assert plan.steps.total_batch_size == 32
    planned = dict(plan.rates)
    assert set(planned) == set(logged)
    assert all(planned[step] == pytest.approx(logged[step], rel=1e-9, abs=1e-15) for step in logged)
    assert plan.sizes == {"train": 192, "test": found["scores"]["test"]["samples"]}


def test_groups_are_those_that_are_decayed_and_those_that_are_not(tmp_path: Path) -> None:
    plan = plan_job(_job(tmp_path), EXAMPLES)
    assert sum(group.parameters for group in plan.groups) == plan.parameters == plan.trainable
    assert [group.weight_decay for group in plan.groups] == [0.1, 0.0]
    assert {group.learning_rate for group in plan.groups} == {1e-2}


def test_rates_that_depend_on_scores_are_not_invented(tmp_path: Path) -> None:
    job = _job(tmp_path, lr_scheduler_type="reduce_lr_on_plateau", metric_for_best_model="loss", eval_strategy="epoch")
    job = job.model_copy(update={"data": job.data.model_copy(update={"validation": 0.2})})
    assert plan_job(job, EXAMPLES).rates == ((1, 1e-2),)


def test_a_schedule_without_a_formula_is_walked_through() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)

    optimizer, schedule = make()
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rates = _rates(make()[1], 100)
    assert len(rates) == 41
    assert all(rate == pytest.approx(expected[step - 1]) for step, rate in rates)
    assert _rates(make()[1], 1_000_000) == ((1, 0.5),)


def test_a_long_schedule_is_sampled(tmp_path: Path) -> None:
    rates = plan_job(_job(tmp_path, max_steps=1_000_000, lr_scheduler_type="cosine"), EXAMPLES).rates
    assert len(rates) == 41
    assert (rates[0], rates[-1][0]) == ((1, 1e-2), 1_000_000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"learning_rate": -1.0}, "arguments: learning_rate"),
        ({"learning_rat": 1.0}, "arguments: "),
        ({"resume_from_checkpoint": "x"}, "a job goes on by itself"),
        ({"overwrite_output_dir": True}, "give --fresh"),
        ({"eval_strategy": "epoch"}, "data.validation is not given"),
        ({"metric_for_best_model": "eval_f1"}, "'eval_f1' is not among the metrics of the job"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        plan_job(_job(tmp_path / "run", **arguments), EXAMPLES)
    assert list(tmp_path.iterdir()) == []


def test_older_spellings_of_arguments_are_taken(tmp_path: Path) -> None:
    job = _job(tmp_path, evaluation_strategy="no")
    with pytest.warns(FutureWarning, match="evaluation_strategy"):
        assert isinstance(make_arguments(job, "x"), TrainingArguments)


class _Network(nn.Module):
    """One hidden layer, whose saved tensors can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 20), nn.Linear(20, 4)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.second(torch.relu(self.first(inputs))), labels)


def _batch(size: int) -> dict[str, torch.Tensor]:
    return {"inputs": torch.randn(size, 10), "labels": torch.zeros(size, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("optimizer", "share"),
    [
        (lambda parameters: torch.optim.AdamW(parameters, lr=1e-3), 2.0),
        (lambda parameters: torch.optim.SGD(parameters, lr=1e-3), 0.0),
        (lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9), 1.0),
    ],
    ids=["adamw", "sgd", "momentum"],
)
def test_memory_is_what_can_be_counted_by_hand(optimizer: Any, share: float) -> None:
    model = _Network()
    model.second.bias.requires_grad_(False)
    weights = 4 * (10 * 20 + 20 + 20 * 4 + 4)
    trained = weights - 4 * 4
    memory = estimate(model, optimizer(model.parameters()), _batch, 50, None)
    assert memory.weights == weights
    assert memory.gradients == trained
    assert memory.optimizer == pytest.approx(share * trained, rel=0.01)
    # Of a sample: the input, the hidden layer, the log-probabilities, and the class; one number for the whole batch.
    assert memory.activations == pytest.approx(50 * (4 * 10 + 4 * 20 + 4 * 4 + 8), abs=16)
    assert memory.total == memory.weights + memory.gradients + memory.optimizer + memory.activations
    assert model.training


def test_lowered_precision_keeps_fewer_bytes() -> None:
    model = _Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    full, lowered = (estimate(model, optimizer, _batch, 50, dtype).activations for dtype in (None, torch.bfloat16))
    assert lowered < full


def test_the_longest_samples_are_measured() -> None:
    samples = [{"x": [0] * length} for length in (3, 9, 1, 5)]
    batch_of = longest_samples(samples, lambda picked: {"lengths": [len(sample["x"]) for sample in picked]})
    assert batch_of(2) == {"lengths": [9, 5]}
    assert batch_of(6) == {"lengths": [9, 5, 3, 1, 9, 5]}
