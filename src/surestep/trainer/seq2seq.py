"""The trainer that generates in evaluation and prediction, for metrics on what a model writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surestep.config.arguments import Seq2SeqTrainingArguments
from surestep.errors import ArgumentError, ModelError
from surestep.logs import get_logger
from surestep.metrics.prediction import PredictionOutput
from surestep.trainer.generation import (
    arguments_of,
    generated_width,
    generation_inputs,
    load_generation_config,
)
from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)


class Seq2SeqTrainer(Trainer):
    """A `Trainer` that, with `predict_with_generate`, evaluates and predicts on generated tokens.

    Same constructor and methods as the `Seq2SeqTrainer` of transformers. Any model with a method `generate` will do:
    encoder-decoders, language models that go on from their prompt, models with adapters, your own. `compute_metrics`
    gets the generated tokens as `predictions`, of shape (samples, positions). Nothing is generated where only the loss
    is asked for: with `prediction_loss_only`, and in evaluations without `compute_metrics`.

    What decides about a setting of generation, the first that says something: the keywords of `evaluate` and `predict`;
    `generation_max_length` and `generation_num_beams`; `generation_config`; the model's own `generation_config`.
    """

    args: Seq2SeqTrainingArguments
    # The settings of generation for the evaluation under way; subclasses may set them before `evaluation_loop`.
    _gen_kwargs: dict[str, Any]

    def __init__(
        self,
        model: nn.Module | None = None,
        args: Seq2SeqTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: Sequence[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        *,
        metrics: Any = None,
        train_metrics: Any = False,
        metrics_confidence: float | None = None,
        **older: Any,
    ) -> None:
        if args is None:
            args = Seq2SeqTrainingArguments(output_dir="tmp_trainer")
        if not hasattr(args, "predict_with_generate"):
            raise ArgumentError(
                f"Seq2SeqTrainer got args of {type(args).__name__}, which say nothing of generation. Write "
                "Seq2SeqTrainingArguments(...)."
            )
        self._gen_kwargs = {}
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            metrics=metrics,
            train_metrics=train_metrics,
            metrics_confidence=metrics_confidence,
            **older,
        )

    def _take_model(self, model: nn.Module) -> None:
        """Take a model, and give it the generation settings of the arguments."""
        super()._take_model(model)
        if self.args.predict_with_generate and not callable(getattr(model, "generate", None)):
            raise ModelError(
                f"predict_with_generate=True, and {type(model).__name__} has no method generate. Write "
                "predict_with_generate=False, or pass a model that generates."
            )
        if self.args.generation_config is not None:
            self.model.generation_config = self.load_generation_config(self.args.generation_config)

    @staticmethod
    def load_generation_config(gen_config_arg: Any) -> Any:
        """Return generation settings from an object, its fields, a path or a name; those that cannot be saved raise."""
        return load_generation_config(gen_config_arg)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **gen_kwargs: Any,
    ) -> dict[str, float]:
        """Evaluate as `Trainer.evaluate` does; `gen_kwargs`, such as `num_beams`, go to the model's `generate`."""
        self._gen_kwargs = self._generation_settings(gen_kwargs)
        datasets = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(datasets, dict):
            return self._evaluate_each(datasets, eval_dataset is not None, ignore_keys, metric_key_prefix, **gen_kwargs)
        return super().evaluate(eval_dataset, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix)

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        *,
        output_dir: str | Path | None = None,
        **gen_kwargs: Any,
    ) -> PredictionOutput:
        """Predict as `Trainer.predict` does; `gen_kwargs`, such as `num_beams`, go to the model's `generate`.

        With `predict_with_generate` the predictions are generated tokens, padded on the right with the padding token.
        """
        self._gen_kwargs = self._generation_settings(gen_kwargs)
        return super().predict(
            test_dataset, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix, output_dir=output_dir
        )

    def _begin_trial(self) -> None:
        """Generate as an evaluation of the run does."""
        self._gen_kwargs = self._generation_settings({})

    def _generation_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of an evaluation: those given for it, else those of the arguments."""
        asked = [name for name, value in given.items() if value is not None]
        if asked and not self.args.predict_with_generate:
            logger.warning(
                "Without predict_with_generate=True nothing is generated: %s has no effect.", ", ".join(asked)
            )
        settings = dict(given)
        if settings.get("max_length") is None and settings.get("max_new_tokens") is None:
            settings["max_length"] = self.args.generation_max_length
        if settings.get("num_beams") is None:
            settings["num_beams"] = self.args.generation_num_beams
        return settings

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Any, Any]:
        """Generate from a batch and return `(loss, tokens, labels)`; without labels, loss and labels are None.

        The loss is that of `compute_loss` on the labels, not of what was generated. `gen_kwargs` take the place of the
        settings of the evaluation under way.
        """
        if not self.args.predict_with_generate or prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        tokens = self._as_wide_as_asked(self._generate(inputs, gen_kwargs or self._gen_kwargs))
        if labels is None:
            return None, tokens, None
        loss, _ = self._loss_without_gradients(model, inputs)
        return loss, tokens, self._as_wide_as_asked(labels)

    def _generate(self, inputs: Any, settings: dict[str, Any]) -> Tensor:
        """Return the tokens that the model generates from a batch."""
        given = {name: value for name, value in settings.items() if value is not None}
        given.setdefault("synced_gpus", self._splits_parameters())
        generate = self.model.generate
        with torch.no_grad():
            output = generate(**arguments_of(generate, generation_inputs(inputs), given))
        tokens: Tensor = getattr(output, "sequences", output)
        return tokens

    def _splits_parameters(self) -> bool:
        """Say whether each process holds a part of the weights only: all must then generate as long as the longest."""
        return self.is_deepspeed_enabled or self.is_fsdp_enabled

    def _as_wide_as_asked(self, tokens: Tensor) -> Tensor:
        config = getattr(self.model, "generation_config", None)
        width = generated_width(config, tokens.shape[-1])
        return tokens if tokens.shape[-1] == width else self._pad_tensors_to_max_len(tokens, width)

    def _pad_tensors_to_max_len(self, tensor: Tensor, max_length: int) -> Tensor:
        """Pad tokens on the right up to `max_length`: with the padding token, else the end-of-sequence token."""
        token = self._padding_token()
        if token is None:
            raise ArgumentError(
                "Generated tokens of several lengths need a padding token, and neither processing_class nor the "
                "model's configuration names one. Set tokenizer.pad_token, or model.config.pad_token_id."
            )
        return nn.functional.pad(tensor, (0, max_length - tensor.shape[-1]), value=token)

    def _prediction_padding(self) -> int:
        """Return what joins predictions of different widths: for generated tokens, one that a tokenizer can decode."""
        token = self._padding_token() if self.args.predict_with_generate else None
        return super()._prediction_padding() if token is None else token

    def _padding_token(self) -> int | None:
        processor = self.processing_class
        sources = [processor] if hasattr(processor, "pad_token_id") else [getattr(self.model, "config", None)]
        sources += [getattr(processor, "tokenizer", None), getattr(self.model, "generation_config", None)]
        for source in sources:
            for name in ("pad_token_id", "eos_token_id"):
                token = getattr(source, name, None)
                if token is not None:
                    return int(token[0] if isinstance(token, list) else token)
        return None

    def _make_sampler(self, strategy: str, dataset: Any, batch_size: int) -> Any:
        """Return the sampler of the training set; with `sortish_sampler` samples of similar lengths come together."""
        return super()._make_sampler("group_by_length" if self.args.sortish_sampler else strategy, dataset, batch_size)
