"""What is written when, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.small import Line, Points, line, quick

from surestep import ExportableState, Trainer, TrainerCallback
from surestep.runtime.world import World


class Words:
    """As much of a tokenizer as is saved."""

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "words.txt").write_text("words", encoding="utf-8")


class Collates:
    tokenizer = Words()

    def __call__(self, samples: list[Any]) -> Any:
        return samples


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


def test_a_model_is_saved_with_what_belongs_to_it(tmp_path: Path) -> None:
    trainer = quick(tmp_path / "run", processing_class=Words())
    trainer.save_model(str(tmp_path / "model"))

    assert names(tmp_path / "model") == {"model.safetensors", "training_args.json", "words.txt"}
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(weights["layer.weight"], trainer.model.layer.weight)


def test_without_a_folder_it_is_saved_to_the_output_folder(tmp_path: Path) -> None:
    quick(tmp_path).save_model()

    assert (tmp_path / "model.safetensors").exists()


def test_the_tokenizer_of_the_collator_is_saved_too(tmp_path: Path) -> None:
    quick(tmp_path, data_collator=Collates()).save_model()

    assert (tmp_path / "words.txt").exists()


def test_a_compiled_model_is_saved_under_its_own_names(tmp_path: Path) -> None:
    trainer = quick(tmp_path, torch_compile=True, torch_compile_backend="eager", save_strategy="epoch")
    trainer.train()

    assert set(load_file(tmp_path / "checkpoint-5" / "model.safetensors")) == {"layer.weight", "layer.bias"}


def test_given_weights_are_saved_in_the_models_place(tmp_path: Path) -> None:
    weights = {name: value + 1 for name, value in line().state_dict().items()}
    quick(tmp_path)._save(str(tmp_path), state_dict=weights)

    assert torch.equal(load_file(tmp_path / "model.safetensors")["layer.bias"], weights["layer.bias"])


@pytest.mark.parametrize("folder", ["model", None])
def test_a_replica_writes_no_model(tmp_path: Path, folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = quick(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    trainer.save_model(None if folder is None else str(tmp_path / folder))
    trainer._save_optimizer_and_scheduler(str(tmp_path))

    assert names(tmp_path) == set()


# Checkpoints


def test_a_checkpoint_holds_all_that_a_resume_needs(tmp_path: Path) -> None:
    quick(tmp_path, save_strategy="epoch").train()

    stems = {name.split(".")[0] for name in names(tmp_path / "checkpoint-5")}
    assert stems >= {"model", "optimizer", "scheduler", "trainer_state", "training_args", "progress"}
    assert any(stem.startswith(("rng", "random")) for stem in stems)
    assert "scaler" not in stems
    assert not any(name.endswith((".pt", ".pth", ".bin", ".pkl")) for name in names(tmp_path / "checkpoint-5"))


def test_the_loss_scale_is_saved_where_there_is_one(tmp_path: Path) -> None:
    trainer = quick(tmp_path, save_strategy="epoch", fp16=True)
    trainer.train()
    scale = trainer.engine.precision.state_dict()
    assert any(name.startswith("scaler") for name in names(tmp_path / "checkpoint-5"))

    fresh = quick(tmp_path / "fresh", fp16=True)
    fresh._load_scaler(str(tmp_path / "checkpoint-5"))
    assert fresh.engine.precision.state_dict() == scale


def test_only_the_model_on_request(tmp_path: Path) -> None:
    quick(tmp_path, save_strategy="epoch", save_only_model=True).train()

    stems = {name.split(".")[0] for name in names(tmp_path / "checkpoint-5")}
    assert stems >= {"model", "trainer_state"}
    assert not stems & {"optimizer", "scheduler"}


def test_as_many_as_the_limit_are_kept(tmp_path: Path) -> None:
    quick(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=2).train()

    assert checkpoints(tmp_path) == [4, 5]


class Given(Trainer):
    """Evaluations that say which step is the best."""

    losses: dict[int, float]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        return {"eval_loss": self.losses[self.state.global_step]}


def given(best: int) -> type[Trainer]:
    return type("Best", (Given,), {"losses": {step: 0.0 if step == best else 1.0 + step for step in range(1, 6)}})


BEST: dict[str, Any] = {
    "eval_dataset": Points(4), "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
    "load_best_model_at_end": True,
}  # fmt: skip


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    quick(tmp_path, given(best=2), **BEST, save_total_limit=2).train()

    assert checkpoints(tmp_path) == [2, 5]


def test_with_a_limit_of_one_only_the_best_is_left_at_the_end(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Looks(TrainerCallback):
        def on_save(self, *_: Any, **__: Any) -> None:
            seen.append(checkpoints(tmp_path))

    trainer = quick(tmp_path, given(best=2), **BEST, save_total_limit=1, callbacks=[Looks])
    trainer.train()

    # Until then the newest is kept as well, to resume from.
    assert seen[-1] == [2, 5]
    assert checkpoints(tmp_path) == [2]
    weights = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert torch.equal(weights["layer.weight"], trainer.model.layer.weight)


def test_without_a_best_there_is_nothing_to_load(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    before = trainer.model.layer.weight.detach().clone()
    trainer._load_best_model()

    assert torch.equal(before, trainer.model.layer.weight)


def test_where_checkpoints_are_written(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    assert trainer._get_output_dir(None) == str(tmp_path)


def test_a_save_that_fails_leaves_no_checkpoint_and_the_next_one_works(tmp_path: Path) -> None:
    class Fails(Trainer):
        fails = True

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            if self.fails:
                raise OSError("disk full")
            super()._save_optimizer_and_scheduler(output_dir)

    trainer = quick(tmp_path, Fails, save_strategy="epoch")
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    assert checkpoints(tmp_path) == []
    assert trainer._get_output_dir(None) == str(tmp_path)

    trainer.fails = False
    trainer.train()
    assert checkpoints(tmp_path) == [5]


# State besides the original's


class Counts(TrainerCallback, ExportableState):
    def __init__(self) -> None:
        self.seen = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seen": self.seen}}


class Files(TrainerCallback):
    """Keeps a file of its own in every checkpoint."""

    def __init__(self) -> None:
        self.content = ""

    def on_save(self, *_: Any, **__: Any) -> None: ...

    def save_to(self, folder: Path) -> None:
        (folder / "mine.txt").write_text("saved", encoding="utf-8")

    def load_from(self, folder: Path) -> None:
        self.content = (folder / "mine.txt").read_text(encoding="utf-8")


def test_callbacks_and_their_files_are_restored(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    first = quick(tmp_path, callbacks=[Counts(), Files()], **settings)
    first.train()
    counts, files = Counts(), Files()
    quick(tmp_path, callbacks=[counts, files], **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert counts.seen == 5
    assert files.content == "saved"


def test_a_subclass_saves_and_loads_more(tmp_path: Path) -> None:
    class Two(Trainer):
        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            super()._save_optimizer_and_scheduler(output_dir)
            self.save_extra_state(output_dir, "second", {"step": self.state.global_step, "moment": torch.ones(2)})

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                self.second = self.load_extra_state(checkpoint, "second")

    quick(tmp_path, Two, save_strategy="steps", save_steps=3).train()
    resumed = quick(tmp_path, Two)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert resumed.second["step"] == 3
    assert resumed.second["moment"].tolist() == [1.0, 1.0]


def test_nothing_to_load_is_no_error(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer._load_optimizer_and_scheduler(None)
    trainer._load_scaler(None)
    trainer._load_rng_state(None)
    trainer._load_rng_state(str(tmp_path))


def test_weights_go_into_another_model_on_request(tmp_path: Path) -> None:
    trainer, other = quick(tmp_path), Line()
    trainer.save_model(str(tmp_path / "model"))
    trainer._load_from_checkpoint(str(tmp_path / "model"), model=other)

    assert torch.equal(other.layer.weight, trainer.model.layer.weight)


def test_what_cannot_be_tried_beforehand_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Shy(torch.optim.SGD):
        """Holds code, of which a copy might reach the original."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.rule = print

    model = line()
    trainer = quick(tmp_path, model=model, optimizers=(Shy(model.parameters(), lr=0.1), None), save_strategy="epoch")
    trainer.train()

    assert "Whether a checkpoint can hold the state of Shy shows at the first save" in caplog.text
    assert checkpoints(tmp_path) == [5]


def test_random_numbers_of_a_replica_are_saved_under_its_rank(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer._save_rng_state(str(tmp_path / "zero"))
    trainer._world = World(rank=3, size=4)
    trainer._save_rng_state(str(tmp_path / "three"))

    assert names(tmp_path / "zero") != names(tmp_path / "three")
