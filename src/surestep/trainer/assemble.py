"""From arguments and objects to the parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from surestep.config.enums import DebugOption
from surestep.config.topics.hardware import splits_batches
from surestep.data.columns import inspected_model
from surestep.data.loaders import has_length
from surestep.data.position import DataPosition
from surestep.data.ranks import RankBatches
from surestep.engine.additions import apply_liger, compile_model, noisy_embeddings
from surestep.engine.engine import Engine
from surestep.engine.precision import make_precision
from surestep.engine.recompute import Recompute
from surestep.engine.strategies.base import Strategy
from surestep.engine.strategies.single import SingleDevice
from surestep.errors import ArgumentError
from surestep.logs import announce, get_logger
from surestep.optim.schedules import needs_metric
from surestep.runtime.device import set_tf32
from surestep.runtime.random import default_generators, enable_full_determinism, seed_everything
from surestep.trainer.resuming.checkpoint import load_state
from surestep.training.plan import Plan
from surestep.training.run import Meter, Run
from surestep.training.state import TrainerState
from surestep.training.tally import Tally

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from surestep.trainer.measuring import Measures
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)


def make_measures(args: Any, metrics: Any, train_metrics: Any, confidence: float | None) -> Measures | None:
    """Return the metrics given by name or object; None where there are none."""
    if metrics is None and not train_metrics and confidence is None:
        return None
    from surestep.trainer.measuring import Measures

    if metrics is not None and args.prediction_loss_only:
        raise ArgumentError(
            "prediction_loss_only=True gives metrics nothing to measure. Leave it out: metrics keep no prediction."
        )
    return Measures(metrics, train_metrics, confidence, args.seed)


def seed_run(args: Any) -> None:
    """Seed every generator as the arguments say."""
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        seed_everything(args.seed)


def make_engine(trainer: Trainer) -> Engine:
    """Return the engine for the arguments' device and precision."""
    args, world = trainer.args, trainer._world
    device = args.device
    if args.tf32 is not None or (args.torch_compile and device.type == "cuda"):
        set_tf32(args.tf32 is not False)
    strategy = _data_parallel(trainer, device) if world.size > 1 else SingleDevice(world, device)
    if world.size == 1:
        _offer_to_launch(device)
    kind = Engine
    if world.size > 1 and args.auto_find_batch_size:
        from surestep.engine.together import CarefulEngine

        kind = CarefulEngine
    return kind(strategy, make_precision(args.mixed_precision, device))


def _data_parallel(trainer: Trainer, device: torch.device) -> Strategy:
    """Join the other processes, and return the strategy that shares the batches out among them."""
    from surestep.engine.strategies.ddp import ByHand, DataParallel
    from surestep.runtime.collectives import join_group

    args, world = trainer.args, trainer._world
    if args.ddp_static_graph and args.gradient_accumulation_steps > 1 and not args.auto_find_batch_size:
        raise ArgumentError(
            "ddp_static_graph=True learns the graph in the first backward, which must exchange gradients, and with "
            f"gradient_accumulation_steps={args.gradient_accumulation_steps} the first one of a step does not. Leave "
            "ddp_static_graph out, or set gradient_accumulation_steps=1."
        )
    join_group(world, device, backend=args.ddp_backend, seconds=args.ddp_timeout)
    given = {
        "bucket_cap_mb": args.ddp_bucket_cap_mb,
        "broadcast_buffers": args.ddp_broadcast_buffers,
        "static_graph": args.ddp_static_graph,
        "find_unused_parameters": args.ddp_find_unused_parameters,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if args.auto_find_batch_size:
        if splits_batches(args):
            raise ArgumentError(
                "auto_find_batch_size=True tries sizes that cannot be split among the processes. Leave split_batches "
                "out of accelerator_config."
            )
        _say_by_hand(options)
        return ByHand(world, device, options)
    # The original's default: recomputed activations and the search do not go together.
    options.setdefault("find_unused_parameters", not args.activation_checkpointing)
    return DataParallel(world, device, options)


def _say_by_hand(options: Mapping[str, Any]) -> None:
    unused = [f"ddp_{name}" for name in options if name != "broadcast_buffers"]
    effect = f"; {', '.join(unused)} have no effect then" if unused else ""
    announce(
        logger,
        "auto_find_batch_size=True exchanges gradients after each backward and not during it, so that no process waits "
        f"for one that ran out of memory{effect}. Once the size is known, write it as per_device_train_batch_size.",
    )


def _offer_to_launch(device: torch.device) -> None:
    """Say how to use the other devices of the machine, where there are some."""
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if count > 1:
        logger.info(
            "%d GPUs are visible and this process trains on one. To use all of them, start the same script with: "
            "torchrun --nproc-per-node %d script.py",
            count,
            count,
        )


@contextmanager
def prepared_model(trainer: Trainer) -> Iterator[None]:
    """Make the model ready for training inside the block: memory savers, noise, compilation, precision."""
    args, engine = trainer.args, trainer.engine
    with ExitStack() as stack:
        model = trainer.model
        if trainer.processing_class is not None:
            from surestep.trainer.special_tokens import align_special_tokens

            align_special_tokens(inspected_model(model), trainer.processing_class)
        if args.use_liger_kernel:
            apply_liger(inspected_model(model), args.liger_kernel_config)
        settings = cast("dict[str, Any] | None", args.activation_checkpointing_kwargs)
        if args.activation_checkpointing:
            stack.enter_context(Recompute.of(settings).applied(engine.unwrap(model)))
        if args.neftune_noise_alpha is not None:
            stack.enter_context(noisy_embeddings(engine.unwrap(model), args.neftune_noise_alpha))
        if DebugOption.UNDERFLOW_OVERFLOW in args.debug:
            from surestep.engine.overflow import OverflowWatch

            stack.enter_context(OverflowWatch(engine.unwrap(model)).watching())
        stack.enter_context(engine.computing(engine.unwrap(model)))
        finish = None
        if args.torch_compile:
            finish = partial(compile_model, backend=args.torch_compile_backend, mode=args.torch_compile_mode)
        trainer.model_wrapped = engine.prepare(model, finish)
        yield


def make_plan(trainer: Trainer, loader: Any) -> Plan:
    """Return the plan for a loader, by way of `set_initial_training_values`, which may be overridden."""
    epochs, steps_per_epoch, examples, samples, total, batches, max_steps = trainer.set_initial_training_values(
        trainer.args, loader
    )
    return Plan(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        max_steps=max_steps,
        batches_per_epoch=batches,
        accumulation=trainer.args.gradient_accumulation_steps,
        examples=examples,
        samples=samples,
        total_batch_size=total,
        streaming=not has_length(loader),
        by_steps=trainer.args.max_steps > 0,
    )


def assemble(trainer: Trainer, resume_from_checkpoint: str | None, trial: Any) -> Run:
    """Put a run together: loader, plan, optimizer, schedule, engine, and what a checkpoint holds of them."""
    from surestep.data.cutting import Cutting
    from surestep.trainer.before import first_looked_at
    from surestep.trainer.nonfinite import make_watch
    from surestep.trainer.reading import make_reader, tell_reading

    engine, events = trainer.engine, trainer.callback_handler
    loader = trainer.get_train_dataloader()
    plan, cutting = make_plan(trainer, loader), Cutting(loader, trainer._world.size)
    trainer.state = state = begin_state(trainer, resume_from_checkpoint)
    take_plan(trainer, plan)
    if trial is not None:
        describe_trial(trainer, state, trial)
    _drive(trainer, plan.max_steps)
    # In any other way no loss that is not finite comes to the log.
    hides = trainer.args.nonfinite == "ignore" and trainer._hides_nonfinite()
    begun_at = state.global_step
    reader = make_reader(trainer, loader)

    def read(position: DataPosition) -> Iterator[Any]:
        batches = reader.batches(position.epoch, start=run.stretch.start, done=run.stretch.done)
        begins = trainer.state.global_step == begun_at
        return first_looked_at(trainer, batches, plan.group_size(0)) if begins else batches

    run = Run(
        trainer=trainer,
        plan=plan,
        engine=engine,
        events=events,
        tally=Tally(engine.device, mean=engine.strategy.mean, hide_nonfinite=hides),
        position=DataPosition(seed=trainer._data_seed()),
        generators=default_generators(engine.device),
        read=read,
        reader=reader,
        cutting=cutting,
        evenly_shared=isinstance(getattr(loader, "batch_sampler", None), RankBatches),
        meters=_meters(trainer),
        metrics=None if trainer._measures is None else trainer._measures.for_training(trainer),
    )
    engine.watch = make_watch(trainer, run, loader, resume_from_checkpoint)
    if resume_from_checkpoint is not None:
        from surestep.trainer.resuming.continuing import restore

        restore(trainer, run, resume_from_checkpoint)
    tell_reading(trainer, reader, run, resumed=resume_from_checkpoint is not None)
    events.model, events.optimizer, events.lr_scheduler = trainer.model, trainer.optimizer, trainer.lr_scheduler
    events.train_dataloader = loader
    events.refresh()
    return run


def _drive(trainer: Trainer, steps: int) -> None:
    """Make what updates the model, and give it to the engine."""
    if trainer._created_lr_scheduler:
        trainer.lr_scheduler, trainer._created_lr_scheduler = None, False
    optimizer = _make_updates(trainer, steps)
    trainer.check_saveable()
    trainer._count_used = None
    trainer.engine.drive(
        optimizer,
        trainer.lr_scheduler,
        trainer._clipper(),
        steps_schedule=not needs_metric(trainer.lr_scheduler),
        weigh=trainer._weigher(),
    )
    trainer.engine.zero_grad()


def _make_updates(trainer: Trainer, steps: int) -> Optimizer:
    """Make optimizer and schedule; an override may keep them on the trainer, or only return the pair."""
    # The annotation says that nothing is returned; overrides, and those of the first versions, know better.
    make: Callable[..., Any] = trainer.create_optimizer_and_scheduler
    made = make(num_training_steps=steps)
    if trainer.optimizer is None and isinstance(made, tuple):
        trainer.optimizer, trainer.lr_scheduler = made
        trainer._created_lr_scheduler = True
    if trainer.optimizer is None or trainer.lr_scheduler is None:
        raise ArgumentError(
            f"{type(trainer).__name__}.create_optimizer_and_scheduler made no optimizer, or no schedule. Set "
            "self.optimizer and self.lr_scheduler in it, or return the two."
        )
    return trainer.optimizer


def begin_state(trainer: Trainer, checkpoint: str | None) -> TrainerState:
    """Return a new state, or the checkpoint's; `take_plan` writes today's lengths into it."""
    state = TrainerState() if checkpoint is None else load_state(checkpoint)
    state.train_batch_size = trainer._train_batch_size
    state.is_local_process_zero = trainer.is_local_process_zero()
    state.is_world_process_zero = trainer.is_world_process_zero()
    return state


def take_plan(trainer: Trainer, plan: Plan) -> None:
    """Write the lengths of a plan, and the intervals that follow from them, into the state."""
    state = trainer.state
    state.compute_steps(trainer.args, plan.max_steps)
    state.max_steps, state.num_train_epochs = plan.max_steps, plan.epochs


def describe_trial(trainer: Trainer, state: TrainerState, trial: Any) -> None:
    """Note in the state which trial of a search the run is."""
    search = trainer._search
    state.is_hyper_param_search = True
    if search is not None:
        state.trial_name, state.trial_params = search.run_name(trial), search.backend.params(trial)
    else:
        state.trial_params = dict(getattr(trial, "params", trial))


def _meters(trainer: Trainer) -> list[Meter]:
    """Return what counts something on every batch, left out where it could only count nothing."""
    from surestep.trainer.points.stepping import SteppingPoints

    kind, meters = type(trainer), list[Meter]()
    if kind.floating_point_ops is not SteppingPoints.floating_point_ops or hasattr(trainer.model, "num_parameters"):
        meters.append(trainer._count_flos)
    overridden = kind._track_num_input_tokens is not SteppingPoints._track_num_input_tokens
    if overridden or trainer.args.include_num_input_tokens_seen != "no":
        meters.append(trainer._track_num_input_tokens)
    return meters
