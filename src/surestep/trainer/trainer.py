"""The trainer: a face whose methods are the extension points, over a loop and its parts."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from surestep.config.adopt import adopt_arguments
from surestep.config.arguments import TrainingArguments
from surestep.config.enums import SaveStrategy
from surestep.data.loaders import has_length
from surestep.logs import get_logger, set_level
from surestep.metrics.memory import TrainerMemoryTracker
from surestep.metrics.prediction import TrainOutput
from surestep.metrics.speed import speed_metrics
from surestep.runtime.world import current_world
from surestep.trainer.assemble import assemble, make_measures, prepared_model, seed_run
from surestep.trainer.checks import check_objects, check_pair, make_output_folder
from surestep.trainer.defaults import copies_ahead, default_callbacks, default_collator
from surestep.trainer.older import (
    adapt_older_methods,
    older_calls,
    older_resume,
    serving_arguments,
    take_older_arguments,
    values_arguments,
    with_writer,
)
from surestep.trainer.points.modelling import ModelPoints
from surestep.trainer.points.older import OlderPoints
from surestep.trainer.resuming.checkpoint import asked_for, find_checkpoint, load_state
from surestep.training.events import Events
from surestep.training.loop import training_loop
from surestep.training.plan import Plan
from surestep.training.run import Run
from surestep.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from surestep.checkpoint.run_record import RunRecord
    from surestep.trainer.preflight.report import PreflightReport
    from surestep.trainer.resuming.report import ResumeReport

logger = get_logger(__name__)


class Trainer(ModelPoints, OlderPoints):
    """Trains, evaluates and predicts with a model, as `args` say.

    Same constructor, methods and defaults as the `Trainer` of transformers; docs/differences.md lists where it differs
    on purpose. Override any method: the loop calls every extension point by name.

    Args:
        model: Any `nn.Module` whose forward takes the batch's keys as keywords and returns its loss in a mapping, an
            object or a tuple (or outputs only, with a loss from `compute_loss_func` or an overridden `compute_loss`).
        args: How to train; `TrainingArguments("tmp_trainer")` where none are given.
        data_collator: Makes a batch of a list of samples.
        train_dataset: What to train on; anything with `__getitem__` and `__len__`, or an iterable.
        eval_dataset: What to evaluate on, or a dict of such sets by name.
        processing_class: Tokenizer or processor, saved with the model.
        model_init: Makes the model anew at each `train()`, in the place of `model`.
        compute_loss_func: Called as `(outputs, labels, num_items_in_batch=...)`, without the count where it takes
            none; returns a mean, a pair `(sum, weight)` or a dict of these (docs/loss.md).
        compute_metrics: Called with an `EvalPrediction`; returns figures by name.
        callbacks: Instances or classes, called after the default ones.
        optimizers: An optimizer and a schedule, or None for either.
        optimizer_cls_and_kwargs: An optimizer class and its keywords, in the place of `args.optim`.
        preprocess_logits_for_metrics: Called with `(logits, labels)` on the device, before logits are collected.
        metrics: Metrics that see one batch after the other and keep sums: names (`"accuracy"`, `"f1"`, ...), objects
            of torchmetrics, a list of these, or a dict by name.
        train_metrics: The same for the batches of training, logged with the loss; True takes `metrics`.
        metrics_confidence: Gives each of `metrics` an interval (`eval_accuracy_low`, `..._high`) of this confidence.
    """

    def __init__(  # noqa: PLR0913 (the original's, and what is ours by keyword)
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: Sequence[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        *,
        metrics: Any = None,
        train_metrics: Any = False,
        metrics_confidence: float | None = None,
        **older: Any,
    ) -> None:
        known = list(inspect.signature(Trainer.__init__).parameters)[1:]
        self.processing_class = take_older_arguments(older, known, processing_class)
        self.args = TrainingArguments(output_dir="tmp_trainer") if args is None else adopt_arguments(args)
        seed_run(self.args)
        if "prediction_loss_only" in older:
            self.args.prediction_loss_only = older["prediction_loss_only"]
        self._memory_tracker = TrainerMemoryTracker(self.args.skip_memory_metrics, device=self.args.device)
        self._memory_tracker.start("init")
        set_level(self.args.log_level)
        self._world = current_world()
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.data_collator = default_collator(self.processing_class) if data_collator is None else data_collator
        self.compute_loss_func = compute_loss_func
        if compute_metrics is not None or not callable(getattr(type(self), "compute_metrics", None)):
            self.compute_metrics = compute_metrics
        self.preprocess_logits_for_metrics = preprocess_logits_for_metrics
        self._measures = make_measures(self.args, metrics, train_metrics, metrics_confidence)
        self.optimizer, self.lr_scheduler = check_pair(optimizers)
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        self.model_init = model_init
        self._forget_runs()
        self._non_blocking = copies_ahead(self.args)
        check_objects(self, model)
        self.create_accelerator_and_postprocess()
        self._take_model(self.call_model_init() if model is None else model)
        self._read_model(self.model)
        adapt_older_methods(self)
        self.callback_handler = Events(
            self,
            with_writer(default_callbacks(self.args, callbacks or []), older.get("tb_writer")),
            model=self.model,
            processing_class=self.processing_class,
        )
        self.callback_handler.optimizer, self.callback_handler.lr_scheduler = self.optimizer, self.lr_scheduler
        if self.args.should_save:
            make_output_folder(self._output_folder)
        if self.args.push_to_hub:
            self.init_hf_repo()
        self.callback_handler.fire("on_init_end")
        self._memory_tracker.stop("init")

    def _forget_runs(self) -> None:
        """Set what a run changes to its beginning."""
        from surestep.trainer.saves import Saves

        self.state = TrainerState(
            is_local_process_zero=self.is_local_process_zero(), is_world_process_zero=self.is_world_process_zero()
        )
        self.control = TrainerControl()
        self._run: Run | None = None
        self.train_output: TrainOutput | None = None
        self.resume_report: ResumeReport | None = None
        self._record: RunRecord | None = None
        self.is_in_train = False
        self.current_flos = 0.0
        self.current_gradient_accumulation_steps = 1
        self._take_batch_size()
        self._created_lr_scheduler = False
        self._staging_root = None
        self._trial: Any = None
        self._search = None
        self._hub = None
        self._model_files = frozenset()
        self._store, self._bests, self._score = self._make_store(), None, None
        self._saves = Saves(self._store, self._world, stops=True)
        self._eval_dataloaders = {}
        self._ignore_keys_for_eval = None

    # Training

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
        **older: Any,
    ) -> TrainOutput:
        """Train and return `(global_step, training_loss, metrics)`.

        Args:
            resume_from_checkpoint: A `checkpoint-<step>` folder to go on from; "auto" or True for the newest valid one
                of this run in the output folder. Where there is none, training starts and says so (True with
                `resume_strict` makes it an error), and a run that is complete returns at once. None takes what the
                arguments say, False starts anew. What was taken up is in `resume_report`.
            trial: The trial of a search.
            ignore_keys_for_eval: Outputs of the model that evaluations during training leave out.
        """
        resume_from_checkpoint = older_resume(older, resume_from_checkpoint)
        self._hp_search_setup(trial)
        if self.args.train_batch_size != self._batch_size_taken:
            self._take_batch_size()
        if self.args.auto_find_batch_size:
            resume_from_checkpoint = self._continue_with_size_found(resume_from_checkpoint)
        run = partial(
            self._inner_training_loop,
            args=self.args,
            resume_from_checkpoint=resume_from_checkpoint,
            trial=trial,
            ignore_keys_for_eval=ignore_keys_for_eval,
        )
        if not self.args.auto_find_batch_size:
            return run(batch_size=self._train_batch_size)
        from surestep.trainer.batch_size import Beginning, find_batch_size, is_too_large

        return find_batch_size(
            lambda size: run(batch_size=size),
            self._train_batch_size,
            self.args.device,
            reset=Beginning(self).put_back,
            too_large=partial(is_too_large, self.engine),
        )

    def _take_batch_size(self) -> None:
        """Take the batch size of the arguments, which may have been set since the trainer was made."""
        self._batch_size_taken = self._train_batch_size = self.args.train_batch_size

    def _continue_with_size_found(self, asked: str | bool | None) -> str | bool:
        """Return the checkpoint to resume from, and take over the batch size that fitted when it was written."""
        checkpoint = find_checkpoint(self, asked_for(self, asked))
        if checkpoint is None:
            return False
        self._train_batch_size = load_state(checkpoint).train_batch_size or self._train_batch_size
        return checkpoint

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: TrainingArguments | None = None,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Run every step of `steps` and return what the run came to."""
        self._train_batch_size = self._train_batch_size if batch_size is None else batch_size
        self.args = self.args if args is None else args
        with self.steps(resume_from_checkpoint, trial, ignore_keys_for_eval) as steps:
            deque(steps, maxlen=0)
        assert self.train_output is not None
        return self.train_output

    @contextmanager
    def steps(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Iterator[Iterator[TrainerState]]:
        """Give the loop into your own hands: `with trainer.steps() as steps: for state in steps: ...`.

        Each item is the state after an optimizer step, once it was logged, evaluated and saved as asked for. Leave the
        `for` when you like. The end of the block does what the end of `train()` does; `train_output` has the result.
        """
        from surestep.trainer.stopping import serving_run

        with serving_run(self), self._steps(resume_from_checkpoint, trial, ignore_keys_for_eval) as steps:
            yield steps

    @contextmanager
    def _steps(
        self, resume_from_checkpoint: str | bool | None, trial: Any, ignore_keys_for_eval: list[str] | None
    ) -> Iterator[Iterator[TrainerState]]:
        from surestep.trainer.before import check_run
        from surestep.trainer.best import settle_directions
        from surestep.trainer.first_step import advised, with_first_watched
        from surestep.trainer.last_good import keeping_last_good
        from surestep.trainer.resuming.beginning import begin, end, take_up
        from surestep.trainer.room import tell_room
        from surestep.trainer.trial import check_figures

        if trial is not self._trial:
            self._hp_search_setup(trial)
        self.is_in_train, self._ignore_keys_for_eval = True, ignore_keys_for_eval
        self._memory_tracker.start("train")
        try:
            self._renew_model(trial)
            check_run(self)
            self._bests = settle_directions(self)
            if self.args.preflight:
                self.preflight().raise_for_problems()
            checkpoint = take_up(self, resume_from_checkpoint)
            with prepared_model(self), advised():
                if not self.args.preflight:
                    check_figures(self)
                run = self._run = assemble(self, checkpoint, trial)
                self.train_output = begin(self, run, checkpoint)
                if self.train_output is not None:
                    yield iter(())
                    return
                self._train_mode(self.engine.model)
                self._start_time, self._first_step = time.time(), self.state.global_step
                self._first_num_input_tokens_seen = self.state.num_input_tokens_seen
                later = None if tell_room(self, run.plan, checkpoint) else partial(tell_room, self, run.plan)
                with keeping_last_good(self, run), closing(training_loop(self, run)) as steps:
                    yield with_first_watched(steps, later)
                self._finish_saves()
                self.train_output = self._finalize_training(trial, run.plan.samples, self._start_time)
                end(self, self.train_output)
        finally:
            self.is_in_train = False
            self._memory_tracker.stop("train")
            self._end_saves()
            self._close_callbacks()

    def preflight(self) -> PreflightReport:
        """Try what `train()` will do, in seconds, and undo it to the last bit: the run is the same with and without.

        One training step (at most two micro-batches), one batch of each evaluation set with its metrics, one save into
        a scratch folder and one load. Prints a table and returns it as a `PreflightReport`, whose `problems` say what
        to write instead. `preflight=True` in the arguments does it before every training and raises `PreflightError`.
        Callbacks and trackers hear nothing of it.
        """
        from surestep.trainer.preflight.flight import preflight

        report = preflight(self)
        if self.is_world_process_zero():
            report.show()
        return report

    def serve_requests(self, run: Run) -> None:
        """Log, evaluate and save, as far as somebody asked for it; then answer a signal."""
        tally, control = run.tally, self.control
        if (control.should_log or control.should_evaluate or control.should_save) and not self.engine.settle():
            return
        self._maybe_log_save_evaluate(
            tally.loss,
            tally.grad_norm,
            self.model_wrapped,
            self._trial,
            run.position.epoch,
            self._ignore_keys_for_eval,
            self._start_time,
            learning_rate=tally.learning_rate,
        )
        if self._look.asked:
            self._answer_signal(run)

    @older_calls(serving_arguments)
    def _maybe_log_save_evaluate(
        self,
        tr_loss: Any,
        grad_norm: Any,
        model: Any,
        trial: Any,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: Any = None,
    ) -> None:
        """Do what the control asks for: log, then evaluate, then save."""
        del tr_loss, epoch
        control, run = self.control, self._run
        assert run is not None
        if control.should_log and run.tally.steps > 0:
            parts = {f"loss_{name}": value for name, value in run.tally.drain_parts().items()}
            logs_of_step: dict[str, float] = {"loss": run.tally.drain(), **parts}
            if grad_norm is not None:
                logs_of_step["grad_norm"] = float(grad_norm)
            logs_of_step["learning_rate"] = self._get_learning_rate() if learning_rate is None else float(learning_rate)
            if run.left_out.steps:
                logs_of_step["nonfinite_steps"] = run.left_out.steps
            if run.metrics is not None:
                logs_of_step |= run.metrics.compute(self.engine.strategy)
            self.store_flos()
            self.log(logs_of_step, start_time)
        if self.control.should_evaluate:
            metrics = self._evaluate(trial, ignore_keys_for_eval)
            best = self._determine_best_metric(metrics=metrics, trial=trial)
            tracked = self._bests is not None and self._bests.take(metrics, self.state.global_step)
            kept = self._measured(metrics)
            if self.args.save_strategy == SaveStrategy.BEST:
                self.control.should_save = best or tracked or kept
            elif kept or (best and self._keeps_best()) or (tracked and self.args.save_strategy != SaveStrategy.NO):
                self.control.should_save = True
        if self.control.should_save:
            self._commit_checkpoint(model, trial)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> TrainOutput:
        """Log the summary, load the best model where asked for, and tell that training has ended."""
        from surestep.trainer.stopping import answer_late

        del trial
        self.engine.settle()
        run, state = self._run, self.state
        assert run is not None
        answer_late(self, run)
        steps = state.global_step - self._first_step
        samples = num_train_samples * steps / max(state.max_steps, 1)
        metrics = speed_metrics("train", start_time, num_samples=samples, num_steps=steps)
        self.store_flos()
        metrics["total_flos"] = state.total_flos
        metrics["train_loss"] = run.tally.mean_loss()
        self._memory_tracker.stop("train", metrics)
        self.log(metrics)
        if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load_best_model()
        elif self.args.load_best_model_at_end:
            logger.warning(
                "load_best_model_at_end=True, and there is no best checkpoint to load: no evaluation gave a number for "
                "metric_for_best_model='%s', or its checkpoint is gone. The model stays as the last step left it.",
                self.args.metric_for_best_model,
            )
        self._drop_all_but_best()
        if self._bests is not None:
            self._bests.conclude(self._store.root, self._saves)
        self.callback_handler.fire("on_train_end")
        self._finish_current_push()
        return TrainOutput(state.global_step, metrics["train_loss"], metrics)

    @older_calls(values_arguments)
    def set_initial_training_values(
        self, args: TrainingArguments, dataloader: Any
    ) -> tuple[int, int, int, float, int, int, int]:
        """Return epochs, steps per epoch, examples, training samples, samples per step, batches per epoch, steps."""
        sized = has_length(dataloader)
        plan = Plan.make(
            batches=len(dataloader) if sized else None,
            examples=self.num_examples(dataloader) if sized else None,
            accumulation=args.gradient_accumulation_steps,
            total_batch_size=self.get_total_train_batch_size(args),
            num_train_epochs=args.num_train_epochs,
            max_steps=args.max_steps,
        )
        return (
            plan.epochs,
            plan.steps_per_epoch,
            plan.examples,
            plan.samples,
            plan.total_batch_size,
            plan.batches_per_epoch,
            plan.max_steps,
        )

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Return the samples of a step: the micro-batches of all processes, times accumulation."""
        return self._of_all_ranks(self._train_batch_size) * args.gradient_accumulation_steps

    def end(self) -> None:
        """Close what the trainer holds open. Call it once, at the very end of a script."""
        self._close_callbacks()
