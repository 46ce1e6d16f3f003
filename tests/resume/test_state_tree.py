"""Nothing that a run changes is missing from its checkpoints: each leaf of a trainer, before and after a resume."""

from __future__ import annotations

import copy
import shutil
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torchmetrics

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.averaging import EMACallback, SWACallback
from surestep.callbacks.freezing import FreezeCallback
from surestep.callbacks.trackers.tracker import Tracker
from surestep.engine.precision import ScaledAutocast
from surestep.optim.averaging import WeightAverage
from surestep.optim.greedy import GreedyLR
from surestep.optim.schedules import StepSchedule
from surestep.training.run import Run
from surestep.training.state import TrainerControl
from surestep.training.tally import Tally
from tests.parity.models import CountingTagger, Documents, Net, Points, PointStream, Sentences, pad
from tests.parity.tiny import llama
from tests.resume.state_tree import differing, leaves

_LOOK = "what the look at each step notes of its group, anew in each"
_SESSION = "of this process: for its speeds and its messages"
_DISK = "what this process knows of the disk, and is asked again where it does not"
# What may differ, by a pattern of its path, and why.
EXEMPT = {
    "trainer._start_time": _SESSION,
    "trainer._first_step": _SESSION,
    "trainer._first_num_input_tokens_seen": _SESSION,
    "trainer.*<begun_at>": _SESSION,
    "trainer.*train_runtime": _SESSION,
    "trainer.*_per_second": _SESSION,
    "trainer.*eval_runtime": _SESSION,
    "trainer.resume_report*": "what this process was resumed from",
    "trainer.*.watch._answer._began_with": "what this process was resumed from",
    "trainer._save_seconds": "a clock",
    "trainer._saved_at": _DISK,
    "trainer._saves._tried": _DISK,
    "trainer.*._expected*": _DISK,
    "trainer.*._newest": _DISK,
    "trainer._model_files": _DISK,
    "trainer.*__self__._log._size": "times in the file have more digits or fewer",
    "trainer.*__self__._restored*": "read from the checkpoint, where the log has not gone back yet",
    "trainer.*.__self__._known*": "which entries the tracker's run has: asked where one is gone on with",
    "trainer.*.__self__._record*": "the same object as in the row above",
    "trainer.*.watch._answer._before*": _LOOK,
    "trainer.*.watch._before*": _LOOK,
    "trainer.*.watch._group*": _LOOK,
    "trainer.*.watch._losses*": _LOOK,
    "trainer.*.eval_dataloader*": "made anew for each evaluation",
    "trainer.*.precision._stepped": "whether the step at hand was made, written in each",
    "trainer.*.precision._watched": "the optimizer that tells of its steps, once it has made one",
    "trainer.*model*:training": "the first micro-batch puts a model that an evaluation left back into training",
    "trainer._count_used": "told by the code of the loss, and asked of it again: it may have been mended",
    "trainer._num_weights": "a count of the model's weights, kept once it was asked for",
    "trainer.current_gradient_accumulation_steps": "of the group at hand, set when it begins",
    "trainer.*._order._done": "where this pass over the loader began: the position counts",
}


@dataclass(frozen=True)
class Row:
    """A configuration, and the steps to resume from. `shows` must hold for the leaves at the last of them."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Callable[[], Any]] = field(default_factory=dict)
    steps: tuple[int, ...] = (3, 7)
    shows: Callable[[Trainer], bool] = lambda trainer: trainer.state.global_step == 10


class Snapshots(TrainerCallback):
    """Takes every leaf before each step, and keeps the output folder as some saves have left it."""

    def __init__(self, aside: Path, steps: tuple[int, ...]) -> None:
        self.aside, self.steps = aside, steps
        self.trainer: Any = None
        self.taken: dict[int, dict[str, Any]] = {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kept = self.aside / str(state.global_step)
        if state.global_step in self.steps and not kept.exists():
            shutil.copytree(args.output_dir, kept)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Not itself.
        taken, self.taken, trainer, self.trainer = self.taken, {}, self.trainer, None
        taken[state.global_step] = leaves(trainer)
        self.taken, self.trainer = taken, trainer


def trained(scratch: Path, row: Row, step: int = 0) -> tuple[Trainer, dict[int, dict[str, Any]]]:
    """Train, from a step on, and return every leaf before each step and, under the next number, at the end.

    A run that goes on from a step finds the output folder as it was when that was saved.
    """
    folder, aside = scratch / "run", scratch / "aside"
    if step:
        shutil.rmtree(folder)
        shutil.copytree(aside / str(step), folder)
    torch.manual_seed(3)
    made = {name: make() for name, make in row.options.items()}
    common = {
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "max_steps": 10,
        "logging_steps": 4,
        "learning_rate": 1e-2,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    snapshots = Snapshots(aside, row.steps)
    snapshots.trainer = trainer = Trainer(
        args=TrainingArguments(str(folder), **{**common, **row.arguments}),
        callbacks=[*made.pop("callbacks", []), snapshots],
        **{"model": Net(0.3), "train_dataset": Points(30), **made},
    )
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}") if step else None)
    snapshots.on_step_begin(trainer.args, trainer.state, trainer.control)
    return trainer, snapshots.taken


class Spoiled(Points):
    """Points of which two give no finite loss."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] / 0} if index in (7, 3) else sample


class Blown(Net):
    """Overflows in float16 from time to time, so that the loss scale moves."""

    def __init__(self) -> None:
        super().__init__(0.3)
        self.calls = torch.nn.Buffer(torch.tensor(0))

    def forward(self, **inputs: Any) -> Any:
        found = super().forward(**inputs)
        self.calls += self.training
        return {**found, "loss": found["loss"] * (3.0 if int(self.calls) % 7 == 5 else 1e-3)}


class Asks(TrainerCallback):
    """Asks for a log, an evaluation and a save at a step of its own."""

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = control.should_evaluate = state.global_step % 3 == 0


class Kept(Tracker):
    """A tracker whose runs are numbered by a client that forgets nothing."""

    opened: ClassVar[list[str]] = []

    def open_run(self, args: Any, state: Any, model: Any) -> None:
        if self.run_id is None:
            self.run_id = f"run {len(self.opened)}"
            self.opened.append(self.run_id)

    def send(self, entry: Any) -> None:
        pass


EVALUATED: dict[str, Callable[[], Any]] = {"eval_dataset": lambda: Points(9, seed=1)}
BY_STEPS = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}
TEXT: dict[str, Callable[[], Any]] = {"train_dataset": Documents, "data_collator": lambda: pad, "model": llama}
TAGS: dict[str, Callable[[], Any]] = {
    "train_dataset": Sentences,
    "data_collator": lambda: pad,
    "model": lambda: CountingTagger(0.3),
}
ROWS = [
    Row("usual"),
    Row("evaluated, the best kept", {**BY_STEPS, "save_keep_best": 2, "load_best_model_at_end": True}, EVALUATED),
    Row("best ones by several metrics", {**BY_STEPS, "track_best": ["loss"]}, EVALUATED),
    Row(
        "early stopping",
        {**BY_STEPS, "greater_is_better": True},
        {**EVALUATED, "callbacks": lambda: [EarlyStoppingCallback(4)]},
    ),
    Row("an average of the weights", BY_STEPS, {**EVALUATED, "callbacks": lambda: [EMACallback(0.9, warmup=True)]}),
    Row("the mean of the weights", {}, {"callbacks": lambda: [SWACallback(0.3, every=2)]}),
    Row("layers that join later", {}, {"callbacks": lambda: [FreezeCallback("first", until_step=5)]}),
    Row("somebody asks", {"eval_strategy": "epoch"}, {**EVALUATED, "callbacks": lambda: [Asks()]}),
    Row("a tracker's run", {}, {"callbacks": lambda: [Kept()]}),
    Row("a log at each epoch", {"logging_strategy": "epoch", "eval_strategy": "epoch"}, EVALUATED, (3, 4, 7)),
    Row("metrics of training", {"logging_steps": 5}, {**TAGS, "train_metrics": lambda: ["accuracy", "f1"]}),
    Row(
        "metrics of torchmetrics",
        {"logging_steps": 5, **BY_STEPS},
        {
            **TAGS,
            "eval_dataset": lambda: Sentences(7),
            "metrics": lambda: {"recall": torchmetrics.classification.MulticlassRecall(5, ignore_index=-100)},
            "train_metrics": lambda: True,
        },
    ),
    Row(
        "the loss scale of float16",
        {"fp16": True, "gradient_accumulation_steps": 1},
        {"model": Blown},
        shows=lambda trainer: trainer.engine.precision.scaler.get_scale() != 65536.0,
    ),
    Row(
        "a schedule that waits for a metric",
        {**BY_STEPS, "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0}},
        EVALUATED,
    ),
    Row("a greedy schedule", {**BY_STEPS, "lr_scheduler_type": "greedy"}, EVALUATED),
    Row(
        "steps left out",
        {"nonfinite": "skip", "gradient_accumulation_steps": 1},
        {"train_dataset": lambda: Spoiled(30)},
        (3, 5, 9),
        shows=lambda trainer: trainer._run.left_out.steps == 2,
    ),
    Row(
        "steps gone back behind",
        {"nonfinite": "rewind", "gradient_accumulation_steps": 1},
        {"train_dataset": lambda: Spoiled(30)},
        (3, 5, 9),
        shows=lambda trainer: len(trainer._run.left_out.places) == 2,
    ),
    Row("tokens and operations", {"include_num_input_tokens_seen": "non_padding"}, TEXT),
    Row("noise on embeddings", {"neftune_noise_alpha": 5.0}, TEXT),
    Row("labels counted over the step", {"gradient_accumulation_steps": 3}, TAGS),
    Row("a stream", {}, {"train_dataset": PointStream}),
    Row("by length", {"train_sampling_strategy": "group_by_length"}, TAGS),
    Row("balanced", {"train_sampling_strategy": "batch_rebalance"}, TAGS),
    Row("draws of each sample", {"data_seeding": "sample"}),
    Row("draws as they come", {"data_seeding": "global"}),
    Row("momentum, clipped by adaption", {"optim": "sgd", "optim_args": "momentum=0.9", "adaptive_clip_ratio": 0.1}),
    Row("adafactor", {"optim": "adafactor"}),
    Row("a warm-up and a cosine", {"lr_scheduler_type": "cosine", "warmup_steps": 4}),
    Row("labels smoothed", {"label_smoothing_factor": 0.1}, TAGS),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_leaf_is_what_it_was(row: Row, tmp_path: Path) -> None:
    whole, before = trained(tmp_path, row)
    assert row.shows(whole), "the row does not show what it is there for"
    for step in row.steps:
        _, after = trained(tmp_path, row, step)
        assert sorted(after) == [one for one in sorted(before) if one >= step]
        for at, found in after.items():
            assert list(differing(before[at], found, EXEMPT)) == [], f"resumed after step {step}, before step {at + 1}"


# The comparison can fail: parts whose state stays what it was at the first save are seen.

STALE: dict[str, tuple[str, type, str, str | None]] = {
    "the position": ("usual", Run, "state_dict", "position"),
    "how the epoch is cut": ("usual", Run, "state_dict", "stretch"),
    "the sums between two logs": ("usual", Run, "state_dict", "tally"),
    "the generators before the epoch": ("usual", Run, "state_dict", "random_before_epoch"),
    "metrics": ("metrics of training", Run, "state_dict", "metrics"),
    "steps left out": ("steps left out", Run, "state_dict", "left_out"),
    "the mean of logged losses": ("usual", Tally, "state_dict", "logged_loss"),
    "the loss scale": ("the loss scale of float16", ScaledAutocast, "state_dict", None),
    "patience": ("early stopping", EarlyStoppingCallback, "state", None),
    "an average": ("an average of the weights", WeightAverage, "state_dict", "num_updates"),
    "the schedule": ("a warm-up and a cosine", StepSchedule, "state_dict", "last_epoch"),
    "the window of a greedy schedule": ("a greedy schedule", GreedyLR, "state_dict", "best"),
}


@pytest.mark.parametrize("what", STALE)
def test_state_that_is_not_saved_is_seen(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, kind, method, key = STALE[what]
    row = next(row for row in ROWS if row.name == name)
    describe, first = getattr(kind, method), {}

    def stale(self: Any) -> Any:
        state = copy.deepcopy(describe(self))
        first.setdefault("state", state)
        return first["state"] if key is None else {**state, key: first["state"][key]}

    monkeypatch.setattr(kind, method, stale)
    _, before = trained(tmp_path, row)
    step = row.steps[-1]
    _, after = trained(tmp_path, row, step)
    assert any(list(differing(before[at], found, EXEMPT)) for at, found in after.items())


def test_what_nobody_knows_how_to_compare_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"trainer.thing is a array.array: say how it is compared"):
        leaves(SimpleNamespace(thing=array("i", [1])))
