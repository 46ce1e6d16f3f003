"""One step, one batch of each evaluation set, one save and load, on the real trainer; then everything as before."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.space import human, room_at
from surestep.config.enums import IntervalStrategy, SaveStrategy
from surestep.engine.together import CarefulEngine
from surestep.errors import CheckpointError
from surestep.runtime.collectives import on_main
from surestep.runtime.together import failing_together
from surestep.trainer.assemble import make_plan, prepared_model
from surestep.trainer.batch_size import Beginning
from surestep.trainer.first_step import misfits_refused
from surestep.trainer.preflight import look
from surestep.trainer.preflight.draws import draws_of
from surestep.trainer.preflight.hints import explain
from surestep.trainer.preflight.report import PreflightReport, Stage
from surestep.trainer.reading import make_reader
from surestep.trainer.room import kept_at_once
from surestep.trainer.stopping import leave_if_asked, served_signals
from surestep.trainer.trial import first_figures, wanted_figures
from surestep.training.events import Events
from surestep.training.protocols import Group
from surestep.training.tally import Tally

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

# More of a step says nothing new.
_MICRO_BATCHES = 2


def preflight(trainer: Trainer) -> PreflightReport:
    """Try what the run will do, undo it to the last bit, and return what was found."""
    report = PreflightReport(trainer.engine.strategy)
    with served_signals(trainer, "stage"), _undone(trainer), prepared_model(trainer):
        if trainer.engine.ranks > 1:
            trainer.engine = CarefulEngine.of(trainer.engine)
        trainer.callback_handler = Events(trainer, [], model=trainer.model, processing_class=trainer.processing_class)
        with report.stage("training batch", explain) as stage:
            batches, plan = _fetch(trainer, stage)
        leave_if_asked(trainer)
        with report.stage("training step", explain) as stage:
            if not stage.skipped:
                _step(trainer, stage, batches, plan)
        leave_if_asked(trainer)
        with report.stage("evaluation batch", explain) as stage:
            if not stage.skipped:
                _evaluate(trainer, stage)
        leave_if_asked(trainer)
        with report.stage("save and load", explain) as stage:
            if not stage.skipped:
                _save_and_load(trainer, stage, plan)
    return report


@contextmanager
def _undone(trainer: Trainer) -> Iterator[None]:
    """Make the trainer, its model, optimizer, callbacks and generators what they were when the body ends."""
    beginning = Beginning(trainer)
    own, engine = dict(vars(trainer)), dict(vars(trainer.engine))
    modes = {module: module.training for module in trainer.model.modules()}
    control = copy.copy(trainer.control)
    trainer.state, trainer.control = copy.deepcopy(trainer.state), copy.copy(trainer.control)
    trainer.is_in_train = True
    try:
        yield
    finally:
        # What the body made (optimizer, schedule) goes first, so that only what was there is put back.
        for holder, before in ((trainer, own), (trainer.engine, engine)):
            vars(holder).clear()
            vars(holder).update(before)
        beginning.put_back()
        if trainer.model_init is not None:
            beginning.put_weights_back()
        trainer.control = control
        trainer.current_flos = own["current_flos"]
        for module, training in modes.items():
            module.training = training


def _fetch(trainer: Trainer, stage: Stage) -> tuple[list[Any], Any]:
    loader = trainer.get_train_dataloader()
    plan = make_plan(trainer, loader)
    reader = make_reader(trainer, loader)
    with failing_together(trainer.engine.strategy):
        batches = list(islice(reader.batches(0), min(plan.group_size(0), _MICRO_BATCHES)))
    if not batches:
        stage.problems.append("The training data gave not a single batch. Give it at least one sample.")
        return batches, plan
    stage.figures = look.describe(batches[0])
    model = trainer.engine.unwrap(trainer.model)
    stage.problems += [*look.inputs_of(batches[0], model), *look.labels_of(batches[0], model)]
    if trainer.args.data_seeding != "global":
        stage.problems += draws_of(reader)
    return batches, plan


def _step(trainer: Trainer, stage: Stage, batches: list[Any], plan: Any) -> None:
    engine = trainer.engine
    trainer.optimizer = trainer.optimizer if trainer.model_init is None else None
    trainer.create_optimizer_and_scheduler(num_training_steps=plan.max_steps)
    model = engine.unwrap(trainer.model)
    stage.problems += look.optimizer_of(model, trainer.optimizer)
    trainer.check_saveable()
    assert trainer.optimizer is not None
    clip, weigh = trainer._clipper(), trainer._weigher()
    engine.drive(trainer.optimizer, trainer.lr_scheduler, clip, steps_schedule=False, weigh=weigh)
    engine.zero_grad()
    trainer._train_mode(engine.model)
    tally = Tally(engine.device, mean=engine.strategy.mean)
    batches, items = trainer.get_batch_samples(iter(batches), len(batches), engine.device)
    shares = engine.shares(len(batches)) if engine.ranks > 1 else None
    with misfits_refused():
        engine.forward_backward(trainer, Group(batches, items, len(batches), shares), tally, trainer.callback_handler)
    tally.steps = 1
    loss = tally.drain()
    stage.problems += look.loss_of_step(loss)
    if not stage.problems:
        # Under a loss scale an overflow is its affair.
        stage.problems += look.gradients_of(model, may_overflow=engine.precision.state_dict() is not None)
    if not stage.problems:
        without = look.without_gradient(model)
        engine.apply(tally, trainer.callback_handler)
        norm = "" if tally.grad_norm is None else f", gradient norm {float(tally.grad_norm):.4g}"
        stage.figures = f"loss {loss:.4g}{norm}{without}{_memory(engine.device)}"


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f", peak memory {human(torch.cuda.max_memory_allocated(device))}"


def _evaluate(trainer: Trainer, stage: Stage) -> None:
    args = trainer.args
    if trainer.eval_dataset is None:
        stage.skipped = True
        return
    # One that comes after training, by hand, is tried as well; a name waits for what training itself evaluates.
    evaluates = args.eval_strategy != IntervalStrategy.NO or args.eval_on_start
    metrics = first_figures(trainer)
    stage.figures = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, float | int))
    stage.problems += look.metrics_of(metrics, wanted_figures(trainer) if evaluates else {}, trainer.label_names)


def _save_and_load(trainer: Trainer, stage: Stage, plan: Any) -> None:
    args = trainer.args
    if args.save_strategy == SaveStrategy.NO:
        stage.skipped = True
        return
    with _scratch(trainer) as scratch:
        trainer._staging_root = str(scratch)
        folder = scratch / folder_name(trainer.state.global_step)
        folder.mkdir(exist_ok=True)
        trainer._save_checkpoint(trainer.model_wrapped, None)
        trainer._world.barrier()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        with failing_together(trainer.engine.strategy):
            _load_again(trainer, folder)
    stage.figures = f"{human(size)} a checkpoint"
    free = room_at(trainer._output_folder).free
    if free is None:
        return
    stage.figures += f", {human(free)} free"
    needed = size * kept_at_once(trainer, plan)
    if needed > free:
        stage.problems.append(
            f"The run keeps checkpoints of {human(needed)} in all, and the disk of output_dir has {human(free)} left. "
            "Set save_total_limit, save_only_model=True, or another output_dir."
        )


@contextmanager
def _scratch(trainer: Trainer) -> Iterator[Path]:
    """Give a folder that every rank reaches, and remove it afterwards."""
    world, root = trainer._world, trainer._output_folder
    if world.size == 1:
        with tempfile.TemporaryDirectory(prefix="surestep-preflight-") as alone:
            yield Path(alone)
        return
    scratch = Path(on_main(world, lambda: tempfile.mkdtemp(prefix=".surestep-preflight-", dir=root)))
    try:
        yield scratch
    finally:
        on_main(world, lambda: shutil.rmtree(scratch, ignore_errors=True))


def _load_again(trainer: Trainer, folder: Path) -> None:
    """Load what was saved, and raise where it is not what it was."""
    before = {name: value.clone() for name, value in trainer.model.state_dict().items() if torch.is_tensor(value)}
    trainer._load_from_checkpoint(str(folder))
    if not trainer.args.save_only_model:
        trainer._load_optimizer_and_scheduler(str(folder))
    after = trainer.model.state_dict()
    changed = [name for name, value in after.items() if name in before and not _same(value, before[name])]
    if changed:
        raise CheckpointError(
            f"What was saved and loaded again is not what it was: {', '.join(changed[:3])}. An override of _save or "
            "save_model leaves weights out, or changes them."
        )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other) or torch.isnan(one).any())
