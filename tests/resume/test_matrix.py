"""Runs of 40 steps that break off after one step and the next, for every pair of what data and arguments can be.

Each piece makes one step, or a few, in a trainer of its own, from the checkpoint that the piece before has left. All
pieces together must be the run that nothing interrupted: every micro-batch, and all that it came to, to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.trackers.jsonl import LOG_NAME, read_log
from tests.parity.compare import CLOCK
from tests.parity.models import Points, Sentences, Tagger, pad
from tests.resume.test_draws import DRAWS, Augmented, RestlessNet

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
STEPS = 40
# 30 samples in batches of 4: the last one is shorter, and so is, of three batches, the last step of an epoch.
SIZE = 30


class NoisySentences(Sentences):
    """Sentences of which a token is drawn anew."""

    def __init__(self, module: str, size: int = SIZE) -> None:
        super().__init__(size)
        self.module = module

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        tokens = sample["input_ids"].clone()
        tokens[index % len(tokens)] = 1 + int(1000 * abs(DRAWS[self.module]())) % 23
        return {**sample, "input_ids": tokens}


class Stream(IterableDataset[Any]):
    """Points with noise, shared out among workers; it tells its position."""

    def __init__(self, module: str) -> None:
        self.points, self.at, self.begin = Augmented(SIZE, module), 0, 0

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        part = range(SIZE) if info is None else range(info.id, SIZE, info.num_workers)
        self.at, self.begin = self.begin, 0
        for number in part[self.at :]:
            self.at += 1
            yield self.points[number]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.begin = state["at"]


def table(module: str) -> Any:
    points = Points(SIZE)
    rows = [{name: torch.as_tensor(value).tolist() for name, value in points[number].items()} for number in range(SIZE)]

    def noisy(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "x": [value + 0.1 * DRAWS[module]() for value in row["x"]]}

    return datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=2).map(noisy).with_format("torch")


DATA: dict[str, Callable[[str], Any]] = {
    "map": lambda module: Augmented(SIZE, module),
    "by length": NoisySentences,
    "stream": Stream,
    "datasets": table,
}
FACTORS: dict[str, tuple[Any, ...]] = {
    "data": tuple(DATA),
    "module": tuple(DRAWS),
    "evaluated": ("", "between", "stops"),
    "workers": (0, 2),
    "accumulation": (1, 3),
}


@dataclass(frozen=True)
class Case:
    """A row: what is read, by how many workers, what it draws with, and what is done between two steps."""

    data: str
    module: str
    evaluated: str
    workers: int
    accumulation: int

    @property
    def steps(self) -> int:
        """When the run ends: its patience of six evaluations that are as good as the first does so before."""
        return 35 if self.evaluated == "stops" else STEPS

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value)


def pairs(case: Case) -> set[tuple[Any, ...]]:
    return set(itertools.combinations(asdict(case).items(), 2))


def covering(cases: list[Case]) -> list[Case]:
    """Return some of the cases, in which every pair of two values is there; always the one with most new pairs."""
    left, chosen = set().union(*map(pairs, cases)), []
    while left:
        chosen.append(max(cases, key=lambda case: len(pairs(case) & left)))
        left -= pairs(chosen[-1])
    return chosen


EVERY = [Case(*values) for values in itertools.product(*FACTORS.values())]
SOME = covering(EVERY)


@dataclass
class BreaksOff(TrainerCallback):
    """Breaks a run off once a step is saved."""

    step: int | None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@dataclass
class Ended:
    """What a run, or all pieces of one, came to."""

    trace: list[tuple[int, list[Any], float]] = field(default_factory=list)
    trainer: Any = None


class Traced(Trainer):
    ended: Ended

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        seen = inputs["number"] if "number" in inputs else inputs["input_ids"]
        self.ended.trace.append((self.state.global_step, seen.tolist(), loss.item()))
        return loss


def flat(prediction: Any) -> dict[str, float]:
    del prediction
    return {"flat": 0.0}


def train(folder: Path, case: Case, ended: Ended, step: int | None = None) -> None:
    """Train, or go on, until a step is saved, or to the end."""
    torch.manual_seed(3)
    sentences = case.data == "by length"
    settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if sentences else {}
    evaluation: dict[str, Any] = {}
    if case.evaluated:
        settings |= {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "flat"}
        settings |= {"greater_is_better": True}
        one = NoisySentences(case.module, 7) if sentences else Augmented(9, case.module, seed=1)
        evaluation = {"eval_dataset": one, "compute_metrics": flat}
    patience = [EarlyStoppingCallback(6)] if case.evaluated == "stops" else []
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=case.accumulation,
        dataloader_num_workers=case.workers,
        max_steps=STEPS,
        logging_steps=3,
        learning_rate=1e-2,
        save_steps=1,
        save_total_limit=2,
        **settings,
    )
    trainer = Traced(
        Tagger(0.3) if sentences else RestlessNet(0.3),
        arguments,
        data_collator=pad if sentences else None,
        train_dataset=DATA[case.data](case.module),
        callbacks=[*patience, BreaksOff(step)],
        **evaluation,
    )
    trainer.ended = ended
    trainer.train(resume_from_checkpoint=True)
    ended.trainer = trainer


def assert_same(whole: Ended, pieces: Ended) -> None:
    assert pieces.trace == whole.trace
    one, other = whole.trainer, pieces.trainer
    assert torch.equal(flattened(one.model.state_dict()), flattened(other.model.state_dict()))
    assert torch.equal(flattened(one.optimizer.state_dict()["state"]), flattened(other.optimizer.state_dict()["state"]))
    for name in ("global_step", "epoch", "best_metric", "best_global_step", "total_flos"):
        assert getattr(one.state, name) == getattr(other.state, name), name
    assert timeless(one.state.log_history) == timeless(other.state.log_history)
    first, second = (read_log(Path(ended.trainer.args.output_dir) / LOG_NAME) for ended in (whole, pieces))
    assert timeless(first) == timeless(second)


def flattened(state: Mapping[Any, Any]) -> Tensor:
    parts = [flattened(value) if isinstance(value, Mapping) else value.double().flatten() for value in state.values()]
    return torch.cat(parts)


def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "time" and not k.endswith(CLOCK)} for entry in entries]


def check(case: Case, folder: Path, breaks: range) -> None:
    """Compare a run with one that breaks off once each of these steps is saved."""
    whole, pieces = Ended(), Ended()
    train(folder / "whole", case, whole)
    assert whole.trainer.state.global_step == case.steps
    assert whole.trainer.state.epoch > 1.5
    for step in breaks:
        with pytest.raises(KeyboardInterrupt):
            train(folder / "pieces", case, pieces, step)
    train(folder / "pieces", case, pieces)
    assert_same(whole, pieces)


@pytest.mark.parametrize(("number", "case"), list(enumerate(SOME)), ids=[case.name for case in SOME])
def test_a_run_in_pieces_is_the_run(number: int, case: Case, tmp_path: Path) -> None:
    """With workers, which take long to start, it breaks off at every eleventh step, at others from row to row."""
    every = 11 if case.workers else 1
    check(case, tmp_path, range(1 + 2 * number % every, case.steps + 1, every))


@pytest.mark.soak
@pytest.mark.parametrize("case", EVERY, ids=[case.name for case in EVERY])
def test_a_run_in_forty_pieces_is_the_run(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, range(1, case.steps + 1))


def test_some_rows_have_every_pair() -> None:
    assert set().union(*map(pairs, SOME)) == set().union(*map(pairs, EVERY))
    assert len(SOME) <= 14
