"""What a run leaves behind: figures in files and on the screen, models that others read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.parity.harness import run
from tests.parity.models import Documents, Points, Reviews, pad
from tests.parity.test_transformers_models import bert, llama
from tests.small import arguments
from torch import Tensor, nn

import surestep
from surestep.checkpoint.weights import load_weights, save_weights

VOCABULARY = Path(__file__).parents[4] / "shared" / "models" / "bert_uncased_wordpiece_vocab" / "vocab.txt"
BASE = {"per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 2}

METRICS = {
    "epoch": 0.30769230769,
    "train_loss": 1.23456789,
    "train_runtime": 3725.678,
    "eval_runtime": 0.0049,
    "test_runtime": 100000.0,
    "train_samples_per_second": 12.3456,
    "total_flos": 5 * 2**30 + 7.0,
    "before_init_mem_cpu": 300 * 2**20,
    "train_mem_cpu_alloc_delta": 3 * 2**20 - 1,
    "train_mem_gpu_peaked_delta": -(2**20) - 1,
    "train_samples": 50,
    "eval_word": "text",
}


def test_figures_read_as_the_originals() -> None:
    assert surestep.Trainer.metrics_format(METRICS) == transformers.trainer_pt_utils.metrics_format(METRICS)


def trainers_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """Make a trainer of each side, one after the other, for both draw from the same generator."""
    for name, side in (("theirs", transformers), ("ours", surestep)):
        torch.manual_seed(0)
        common = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", **BASE}
        args = side.TrainingArguments(str(folder / name), **common)
        yield name, side.Trainer(bert(), args, train_dataset=Reviews(), eval_dataset=Reviews(), data_collator=pad)


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_figures_are_shown_as_the_originals(split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for _, trainer in trainers_of(tmp_path):
        capsys.readouterr()
        trainer.log_metrics(split, METRICS)
        shown.append(capsys.readouterr().out)

    assert shown[0] == shown[1]
    assert shown[1].startswith(f"***** {split} metrics *****\n")


def test_files_of_figures_are_the_originals(tmp_path: Path) -> None:
    for _, trainer in trainers_of(tmp_path):
        Path(trainer.args.output_dir).mkdir(exist_ok=True)
        trainer.save_metrics("train", {"train_loss": 1.5, "epoch": 1.0, "train_samples": 7})
        trainer.save_metrics("eval", {"eval_loss": 2.5, "epoch": 2.0})
        trainer.save_metrics("test", {"test_loss": 3.5}, combined=False)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"

    names = ["all_results.json", "eval_results.json", "test_results.json", "train_results.json"]
    assert sorted(path.name for path in ours.glob("*.json")) == names
    for name in names:
        assert (ours / name).read_text() == (theirs / name).read_text()


def test_the_state_file_is_the_originals(tmp_path: Path) -> None:
    states = {}
    for name, trainer in trainers_of(tmp_path):
        trainer.train()
        trainer.save_state()
        states[name] = json.loads((tmp_path / name / "trainer_state.json").read_text())
    clock = ("_runtime", "_per_second")
    for state in states.values():
        for entry in state["log_history"]:
            for figure in [figure for figure in entry if figure.endswith(clock)]:
                del entry[figure]
        # The values of the control are of now here, of the last checkpoint (or the beginning) with the original.
        state["stateful_callbacks"] = {
            name: sorted(found["args"]) for name, found in state["stateful_callbacks"].items()
        }

    assert states["ours"] == states["theirs"]


@pytest.fixture
def tokenizer() -> Any:
    if not VOCABULARY.is_file():
        pytest.skip("../shared/models/bert_uncased_wordpiece_vocab is not there")
    return transformers.BertTokenizerFast(vocab=str(VOCABULARY))


def equal(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return one.state_dict().keys() == state.keys() and all(
        torch.equal(value, state[name]) for name, value in one.state_dict().items()
    )


def saved(folder: Path, model: nn.Module, **parts: Any) -> surestep.Trainer:
    trainer = surestep.Trainer(model, arguments(folder, **BASE), train_dataset=Reviews(), data_collator=pad, **parts)
    trainer.train()
    trainer.save_model()
    return trainer


def test_a_saved_transformer_is_read_back_with_its_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    trainer = saved(tmp_path, bert(), processing_class=tokenizer)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)

    assert equal(trainer.model, model)
    assert read("Hello there").input_ids == tokenizer("Hello there").input_ids
    batch = pad([Reviews()[0]])
    trainer.model.eval()
    assert torch.equal(model(**batch).logits, trainer.model(**batch).logits)


def test_a_tokenizer_of_the_collator_is_saved(tokenizer: Any, tmp_path: Path) -> None:
    trainer = surestep.Trainer(
        bert(), arguments(tmp_path), data_collator=transformers.DataCollatorWithPadding(tokenizer)
    )
    trainer.save_model(str(tmp_path / "there"))

    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "there").vocab_size == tokenizer.vocab_size


def test_the_original_saves_the_same_weights(tmp_path: Path) -> None:
    for _, trainer in trainers_of(tmp_path):
        trainer.train()
        trainer.save_model()
    sides = ("theirs", "ours")
    read = [transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / name) for name in sides]

    assert equal(*read)
    assert (tmp_path / "ours" / "config.json").read_text() == (tmp_path / "theirs" / "config.json").read_text()


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = llama(tie_word_embeddings=True)
    trainer = surestep.Trainer(model, arguments(tmp_path, **BASE), train_dataset=Documents(), data_collator=pad)
    trainer.train()
    trainer.save_model()
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())

    assert equal(model, read)
    assert read.lm_head.weight is read.model.embed_tokens.weight
    assert "lm_head.weight" not in names or "model.embed_tokens.weight" not in names


@pytest.mark.parametrize("reader", ["from_pretrained", "load_weights"])
def test_sharded_weights_are_read_back(reader: str, tmp_path: Path) -> None:
    model = bert()
    save_weights(model, tmp_path, max_shard_size="5KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    torch.manual_seed(9)
    other: Any = bert()
    if reader == "from_pretrained":
        other = type(other).from_pretrained(tmp_path)
    else:
        load_weights(other, tmp_path)

    assert len(set(index["weight_map"].values())) > 2
    assert equal(model, other)


def test_a_model_that_shards_itself_is_resumed(tmp_path: Path) -> None:
    """The size of a shard is the model's own affair: `save_pretrained` may be overridden."""

    class Sharded(transformers.BertForSequenceClassification):
        def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
            super().save_pretrained(save_directory, **{**kwargs, "max_shard_size": "5KB"})

    settings = {**BASE, "save_strategy": "steps", "save_steps": 2}

    def make(folder: Path) -> surestep.Trainer:
        torch.manual_seed(0)
        model = bert(Sharded)
        return surestep.Trainer(model, arguments(folder, **settings), train_dataset=Reviews(), data_collator=pad)

    whole = make(tmp_path / "whole")
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-2"
    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(folder))

    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert equal(whole.model, resumed.model)


def test_any_module_is_saved_and_read(tmp_path: Path) -> None:
    seen = run(surestep, BASE, train=Points, folder=str(tmp_path), drive=_train_and_save)
    torch.manual_seed(9)
    other = type(seen.trainer.model)()
    load_weights(other, tmp_path)

    assert equal(seen.trainer.model, other)


def _train_and_save(trainer: Any) -> Any:
    output = trainer.train()
    trainer.save_model()
    return output


def test_a_processor_without_save_pretrained_is_left_out(tmp_path: Path) -> None:
    class Processor:
        def __call__(self, text: str) -> Tensor:
            return torch.zeros(1)

    saved(tmp_path, bert(), processing_class=Processor())

    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "training_args.json"} <= names
    assert not any("process" in name or "token" in name for name in names)
