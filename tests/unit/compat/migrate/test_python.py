"""Scripts: names, arguments and methods become today's, and everything else stays as it was written."""

from __future__ import annotations

import inspect
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compat.generations.test_methods import OLD_FORMS, names_of, settings, vars_of, write_and_read
from tests.small import quick

from surestep import Trainer
from surestep.compat.migrate.python import migrate_python
from surestep.trainer.older_names import GONE_MEMBERS, MEMBERS, POINTS, fits

HEAD = "from transformers import Trainer, TrainerCallback, TrainingArguments\n"


def migrated(code: str, head: str = HEAD, **options: Any) -> str:
    """Return code after a head of imports in today's spelling; doing it twice is doing it once."""
    text = head + textwrap.dedent(code)
    after = migrate_python(text, "script.py", **options).after
    assert migrate_python(after, "script.py", **options).after == after
    assert after.startswith(head)
    return after.removeprefix(head)


def left(code: str) -> list[str]:
    migration = migrate_python(HEAD + textwrap.dedent(code), "script.py")
    return [note.text for note in migration.left]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("TrainingArguments('o', evaluation_strategy='epoch')", "TrainingArguments('o', eval_strategy='epoch')"),
        ("TrainingArguments('o', no_cuda = True , seed=1)", "TrainingArguments('o', use_cpu = True , seed=1)"),
        ("TrainingArguments(evaluation_strategy=how(1))", "TrainingArguments(eval_strategy=how(1))"),
        ("TrainingArguments('o', overwrite_output_dir=x)", "TrainingArguments('o')"),
        ("TrainingArguments(no_cuda=False, seed=1)", "TrainingArguments(seed=1)"),
        ("TrainingArguments(no_cuda=False, adafactor=False)", "TrainingArguments()"),
        ("TrainingArguments(seed=1, no_cuda=False, adafactor=False)", "TrainingArguments(seed=1)"),
        ("TrainingArguments(evaluate_during_training=True)", 'TrainingArguments(eval_strategy="steps")'),
        ("Trainer(model, tokenizer=t)", "Trainer(model, processing_class=t)"),
        ("t = Trainer(m)\nt.train(model_path='x')", "t = Trainer(m)\nt.train(resume_from_checkpoint='x')"),
        ("t = Trainer(m)\nprint(t.is_world_master())", "t = Trainer(m)\nprint(t.is_world_process_zero())"),
        ("a = TrainingArguments('o')\na.evaluation_strategy", "a = TrainingArguments('o')\na.eval_strategy"),
        ("a, b, training_args = p.parse_args_into_dataclasses()\ntraining_args.per_gpu_train_batch_size",
         "a, b, training_args = p.parse_args_into_dataclasses()\ntraining_args.per_device_train_batch_size"),
        ("other(evaluation_strategy='epoch', tokenizer=t)", "other(evaluation_strategy='epoch', tokenizer=t)"),
        ("x.tokenizer, x.global_step", "x.tokenizer, x.global_step"),
    ],
)  # fmt: skip
def test_calls_and_attributes(before: str, after: str) -> None:
    assert migrated(before + "\n") == after + "\n"


def test_comments_and_layout_stay() -> None:
    before = """\
    args = TrainingArguments(
        "out",
        evaluation_strategy="epoch",  # how often
        # of the device
        no_cuda=True,
        overwrite_output_dir=True,  # goes with its comment
        warmup_ratio=0.1, adafactor=False,
        # of both
        dispatch_batches=True,
        split_batches=True
    )
    """
    after = """\
    args = TrainingArguments(
        "out",
        eval_strategy="epoch",  # how often
        # of the device
        use_cpu=True,
        warmup_steps=0.1,
        # of both
        accelerator_config={"dispatch_batches": True, "split_batches": True},
    )
    """
    assert migrated(before) == textwrap.dedent(after)


def test_line_ends_and_letters_stay() -> None:
    text = "from transformers import TrainingArguments\r\n# ünï\r\nx = TrainingArguments('ä', no_cuda=True)\r\n"
    assert migrate_python(text, "").after == text.replace("no_cuda", "use_cpu")


def test_a_trainer_of_another_package_is_another() -> None:
    code = "from lightning import Trainer\nTrainer(tokenizer=t, gpus=1)\n"
    assert not migrate_python(code, "").changed
    code = "import transformers as tr\ntr.TrainingArguments(no_cuda=True)\n"
    assert "tr.TrainingArguments(use_cpu=True)" in migrate_python(code, "").after


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("kw = dict(evaluation_strategy='no')\nTrainingArguments(**kw)", "evaluation_strategy in a dictionary"),
        ("kw = {'no_cuda': True}\nTrainingArguments(**kw)", "no_cuda in a dictionary: it is called use_cpu today"),
        ("Trainer(m, **{'tokenizer': t})", "tokenizer in a dictionary: write processing_class"),
        ("TrainingArguments(evaluate_during_training=x)", "its value is not written out"),
        ("TrainingArguments(fp16_backend='apex')", "apex"),
        ("Trainer(m, tb_writer=w)", "TensorBoardCallback"),
        ("Trainer(m, prediction_loss_only=True)", "TrainingArguments(prediction_loss_only=...)"),
        ("Trainer(m, tokenizer=t, processing_class=p)", "processing_class"),
        ("t = Trainer(m)\na, b = t.train()", "three values"),
        ("a = TrainingArguments('o')\na.logging_dir", "logging_dir is a matter of tensorboard_dir today"),
        ("a = TrainingArguments('o')\na.overwrite_output_dir", "gone from the settings"),
        ("class A(Trainer):\n  def compute_loss(self, model, inputs): ...", "it returns no outputs"),
        ("class A(Trainer):\n  def prediction_loop(self, d): ...", "write evaluation_loop(self, dataloader"),
        ("class A(Trainer):\n  def get_optimizers(self, n): ...", "write create_optimizer_and_scheduler"),
        ("class A(Trainer):\n  def _wrap_model(self, m): ...", "nothing calls _wrap_model"),
        ("class A(Trainer):\n  def setup_wandb(self): ...", "nothing calls setup_wandb"),
        ("class A(Trainer):\n  def log(self, logs, iterator=None): print(iterator)", "it uses iterator"),
        ("class A(Trainer):\n  def training_step(self, m, i): ...", "m, i is no parameter of today"),
        ("class A(Trainer):\n  def training_step(self, inputs, model): ...", "another order"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_and_left(code: str, note: str) -> None:
    notes = left(code + "\n")
    assert any(note in one for one in notes), notes
    assert migrated(code + "\n") == code + "\n"


@pytest.mark.parametrize("name", MEMBERS)
def test_members_inside_a_trainer(name: str) -> None:
    code = f"class A(Trainer):\n    def f(self):\n        return self.{name}, self.other.{name}\n"
    assert migrated(code) == code.replace(f"self.{name}", f"self.{MEMBERS[name]}")
    own = f"class A(Trainer):\n    {name} = 3\n    def f(self):\n        return self.{name}\n"
    assert migrated(own) == own


@pytest.mark.parametrize("name", GONE_MEMBERS)
def test_members_that_are_gone(name: str) -> None:
    assert GONE_MEMBERS[name] in left(f"t = Trainer(m)\nt.{name}\n")[0]


def test_the_tokenizer_of_events() -> None:
    before = """\
    class A(TrainerCallback):
        def on_save(self, args, state, control, tokenizer=None, **kwargs):
            tokenizer.save(self.tokenizer, tokenizer=1)
    """
    after = """\
    class A(TrainerCallback):
        def on_save(self, args, state, control, processing_class=None, **kwargs):
            processing_class.save(self.tokenizer, tokenizer=1)
    """
    assert migrated(before) == textwrap.dedent(after)


def test_imports_when_asked() -> None:
    before = """\
    from transformers import (
        AutoModel,
        Trainer,  # the one
    )
    from transformers import EvaluationStrategy, TrainingArguments as T
    from transformers.trainer_callback import TrainerState
    from lightning import Trainer as Other
    T(evaluation_strategy=EvaluationStrategy.NO)
    """
    after = """\
    from transformers import (
        AutoModel,
    )
    from surestep import Trainer
    from surestep import IntervalStrategy, TrainingArguments as T
    from surestep import TrainerState
    from lightning import Trainer as Other
    T(eval_strategy=IntervalStrategy.NO)
    """
    assert migrated(before, head="", imports=True) == textwrap.dedent(after)


def script(name: str, form: str) -> str:
    """Return a subclass with a method of an old form that hands over to the base class, on lines of their own."""
    static = isinstance(vars_of(name), staticmethod)
    lines = [*([] if static else ["self"]), *(form.split(", ") if form else [])]
    given = ", ".join(names_of(form))
    parameters = "".join(f"\n        {line}," for line in lines)
    over = f"Trainer.{name}({given})" if static else f"super().{name}({given})"
    return (
        f"from surestep import Trainer\n\n\nclass Mine(Trainer):\n{'    @staticmethod' if static else ''}\n"
        f"    def {name}({parameters}\n    ):\n        return {over}\n"
    )


@pytest.mark.parametrize(
    ("name", "form"),
    [one for one in OLD_FORMS if one[0] in POINTS and one[1] != "model, inputs"],
    ids=lambda value: str(value)[:60],
)
def test_a_migrated_override_is_one_of_today(tmp_path: Path, name: str, form: str) -> None:
    migration = migrate_python(script(name, form), "script.py")
    if migration.left:
        assert POINTS[name].today in migration.left[0].text
        assert not migration.changed
        return
    space: dict[str, Any] = {"__name__": __name__}
    exec(migration.after, space)
    method = space["Mine"].__dict__[name]
    assert fits(inspect.signature(getattr(object.__new__(space["Mine"]), name)), POINTS[name]), method
    plain = quick(tmp_path / "plain", **settings())
    plain.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        trainer = quick(tmp_path / "new", space["Mine"], **settings())
        write_and_read(trainer)
    assert torch.equal(plain.model.layer.weight, trainer.model.layer.weight)


OLD_SCRIPT = """\
import torch
from small import ToyClassifier, ToySet, settings
from transformers import Trainer, TrainerCallback, TrainingArguments


class Mine(Trainer):
    def training_step(self, model, inputs):
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        self.accelerator.backward(loss)
        return loss.detach() / self.args.gradient_accumulation_steps

    @torch.enable_grad()
    def compute_loss(self, model, inputs, return_outputs=False):
        loss, logits = model(**inputs)
        return (loss * 2, (loss, logits)) if return_outputs else loss * 2

    def log(self, logs):
        logs["tokens"] = self.tokenizer
        super().log(logs)


class Notes(TrainerCallback):
    def on_train_begin(self, args, state, control, tokenizer=None, **kwargs):
        assert tokenizer == 7


args = TrainingArguments(
    **settings(),
    evaluation_strategy="epoch",
    gradient_accumulation_steps=2,
    overwrite_output_dir=True,  # anew
    optim="adamw_hf",
)
trainer = Mine(
    ToyClassifier(), args, train_dataset=ToySet(32), eval_dataset=ToySet(8), tokenizer=7, callbacks=[Notes()]
)
trainer.train()
assert trainer.is_world_master()
RESULTS = (trainer.model.layer.weight.detach().clone(), trainer.evaluate()["eval_loss"])
"""


def test_a_migrated_script_runs_without_a_warning_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.compat.generations.test_scripts import SCRIPTS

    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("TEST_OUTPUT", str(tmp_path))
    migration = migrate_python(OLD_SCRIPT, "old.py", imports=True)
    assert migration.left == []
    # It stands before the decorator, and keeps the loss a mean for models that count items.
    assert "    loss_is_scaled_for_ga = False\n\n    @torch.enable_grad()\n" in migration.after
    old = OLD_SCRIPT.replace("from transformers", "from surestep")

    def results(code: str) -> Any:
        space: dict[str, Any] = {"__name__": "script"}
        exec(compile(code, str(tmp_path / "script.py"), "exec"), space)
        return space["RESULTS"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        before = results(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        after = results(migration.after)
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


def test_trainer_is_known_by_its_base() -> None:
    assert Trainer.__name__ == "Trainer"
    code = "class A(Trainer): ...\nclass B(A): ...\nB(m, tokenizer=t)\n"
    assert "B(m, processing_class=t)" in migrated(code)
