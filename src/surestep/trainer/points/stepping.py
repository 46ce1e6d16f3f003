"""Extension points of a step: from a micro-batch to its loss and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from surestep.errors import DataError
from surestep.logs import announce, get_logger
from surestep.losses.items import WatchedCount, count_items, function_takes_count, probe_item_use, undisturbed
from surestep.losses.shift import may_shift
from surestep.runtime.device import empty_cache, to_device
from surestep.trainer.points.face import Face
from surestep.training.outputs import loss_of, predictions_of

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
_NOTHING: AbstractContextManager[None] = nullcontext()
_TAKEN = (
    "The loss of %s %s num_items_in_batch, so it is %s. To declare it, set loss_is_scaled_for_ga = True or False in "
    "the trainer's class, or return (sum, weight)."
)
_BLIND = (
    "%s, those at the first position too: nothing tells whether the loss shifts them. To declare it, set shifts_labels "
    "= True or False on %s."
)


def _begins_with_items(batch: Mapping[str, Any]) -> bool:
    """Say whether first labels are counted that would not be if the loss shifted them."""
    kept, shifted = (count_items([batch], shifted=shifted) for shifted in (False, True))
    return kept is not None and shifted is not None and bool(kept != shifted)


class SteppingPoints(Face):
    """`training_step`, `compute_loss` and what they stand on."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device | None = None
    ) -> tuple[list[Any], Tensor | int | None]:
        """Fetch up to `num_batches` micro-batches, and count their items where the loss uses the count.

        `device` is the run's own unless given; callers of the years up to 4.49 give none.
        """
        batches = list(islice(epoch_iterator, num_batches))
        return batches, self._get_num_items_in_batch(batches, self.engine.device if device is None else device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        """Count the labels of a step that are not -100, over all ranks; None where the loss does not use the count.

        Where no label counts it is 1: the sum is 0, and so is the loss. With `average_tokens_across_devices=False` each
        rank counts its own alone.
        """
        by_function = self.compute_loss_func is not None and self._function_takes_count()
        if not (by_function or self.model_accepts_loss_kwargs):
            if self.label_smoother is not None and self._shift.blind and self._smooths():
                self._learn_what_to_smooth(batch_samples)
            return None
        count = self._count_items(batch_samples)
        if not self._sums_items():
            return None if count is None else count.to(device).clamp(min=1)
        if not any(self.engine.strategy.agree(int(count is not None))):
            return None
        own = torch.tensor(0, device=device) if count is None else count.to(device)
        return self.engine.strategy.sum(own).clamp(min=1)

    def _count_items(self, batch_samples: list[Any]) -> Tensor | None:
        """Count the labels that this rank has in some micro-batches, where there are labels."""
        if not batch_samples:
            return None
        first = batch_samples[0]
        if not isinstance(first, Mapping) or "labels" not in first:
            return None
        if self._divides_by_items is None:
            # A batch in which nothing counts tells nothing of the loss.
            telling = next((batch for batch in batch_samples if count_items([batch], shifted=False)), None)
            if telling is not None:
                self._divides_by_items = self._find_item_use(telling)
        return count_items(batch_samples, shifted=self._shift.shifted)

    def _sums_items(self) -> bool:
        """Say whether items are counted over several ranks together."""
        return self._world.size > 1 and self.args.average_tokens_across_devices and not self._counts_alone

    def _own_items(self, inputs: Any) -> Tensor | int | None:
        """Count the labels of one batch of this rank, which the other ranks need not take part in."""
        self._counts_alone = True
        try:
            return self._get_num_items_in_batch([inputs], self.engine.device)
        finally:
            self._counts_alone = False

    def _find_item_use(self, batch: Mapping[str, Any]) -> bool:
        """Learn, from the first batch, whether the model's own loss divides by the item count, and what it counts."""
        outside = self.compute_loss_func is not None or self.label_smoother is not None
        if outside or type(self).compute_loss is not SteppingPoints.compute_loss:
            used = self.model_accepts_loss_kwargs
        else:
            used = self._ask_model(batch)
        if self._shift.blind and self._smooths():
            self._learn_what_to_smooth([batch])
        elif self._shift.blind and may_shift(batch["labels"]) and _begins_with_items(batch):
            announce(logger, _BLIND % ("All labels that are not -100 are counted", type(self.model).__name__))
        return used

    def _smooths(self) -> bool:
        """Say whether label smoothing makes the loss, as far as that is known without computing it."""
        own = type(self).compute_loss is SteppingPoints.compute_loss
        return self.label_smoother is not None and self.compute_loss_func is None and own

    def _learn_what_to_smooth(self, batch_samples: list[Any]) -> None:
        """Learn, from the first batch with rows of labels, which of them to smooth; say so where nothing tells."""
        named = [batch for batch in batch_samples if isinstance(batch, Mapping)]
        telling = next((batch for batch in named if may_shift(batch.get("labels"))), None)
        if telling is None:
            return
        self._ask_own_loss(telling)
        if self._shift.blind:
            self._shift.accept()
            announce(logger, _BLIND % ("Label smoothing takes labels as they are", type(self.model).__name__))

    def _ask_own_loss(self, batch: Mapping[str, Any]) -> None:
        """Learn the shift from the loss that smoothing takes the place of, where the model has one."""
        inputs = to_device(batch, self.engine.device)
        # A model that has none, or cannot compute it, trains with the smoothed one all the same.
        with undisturbed(self.model), suppress(Exception):
            outputs = self.model(**inputs)
            self._learn_shift(outputs, inputs, loss_of(outputs, inputs))

    def _ask_model(self, batch: Mapping[str, Any]) -> bool:
        """Ask the model's own loss, on a batch, what was not declared."""
        declared = getattr(self.model, "accepts_loss_kwargs", None) is not None
        if declared and not (self._shift.guessed and batch["labels"].dim() > 1):
            return self.model_accepts_loss_kwargs
        inputs = to_device(batch, self.engine.device)

        def loss_with(count: Any) -> Tensor:
            given = inputs if count is None else {**inputs, "num_items_in_batch": count.to(self.engine.device)}
            outputs = self.model(**given)
            loss: Tensor = loss_of(outputs, given)
            if count is None:
                self._learn_shift(outputs, inputs, loss)
            return loss

        with undisturbed(self.model):
            if declared:
                loss_with(None)
                return self.model_accepts_loss_kwargs
            found = probe_item_use(loss_with, batch)
        if found.shifted is not None and self._shift.guessed:
            self._shift.settle(found.shifted)
        logger.info(
            "The loss of %s %s num_items_in_batch%s, as its first batch shows. To declare it, set accepts_loss_kwargs "
            "and shifts_labels on the model.",
            type(self.model).__name__,
            "divides by" if found.used else "does not divide by",
            " (labels counted after the shift)" if self._shift.shifted else "",
        )
        return found.used

    def _learn_shift(self, outputs: Any, inputs: Any, loss: Any) -> None:
        """Learn from a mean loss which labels it is over, where that is not known."""
        if not self._shift.guessed or not isinstance(inputs, dict | Mapping):
            return
        labels = inputs.get("labels")
        if may_shift(labels):
            self._shift.learn(predictions_of(outputs, (), with_loss=True), labels, loss)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Run forward and backward on one micro-batch.

        Returns the detached loss, already divided by the number of micro-batches of the step, by the items of the step
        where the loss counts items, or by the weight of the step where the loss is a pair, so that the losses of a step
        add up to its mean.
        """
        if not model.training:
            self._train_mode(model)
        inputs = self._prepare_inputs(inputs)
        watched = None
        if num_items_in_batch is not None and self._count_used is None:
            num_items_in_batch = watched = self._watched_count(num_items_in_batch)
        context = self.compute_loss_context_manager()
        if self._measures is not None and self._measures.train_metrics is not None:
            context = self._measuring(context, model, inputs)
        with context:
            loss: Any = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if isinstance(watched, WatchedCount):
            self._note_count_use(watched, loss)
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0:
            empty_cache(self.engine.device)
        micro_batches = self.engine.mean_micro_batches or self.current_gradient_accumulation_steps
        if not isinstance(loss, Tensor):
            from surestep.losses.pair import pairs_of

            return self.engine.backward_pairs(pairs_of(loss), micro_batches)
        if micro_batches != 1 or self._world.size > 1:
            loss = self._divided(loss, micro_batches, num_items_in_batch)
        self.engine.backward(loss)
        detached: Tensor = loss.detach()
        return detached

    @contextmanager
    def _measuring(self, context: AbstractContextManager[Any], model: nn.Module, inputs: Any) -> Iterator[None]:
        """Let the training metrics see what the model returns inside a context."""
        from surestep.trainer.measuring import measured

        with context, measured(cast("Trainer", self), model, inputs):
            yield

    def _divided(self, loss: Tensor, micro_batches: float, num_items_in_batch: Any) -> Tensor:
        """Divide a mean over a micro-batch by their number; what is divided by all items keeps its size over the ranks.

        Averaging gradients over the ranks divides such a loss once more, which is made up for here.
        """
        if not self._loss_is_scaled(num_items_in_batch):
            return loss / micro_batches if micro_batches != 1 else loss
        return loss * self._world.size if num_items_in_batch is not None and self._sums_items() else loss

    def _train_mode(self, model: nn.Module) -> None:
        """Switch the model, and an optimizer that has modes, to training."""
        model.train()
        switch = getattr(self.optimizer, "train", None)
        if callable(switch):
            switch()

    def _loss_is_scaled(self, num_items_in_batch: Any) -> bool:
        """Say whether the loss is divided over the whole step already, and not only over its micro-batch."""
        if self.loss_is_scaled_for_ga is not None:
            return self.loss_is_scaled_for_ga
        if num_items_in_batch is None:
            return False
        return self._expects_count_use() if self._count_used is None else self._count_used

    def _expects_count_use(self) -> bool:
        """Say whether the loss uses the item count, as far as that is known without having seen it used."""
        if self.compute_loss_func is not None:
            return self._function_takes_count()
        if not self.model_accepts_loss_kwargs:
            return False
        return self.label_smoother is not None or self._divides_by_items is not False

    def _watched_count(self, count: Any) -> Any:
        """Return the count in a form that notes whether a loss of the user's computes with it.

        The model's own loss and label smoothing are known. Compiled code is handed the plain count: then an override,
        or a loss function, is taken to use it.
        """
        outside = self.compute_loss_func is not None or type(self).compute_loss is not SteppingPoints.compute_loss
        if self.loss_is_scaled_for_ga is None and outside and isinstance(count, Tensor):
            if not self.args.torch_compile:
                return WatchedCount.of(count)
            announce(logger, _TAKEN % (type(self).__name__, "is taken to use", "left as it is"))
        self._count_used = self._expects_count_use()
        return count

    def _note_count_use(self, watched: WatchedCount, loss: Any) -> None:
        self._count_used = watched.record.used
        if isinstance(loss, Tensor):
            uses = "uses" if self._count_used else "does not use"
            treated = "left as it is" if self._count_used else "divided by the number of micro-batches"
            logger.info(_TAKEN, type(self).__name__, uses, treated)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro-batch, or `(loss, outputs)` with `return_outputs`.

        The loss is what the model returns (a mapping's or object's `loss`, a tuple's first element), or what
        `compute_loss_func` or label smoothing make of its outputs and the labels. Override it freely; where the result
        is a mean over the micro-batch, it is divided for accumulation by the trainer.
        """
        outside = self.compute_loss_func is not None or self.label_smoother is not None
        labels = inputs.get("labels") if outside else None
        given = inputs
        if labels is not None:
            given = {name: value for name, value in inputs.items() if name != "labels"}
        if num_items_in_batch is not None and self._hands_on_count():
            given = {**given, "num_items_in_batch": num_items_in_batch}
        if not isinstance(given, dict | Mapping):
            raise _not_by_name(given)
        outputs = model(**given)
        if self.compute_loss_func is not None:
            count = {"num_items_in_batch": num_items_in_batch} if self._function_takes_count() else {}
            loss = self.compute_loss_func(outputs, labels, **count)
        elif labels is not None and self.label_smoother is not None:
            loss = self.label_smoother(
                outputs,
                labels,
                shift_labels=self._shift.shifted,
                num_items_in_batch=num_items_in_batch,
            )
        else:
            loss = loss_of(outputs, given)
        return (loss, outputs) if return_outputs else loss

    def _function_takes_count(self) -> bool:
        """Say whether there is a loss function that takes the item count; one that does not gives a mean, or a pair."""
        if self.compute_loss_func is None:
            return False
        asked, takes = self._function_asked
        if asked is not self.compute_loss_func:
            takes = function_takes_count(self.compute_loss_func)
            self._function_asked = self.compute_loss_func, takes
        return takes

    def weigh_loss(self, inputs: Any) -> Any:
        """Return what the loss of a micro-batch will weigh, where that can be told before it is computed; else None.

        A number, or a dict of numbers for a loss of named parts. It is asked for all micro-batches of a step, as the
        loader gave them, before the first of them is computed, and the parts then need no gradients of their own
        (docs/loss.md). By default `compute_loss_func.weight(inputs)` says so, where there is such; override it beside
        `compute_loss`, and then return a weight for every micro-batch.
        """
        weight = getattr(self.compute_loss_func, "weight", None)
        return weight(inputs) if callable(weight) else None

    def _weigher(self) -> Callable[[list[Any]], dict[str, Tensor | float]] | None:
        """Return what weighs the micro-batches of a step together, where their loss can be weighed beforehand."""
        kind = type(self)
        if kind.weigh_loss is not SteppingPoints.weigh_loss:
            return self._weigh_step
        # The function's weight says nothing of an override.
        outside = kind.compute_loss is SteppingPoints.compute_loss
        return self._weigh_step if outside and callable(getattr(self.compute_loss_func, "weight", None)) else None

    def _weigh_step(self, batches: list[Any]) -> dict[str, Tensor | float]:
        from surestep.losses.pair import weights_of_parts

        totals: dict[str, Tensor | float] = {}
        for batch in batches:
            for name, weight in weights_of_parts(self.weigh_loss(batch)).items():
                totals[name] = totals[name] + weight if name in totals else weight
        return totals

    def _hands_on_count(self) -> bool:
        return self.model_accepts_loss_kwargs and self._divides_by_items is not False

    def get_tp_size(self) -> int:
        """Return over how many processes one model's tensors are spread: 1, for no such way is served yet."""
        return 1

    def get_cp_size(self) -> int:
        """Return over how many processes one sequence is spread in the attention's context: 1."""
        return 1

    def get_sp_size(self) -> int:
        """Return over how many processes one sequence is spread: 1."""
        return 1

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Return the context of `compute_loss`. Autocast is not part of it: the model's forward carries its own."""
        return self.autocast_smart_context_manager()

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Return the context that `compute_loss` runs in besides the model's own autocast: none, unless overridden."""
        del cache_enabled
        return _NOTHING

    def _prepare_input(self, data: Any) -> Any:
        """Move the tensors of a nested structure to the device."""
        return to_device(data, self.engine.device, self._non_blocking)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Move a batch to the device; an empty one is an error."""
        inputs = self._prepare_input(inputs)
        if inputs is None:
            raise DataError("A batch is None: the data_collator returns nothing. Let it return the batch it makes.")
        if len(inputs) == 0:
            names = ", ".join(self._signature_columns or [])
            raise DataError(
                "A batch is empty: no column of the dataset reached the model. Name the columns as "
                f"{type(self.model).__name__}.forward does ({names}), or set remove_unused_columns=False."
            )
        return inputs

    def floating_point_ops(self, inputs: Any) -> float:
        """Return the floating-point operations of forward and backward on a batch: 6 per token and weight.

        Known for models with `num_parameters` (those of transformers); others count 0 unless this is overridden.
        """
        counter = getattr(self.model, "num_parameters", None)
        main = getattr(self.model, "main_input_name", "input_ids")
        if counter is None or main not in inputs:
            return 0
        if self._num_weights is None:
            self._num_weights = int(counter(exclude_embeddings=True))
        return 6 * int(inputs[main].numel()) * self._num_weights

    def _count_flos(self, inputs: Any) -> None:
        self.current_flos += float(self.floating_point_ops(inputs))

    def store_flos(self) -> None:
        """Move the operations counted by all processes into the state; the tokens of the others join those of this."""
        strategy, state = self.engine.strategy, self.state
        state.total_flos += float(sum(strategy.agree(int(self.current_flos))))
        state.num_input_tokens_seen += sum(strategy.agree(self._own_tokens)) - self._own_tokens
        self.current_flos, self._own_tokens = 0.0, 0

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Count the tokens of a batch into the state: all of them, or those that the attention mask keeps."""
        if self.args.include_num_input_tokens_seen == "no":
            return
        main = getattr(self.model, "main_input_name", "input_ids")
        if main not in inputs:
            raise DataError(
                f"include_num_input_tokens_seen is set, but the batch has no '{main}', which is the model's main "
                "input. Set include_num_input_tokens_seen='no', or set main_input_name on the model."
            )
        mask = inputs.get("attention_mask") if self.args.include_num_input_tokens_seen == "non_padding" else None
        tokens = inputs[main].numel() if mask is None else int(mask.sum())
        self.state.num_input_tokens_seen += tokens
        self._own_tokens += tokens


def _not_by_name(batch: Any) -> DataError:
    return DataError(
        f"A batch is a {type(batch).__name__}, and the model takes its inputs by name. Let the data_collator return a "
        "dictionary such as {'x': x, 'labels': y}, named as the model's forward names them, or override compute_loss."
    )
