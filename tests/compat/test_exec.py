"""Unchanged scripts under `surestep exec`: they train here, with the numbers that they have on the original."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import surestep
from tests.compat.running import execute, python, same_facts, write

PLAIN = """
from transformers import Trainer, TrainingArguments
torch.manual_seed(0)
trainer = Trainer(Line(), TrainingArguments("out", **QUIET), train_dataset=Points())
result = trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
tell(trainer=Trainer.__module__, losses=losses, steps=result.global_step)
"""
SUBCLASSES = """
import dataclasses
from dataclasses import dataclass, field
import transformers
from transformers import HfArgumentParser

@dataclass
class MyArguments(transformers.TrainingArguments):
    weight: float = field(default=1.0, metadata={"help": "What the loss is multiplied by."})

class Stop(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:
            control.should_training_stop = True

class MyTrainer(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        loss = loss * self.args.weight
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        super().log({**logs, "mine": 1.0}, *args, **kwargs)

words = ["--output_dir", "out", "--weight", "0.5", "--num_train_epochs", "2", "--learning_rate", "0.01",
         "--per_device_train_batch_size", "4", "--logging_steps", "1", "--save_strategy", "no", "--use_cpu",
         "--disable_tqdm", "true", "--report_to", "none", *sys.argv[1:]]
args, = HfArgumentParser(MyArguments).parse_args_into_dataclasses(words)
torch.manual_seed(0)
trainer = MyTrainer(Line(), args, train_dataset=Points(), callbacks=[Stop])
trainer.train()
assert isinstance(trainer, transformers.Trainer) and issubclass(MyTrainer, transformers.trainer.Trainer)
assert isinstance(args, transformers.training_args.TrainingArguments) and dataclasses.is_dataclass(args)
losses = [(entry["loss"], entry["mine"]) for entry in trainer.state.log_history if "loss" in entry]
tell(trainer=transformers.Trainer.__module__, losses=losses, weight=args.weight, seed=args.seed)
"""
OF_2023 = """
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import (
    ALL_LAYERNORM_LAYERS, IntervalStrategy, ShardedDDPOption, get_parameter_names, has_length, is_apex_available,
    is_sagemaker_mp_enabled, is_torch_tpu_available, logger, nested_concat,
)

class MyTrainer(Trainer):
    def _get_train_sampler(self):
        return SequentialSampler(self.train_dataset) if has_length(self.train_dataset) else None

    def create_optimizer(self):
        if is_sagemaker_mp_enabled() or is_apex_available() or self.sharded_ddp == ShardedDDPOption.SIMPLE:
            return super().create_optimizer()
        decayed = [name for name in get_parameter_names(self.model, ALL_LAYERNORM_LAYERS) if "bias" not in name]
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        parts = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            parts[name in decayed].append(parameter)
        self.optimizer = kind([{"params": parts[True], "weight_decay": 0.1}, {"params": parts[False]}], **settings)
        return self.optimizer

class Watch(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        self.tokenizer = kwargs["tokenizer"]

torch.manual_seed(0)
watch = Watch()
args = TrainingArguments("out", **{**QUIET, "save_strategy": IntervalStrategy.NO})
trainer = MyTrainer(Line(), args, train_dataset=Points(), tokenizer=len, callbacks=[watch])
trainer.train()
logger.info("done")
tell(trainer=Trainer.__module__, tokenizer=watch.tokenizer is len, groups=len(trainer.optimizer.param_groups),
     order=type(trainer._get_train_sampler()).__name__, joined=len(nested_concat(torch.ones(2), torch.ones(3))))
"""
LOADED_BY_WORKERS = """
import multiprocessing
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator
from transformers.trainer_utils import EvalPrediction

def collate(rows):
    batch = default_data_collator(rows)
    batch["x"] = batch["x"] + 0.0
    return batch

def mean_error(prediction):
    assert isinstance(prediction, EvalPrediction)
    return {"error": float(abs(prediction.predictions - prediction.label_ids).mean())}

if __name__ == "__main__":
    args = TrainingArguments("out", **{**QUIET, "num_train_epochs": 1}, dataloader_num_workers=1,
                             dataloader_multiprocessing_context="spawn")
    torch.manual_seed(0)
    trainer = Trainer(Line(), args, train_dataset=Points(), eval_dataset=Points(), data_collator=collate,
                      compute_metrics=mean_error)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tell(trainer=Trainer.__module__, losses=losses, error=trainer.evaluate()["eval_error"])
"""


def test_a_script_trains_here_with_the_losses_of_the_original(tmp_path: Path) -> None:
    _, ours = same_facts(tmp_path, PLAIN)

    assert len(ours.facts["losses"]) == 10


def test_subclasses_and_options_are_the_scripts_own(tmp_path: Path) -> None:
    _, ours = same_facts(tmp_path, SUBCLASSES, ["--seed", "3", "--logging_first_step"])

    assert len(ours.facts["losses"]) == 7
    assert ours.facts["seed"] == 3


def test_what_scripts_took_from_the_trainers_module_in_2023_is_there(tmp_path: Path) -> None:
    ended = execute(write(tmp_path, OF_2023), folder=tmp_path)

    assert ended.code == 0, ended.err
    facts = ended.facts
    assert facts.pop("trainer").startswith("surestep.")
    assert facts == {"tokenizer": True, "groups": 2, "order": "SequentialSampler", "joined": 5}
    assert "Watch.on_train_begin takes a tokenizer: name it processing_class." in ended.err
    assert "is not served" not in ended.err


def test_what_workers_load_is_found_in_them(tmp_path: Path) -> None:
    same_facts(tmp_path, LOADED_BY_WORKERS)


def test_it_says_once_who_serves(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import subprocess, sys\nimport transformers.hf_argparser\n"
        "subprocess.run([sys.executable, '-c', 'import transformers.hf_argparser'], check=True)\n"
    )
    ended = execute("script.py", folder=tmp_path)

    assert ended.err == f"INFO surestep: surestep {surestep.__version__} serves the Trainer of transformers " + (
        f"{version('transformers')} here.\n"
    )
    assert execute("script.py", folder=tmp_path, SURESTEP_LOG_LEVEL="error").err == ""
    assert execute("script.py", folder=tmp_path, RANK="1").err == ""


def test_python_m_surestep_compat_is_the_same(tmp_path: Path) -> None:
    script = write(
        tmp_path, "import transformers.hf_argparser as found\ntell(trainer=type(found).__name__, words=sys.argv)\n"
    )
    one, other = (
        python("-m", *way, script, "--check", "-m", folder=tmp_path)
        for way in (["surestep", "exec"], ["surestep.compat"])
    )

    assert one.facts == other.facts
    assert one.facts == {"trainer": "StandIn", "words": [str(script), "--check", "-m"]}
