"""Generation in evaluation and prediction, on the original's `Seq2SeqTrainer` and on ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import transformers
from torch import nn

from tests.parity.compare import CLOCK, Seen, assert_same
from tests.parity.harness import Case, as_parameters, run
from tests.parity.sequences import (
    END,
    OURS,
    PAD,
    THEIRS,
    Collator,
    Even,
    Pairs,
    Prompts,
    Sources,
    bart,
    gpt2,
    marian,
    t5,
    tokenizer,
    words,
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
BASE = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "max_steps": 12,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "predict_with_generate": True,
    "generation_max_length": 8,
}
EVALUATED = {**BASE, "eval_strategy": "steps", "eval_steps": 4}
PAIRS = {"train": Pairs, "evaluate": lambda: Pairs(12, seed=6), "compute_metrics": words}
NEW = Pairs(12, seed=9)


def lora() -> nn.Module:
    settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"])
    return peft.get_peft_model(t5(), settings)


def predicting(**settings: Any) -> Any:
    """Return what trains, and then predicts with some settings of generation."""

    def drive(trainer: Any) -> Any:
        trainer.train()
        return trainer.predict(NEW, **settings)

    return drive


def is_ragged(seen: Seen) -> bool:
    """Say whether generation ended at several lengths."""
    ends = (seen.output.predictions[:, 1:] == END).argmax(axis=1)
    return len(set(ends.tolist())) > 1


def case(name: str, model: Any, arguments: dict[str, Any] | None = None, **options: Any) -> Case:
    shows = options.pop("shows", lambda seen: seen.state.global_step > 0)
    return Case(name, {**BASE, **(arguments or {})}, {**PAIRS, "model": model, **options}, shows)


def evaluated(seen: Seen) -> bool:
    return [entry["step"] for entry in seen.logs if "eval_right" in entry] == [4, 8, 12]


CASES = [
    *(
        case(f"{model.__name__}, evaluated in training", model, EVALUATED, shows=evaluated)
        for model in (bart, t5, marian)
    ),
    *(
        case(
            f"{model.__name__}, beams with a length penalty",
            model,
            {"max_steps": 80, "learning_rate": 2e-2},
            drive=predicting(num_beams=3, length_penalty=0.5, max_length=11),
            shows=is_ragged,
        )
        for model in (bart, t5, marian)
    ),
    case("beams of the arguments", t5, {"generation_num_beams": 2}, drive=predicting()),
    case("new tokens in the place of a length", t5, drive=predicting(max_new_tokens=7)),
    case("None takes the arguments'", t5, drive=predicting(max_length=None, num_beams=None)),
    case("sampling", bart, drive=predicting(do_sample=True, top_k=5, temperature=1.5), shows=is_ragged),
    case("synced_gpus", bart, drive=predicting(synced_gpus=False)),
    case(
        "generation settings as an object",
        t5,
        {
            "generation_max_length": None,
            "generation_config": transformers.GenerationConfig(
                max_new_tokens=12, num_beams=2, decoder_start_token_id=PAD, eos_token_id=2, pad_token_id=PAD
            ),
        },
        drive=predicting(),
        shows=lambda seen: seen.output.predictions.shape[1] == 20,
    ),
    case("loss only", t5, {**EVALUATED, "prediction_loss_only": True}, drive=predicting()),
    case("without generation", bart, {**EVALUATED, "predict_with_generate": False}, compute_metrics=None),
    case("no metrics, no generation", bart, EVALUATED, compute_metrics=None),
    case("label smoothing", t5, {**EVALUATED, "label_smoothing_factor": 0.1}),
    case("bfloat16", t5, {**EVALUATED, "bf16": True}),
    case("recomputed activations", t5, {**EVALUATED, "activation_checkpointing": True}),
    case("outputs moved to the host every two batches", t5, {**EVALUATED, "eval_accumulation_steps": 2}),
    case("batches kept apart", t5, {"eval_do_concat_batches": False}, drive=predicting(), compute_metrics=None),
    case("inputs and losses for the metrics", t5, {**EVALUATED, "include_for_metrics": ["inputs", "loss"]}),
    case("adapters", lora, EVALUATED, drive=predicting(num_beams=2)),
    case(
        "a language model that goes on from its prompt",
        gpt2,
        {**EVALUATED, "generation_max_length": 14},
        train=Prompts,
        evaluate=lambda: Prompts(8),
        drive=lambda trainer: (trainer.train(), trainer.predict(Prompts(8)))[1],
        shows=lambda seen: seen.output.predictions.shape == (8, 20),
    ),
    case(
        "predictions without labels",
        t5,
        drive=lambda trainer: (trainer.train(), trainer.predict(Sources(12)))[1],
        data_collator=transformers.DataCollatorWithPadding(tokenizer()),
        train=Even,
        evaluate=Even,
        shows=lambda seen: seen.output.label_ids is None and "test_loss" not in seen.output.metrics,
    ),
]


class Collated:
    """Makes the collator of the trainer's own model, as scripts do, unless one is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["data_collator"] = kwargs.get("data_collator") or Collator(kwargs["model"])
        super().__init__(*args, processing_class=tokenizer(), **kwargs)


def both(case: Case, **options: Any) -> tuple[Seen, Seen]:
    seen = [
        run(side, dict(case.arguments), **{**case.options, "mixin": Collated, **options}) for side in (THEIRS, OURS)
    ]
    return seen[0], seen[1]


@as_parameters(CASES)
def test_generation_is_the_same(case: Case) -> None:
    theirs, ours = both(case)
    assert case.shows(theirs), "the row does not show what it is there for"
    assert_same(theirs, ours, tolerance=case.tolerance)


@pytest.mark.parametrize("model", [bart, t5, marian])
def test_a_run_that_is_resumed_generates_what_the_whole_one_does(tmp_path: Path, model: Any) -> None:
    arguments = {**EVALUATED, "save_strategy": "steps", "save_steps": 6}
    whole = case("whole", model, arguments, drive=predicting(num_beams=2))
    theirs, ours = both(whole, folder=None)
    folder = tmp_path / "run"
    run(OURS, arguments, **{**whole.options, "mixin": Collated, "folder": str(folder)})

    def resume(trainer: Any) -> Any:
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
        return trainer.predict(NEW, num_beams=2)

    part = run(OURS, arguments, **{**whole.options, "mixin": Collated, "folder": str(folder), "drive": resume})
    assert part.losses == ours.losses[6:]
    assert np.array_equal(part.output.predictions, ours.output.predictions)
    assert np.array_equal(part.output.predictions, theirs.output.predictions)
    timeless = [
        [{name: value for name, value in entry.items() if not name.endswith(CLOCK)} for entry in seen.logs]
        for seen in (part, ours)
    ]
    assert timeless[0] == timeless[1]
