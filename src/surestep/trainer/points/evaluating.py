"""Extension points of evaluation and prediction, and of what is best."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from surestep.config.enums import IntervalStrategy, SaveStrategy
from surestep.config.topics.best import key_of
from surestep.data.loaders import has_length, num_samples, reading_order, reads_all
from surestep.errors import ArgumentError, ModelError
from surestep.logs import get_logger, warn_once
from surestep.losses.items import ignored_label
from surestep.metrics.prediction import EvalLoopOutput, PredictionMetrics, PredictionOutput
from surestep.metrics.speed import speed_metrics
from surestep.optim.schedules import needs_metric
from surestep.runtime.collectives import PADDING, on_main
from surestep.runtime.modes import to_evaluation
from surestep.runtime.nested import detach
from surestep.trainer.checks import check_present, missing_figure
from surestep.trainer.points.loading import LoadingPoints
from surestep.trainer.points.reporting import ReportingPoints
from surestep.trainer.points.searching import SearchingPoints
from surestep.training.outputs import predictions_of

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.evaluation import EvaluationPlan
    from surestep.training.run import Run

logger = get_logger(__name__)
_NO_FIGURES = (
    "An evaluation gives neither a loss nor a figure: its batches have no labels (label_names: %s). Name the column of "
    "the labels so, or set label_names to what yours are called."
)


class EvaluatingPoints(LoadingPoints, SearchingPoints, ReportingPoints):
    """`evaluate`, `predict`, `evaluation_loop`, `prediction_step` and what they stand on."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate on `eval_dataset` (or the trainer's own), log the figures and return them.

        A dict of sets, or the name of one, is evaluated set by set, each under `<prefix>_<name>`.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, dict):
            return self._evaluate_each(dataset, eval_dataset is not None, ignore_keys, metric_key_prefix)
        check_present(self.model)
        self._memory_tracker.start("eval")
        loader = self.get_eval_dataloader(eval_dataset)
        start = time.time()
        output = self.evaluation_loop(
            loader,
            description="Evaluation",
            prediction_loss_only=True if self.compute_metrics is None else None,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        if not any(not name.endswith("_model_preparation_time") for name in output.metrics or ()):
            warn_once(logger, _NO_FIGURES % (", ".join(self.label_names) or "none"))
        metrics = self._with_speed(output, metric_key_prefix, start)
        self.log(metrics)
        self.callback_handler.fire("on_evaluate", metrics=metrics)
        self._memory_tracker.stop("eval", metrics)
        return metrics

    def _evaluate_each(
        self, datasets: dict[str, Any], given: bool, ignore_keys: list[str] | None, prefix: str, **further: Any
    ) -> dict[str, float]:
        """Evaluate set by set; `further` are arguments that a subclass's `evaluate` takes besides."""
        metrics: dict[str, float] = {}
        for name, dataset in datasets.items():
            metrics |= self.evaluate(
                eval_dataset=dataset if given else name,
                ignore_keys=ignore_keys,
                metric_key_prefix=f"{prefix}_{name}",
                **further,
            )
        return metrics

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        *,
        output_dir: str | Path | None = None,
    ) -> PredictionOutput:
        """Return predictions and labels, as arrays in the order of `test_dataset`, and metrics where there are labels.

        Where the samples' second dimensions differ, arrays are padded on the right with -100. With `output_dir`
        predictions and labels are written to that folder instead, as they come, and only metrics are returned;
        `surestep.load_predictions(output_dir)` reads them.
        """
        check_present(self.model)
        self._memory_tracker.start("test")
        loader = self.get_test_dataloader(test_dataset)
        start = time.time()
        with self._writing(output_dir):
            output = self.evaluation_loop(
                loader, description="Prediction", ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix
            )
        if output_dir is not None:
            output = output._replace(predictions=None, label_ids=None)
        metrics = self._with_speed(output, metric_key_prefix, start)
        self.callback_handler.fire("on_predict", metrics=metrics)
        self._memory_tracker.stop("test", metrics)
        return PredictionOutput(output.predictions, output.label_ids, PredictionMetrics(metrics))

    @contextmanager
    def _writing(self, folder: str | Path | None) -> Iterator[None]:
        """Write what is predicted inside the block to a folder, where one is given."""
        if folder is None:
            yield
            return
        from surestep.metrics.shards import ShardWriter

        self._shards = ShardWriter(folder, self._world.rank, padding=self._prediction_padding())
        try:
            yield
            self._shards.finish(self.engine.strategy)
        except BaseException:
            self._shards.abandon()
            raise
        finally:
            self._shards = None

    def _with_speed(self, output: EvalLoopOutput, prefix: str, start: float) -> dict[str, float]:
        metrics, samples = output.metrics or {}, output.num_samples or 0
        start += metrics.get(f"{prefix}_model_preparation_time", 0.0)
        steps = math.ceil(samples / self._of_all_ranks(self.args.eval_batch_size))
        return {**metrics, **speed_metrics(prefix, start, num_samples=samples, num_steps=steps)}

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run `prediction_step` over a loader; `evaluate` and `predict` share this."""
        from surestep.trainer.reading import evaluation_batches
        from surestep.trainer.stopping import served_signals
        from surestep.training.evaluation import evaluate_batches

        model = self._evaluation_model()
        logger.info("%s: batches of %d samples.", description, self.args.eval_batch_size)
        self.callback_handler.eval_dataloader = dataloader
        plan = self._evaluation_plan(
            model,
            dataloader,
            loss_only=self.args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only,
            ignore_keys=ignore_keys,
            prefix=metric_key_prefix,
            collect=self._collects(predicts=description == "Prediction"),
        )
        counted = plan.dataset_size is not None or has_length(dataloader)
        known = num_samples(dataloader) if counted else None
        serving = served_signals(cast("Trainer", self), "batch")
        reading = evaluation_batches(cast("Trainer", self), dataloader)
        with self._closing_after_errors(), serving, self.engine.computing(model), reading as batches:
            output = evaluate_batches(plan, batches, known)
        if output.metrics is not None and hasattr(self, "model_preparation_time"):
            output.metrics[f"{metric_key_prefix}_model_preparation_time"] = self.model_preparation_time
        return output

    def _evaluation_plan(self, model: nn.Module, loader: Any, **asked: Any) -> EvaluationPlan:
        """Put together what an evaluation goes by: what was `asked` for, the arguments, the loader, the model."""
        from surestep.runtime.signals import SIGNALS
        from surestep.training.evaluation import EvaluationPlan

        args = self.args
        dataset: Any = getattr(loader, "dataset", None)
        return EvaluationPlan(
            **asked,
            model=model,
            prediction_step=self.prediction_step,
            events=self.callback_handler,
            compute_metrics=self.compute_metrics,
            preprocess_logits=self.preprocess_logits_for_metrics,
            ranks=self.engine.strategy,
            main_input=getattr(self.model, "main_input_name", "input_ids"),
            include=frozenset(args.include_for_metrics),
            batch_metrics=args.batch_eval_metrics,
            concatenate=args.eval_do_concat_batches,
            offload_every=args.eval_accumulation_steps,
            shift=self._shift,
            ignored_label=ignored_label(self.model),
            hide_nonfinite=self._hides_nonfinite(),
            padding=self._prediction_padding(),
            metrics=None if self._measures is None else self._measures.for_evaluation(cast("Trainer", self)),
            spill_bytes=args.eval_spill_bytes,
            order=reading_order(loader),
            dataset_size=len(dataset) if has_length(dataset) else None,
            reads_all=reads_all(loader),
            objects=args.eval_use_gather_object,
            shards=self._shards,
            stopping=None if self.is_in_train and self._before_evaluation is None else SIGNALS.stopping,
        )

    def _collects(self, *, predicts: bool) -> bool:
        """Say whether outputs are brought together and kept: to be returned, or for `compute_metrics` at the end."""
        if self._shards is not None:
            return self.compute_metrics is not None and not self.args.batch_eval_metrics
        return predicts or not self.args.batch_eval_metrics

    @contextmanager
    def _closing_after_errors(self) -> Iterator[None]:
        """Close what callbacks hold open when an evaluation fails outside training, which has an end of its own."""
        try:
            yield
        except BaseException:
            if not self.is_in_train:
                self._close_callbacks()
            raise

    def _begin_trial(self) -> None:
        """Settle what `evaluate` settles before its loop, for a first batch that is only tried; here nothing."""

    def _evaluation_model(self) -> nn.Module:
        """Return the model to evaluate: prepared, in evaluation mode, and cast where the arguments ask for it."""
        if not hasattr(self.engine, "model"):
            start = time.time()
            self.model_wrapped = self.engine.prepare(self.model)
            self.model_preparation_time = round(time.time() - start, 4)
        model = self.engine.evaluated()
        if not self.is_in_train and (self.args.fp16_full_eval or self.args.bf16_full_eval):
            dtype = torch.float16 if self.args.fp16_full_eval else torch.bfloat16
            model = model.to(dtype=dtype, device=self.args.device)
        # The prepared model as well, so that the next step finds it in evaluation mode and switches back.
        to_evaluation(self.engine.model)
        switch = getattr(self.optimizer, "eval", None)
        if callable(switch):
            switch()
        return model

    def _prediction_padding(self) -> int:
        """Return what joins predictions of batches whose second dimensions differ."""
        return PADDING

    def _hides_nonfinite(self) -> bool:
        """Say whether the user, and not only the default, asks for a log without NaN."""
        return self.args.logging_nan_inf_filter and "logging_nan_inf_filter" in getattr(self.args, "_given", ())

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """Run a batch without gradients and return `(loss, logits, labels)`, each None where there is none.

        The loss is a mean over the batch, or the pair, or dict of pairs, that `compute_loss` gives. Logits are the
        model's outputs but the loss and `ignore_keys` (by default what the model's configuration names as
        `keys_to_ignore_at_inference`); a single one comes without a tuple around it.
        """
        has_labels = bool(self.label_names) and all(inputs.get(name) is not None for name in self.label_names)
        asked = inputs.get("return_loss")
        unlabelled_loss = not self.label_names and (self.can_return_loss if asked is None else asked)
        with_loss = has_labels or unlabelled_loss
        inputs = self._prepare_inputs(inputs)
        labels = detach(tuple(map(inputs.get, self.label_names))) if with_loss else None
        if with_loss:
            loss, outputs = self._loss_without_gradients(model, inputs)
        else:
            loss = None
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**inputs)
        if prediction_loss_only:
            return loss, None, None
        logits = detach(predictions_of(outputs, self._ignored(ignore_keys), with_loss=with_loss))
        return loss, _alone(logits), _alone(labels)

    def _loss_without_gradients(self, model: nn.Module, inputs: Any) -> tuple[Any, Any]:
        """Return the loss of a batch, on the device, and the model's outputs; a pair keeps its weight."""
        with torch.no_grad(), self.compute_loss_context_manager():
            count = self._own_items(inputs)
            given = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=count)
            try:
                loss, outputs = given
            except (TypeError, ValueError) as error:
                raise ModelError(
                    "compute_loss was called with return_outputs=True, and returned no outputs. Return (loss, outputs) "
                    "where it is True, and the loss alone where not."
                ) from error
            if not isinstance(loss, Tensor):
                return detach(loss), outputs
            loss = loss.detach().mean()
            self._learn_shift(outputs, inputs, loss)
            return loss, outputs

    def _ignored(self, ignore_keys: list[str] | None) -> list[str]:
        if ignore_keys is not None:
            return ignore_keys
        config = getattr(self.model, "config", None)
        return [] if config is None else getattr(config, "keys_to_ignore_at_inference", ["past_key_values"])

    def serve_start(self, run: Run) -> None:
        """Evaluate before the first step, where `eval_on_start` says so; do what an interrupted run left to be done."""
        from surestep.trainer.stopping import leave_if_asked, reopen

        leave_if_asked(cast("Trainer", self))
        if self.args.eval_on_start:
            self._evaluate(self._trial, self._ignore_keys_for_eval, skip_scheduler=True)
        reopen(cast("Trainer", self), run)

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """Evaluate during training; a schedule that waits for a metric is stepped with it."""
        guard: AbstractContextManager[None] = nullcontext()
        if self.args.auto_find_batch_size:
            from surestep.trainer.batch_size import training_size_only

            guard = training_size_only()
        from surestep.trainer.stopping import made_again

        with guard, made_again(cast("Trainer", self)):
            metrics = self.evaluate(ignore_keys=ignore_keys_for_eval)
        self._report_to_hp_search(trial, self.state.global_step, metrics)
        if not skip_scheduler and needs_metric(self.lr_scheduler):
            self.lr_scheduler.step(self._metric_for_best(metrics))
        return metrics

    def _metric_for_best(self, metrics: dict[str, float]) -> float:
        """Return the figure that `metric_for_best_model` names, with or without the prefix `eval_`."""
        name = self.args.metric_for_best_model or "loss"
        key = key_of(name)
        if key not in metrics:
            raise ArgumentError(missing_figure(f"metric_for_best_model is '{name}'", key, metrics))
        return metrics[key]

    def _metric_objects(self) -> Mapping[str, Any]:
        """Return the metrics of `metrics=` by name, which know which way they grow better."""
        made = None if self._measures is None else self._measures.for_evaluation(cast("Trainer", self))
        return {} if made is None else made.metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Note the metric and step if this evaluation is the best so far, and say whether it is.

        NaN never wins and ties keep the earlier step.
        """
        del trial
        args, state = self.args, self.state
        if args.metric_for_best_model is None:
            return False
        value = self._metric_for_best(metrics)
        if state.best_metric is None:
            state.best_metric = -math.inf if args.greater_is_better else math.inf
        better = value > state.best_metric if args.greater_is_better else value < state.best_metric
        if better:
            state.best_metric = value
            if args.save_strategy != SaveStrategy.NO:
                state.best_global_step = state.global_step
        return bool(better)

    def _keeps_best(self) -> bool:
        """Say whether a new best model is saved at once, so that it can be loaded at the end."""
        saves = self.args.save_strategy != SaveStrategy.NO
        return self.args.load_best_model_at_end and saves and self.args.eval_strategy != IntervalStrategy.NO

    def _measured(self, metrics: dict[str, float]) -> bool:
        """Note the figure by which checkpoints are kept, and say whether this one is among the best that stay."""
        args, step = self.args, self.state.global_step
        if args.save_keep_best is None or args.save_strategy == SaveStrategy.NO:
            return False
        score = float(self._metric_for_best(metrics))
        self._score = (step, score)
        # What is being written counts among those that are there.
        self._finish_saves()
        return on_main(self._world, lambda: self._store.retention.would_stay(score, self._store.own()))


def _alone(values: tuple[Any, ...] | None) -> Any:
    """Return the only value of a tuple of one, anything else as it is."""
    return values[0] if values is not None and len(values) == 1 else values
