"""`install` and `uninstall` within a process: the original's package gives ours, and afterwards its own again."""

from __future__ import annotations

from pathlib import Path

import pytest

from surestep.compat.homes import HOMES
from tests.compat.running import Ended, execute, python

# What a process sees of the original, name by name: the object's home, and what its classes are built upon.
SNAPSHOT = """
import importlib, json, sys
MODULES = [
    "transformers", "transformers.trainer", "transformers.training_args", "transformers.trainer_callback",
    "transformers.trainer_utils", "transformers.trainer_pt_utils", "transformers.trainer_seq2seq",
    "transformers.training_args_seq2seq", "transformers.data", "transformers.data.data_collator",
    "transformers.optimization", "transformers.hf_argparser", "transformers.integrations",
    "transformers.integrations.integration_utils", "transformers.utils.notebook", "transformers.modelcard",
    "transformers.hyperparameter_search", "transformers.trainer_optimizer", "transformers.trainer_jit_checkpoint",
    "transformers.integrations.neftune", "transformers.integrations.liger", "transformers.modeling_utils",
]
TOP = ["Trainer", "TrainingArguments", "TrainerCallback", "Seq2SeqTrainer", "Seq2SeqTrainingArguments", "set_seed",
       "HfArgumentParser", "default_data_collator", "DataCollatorWithPadding", "EvalPrediction", "IntervalStrategy",
       "get_scheduler", "Adafactor", "PrinterCallback", "SchedulerType", "trainer", "trainer_utils", "data"]

def described(value):
    bases = [f"{base.__module__}.{base.__qualname__}" for base in value.__mro__] if isinstance(value, type) else []
    home = [str(getattr(value, name, "")) for name in ("__module__", "__qualname__")]
    return [type(value).__name__, *home, *bases]

def names_of(module):
    if module.__name__ == "transformers":
        return TOP
    if module.__name__ == "transformers.integrations":
        return [name for name, owner in module._class_to_module.items() if owner == "integration_utils"]
    return [name for name in vars(module) if not name.startswith("__")]

def snapshot():
    seen = {}
    for name in MODULES:
        module = importlib.import_module(name)
        assert sys.modules[name] is module
        seen[name] = {key: described(getattr(module, key)) for key in sorted(names_of(module))}
    return seen

def tell():
    print("FACTS", json.dumps({"seen": snapshot()}))
"""
BEFORE = "import os, sys\nimport surestep.compat\npath, finders = os.environ.get('PYTHONPATH'), list(sys.meta_path)\n"
AFTER = """
assert os.environ.get("PYTHONPATH") == path and not any("surestep" in str(type(one)) for one in sys.meta_path)
assert not [name for name in sys.modules if name.startswith("_the_original")]
tell()
"""
# A module that imports little, so that this takes little time.
CHILD = "import transformers.hf_argparser as found; print(type(found).__name__)"
WAYS = {
    "after": "snapshot()\nsurestep.compat.install()\nsnapshot()\nsurestep.compat.uninstall()",
    "in the midst, twice": (
        "import transformers\nfrom transformers import TrainerCallback\n"
        + "surestep.compat.install()\nsnapshot()\nsurestep.compat.uninstall()\n" * 2
    ),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return python("-c", f"{SNAPSHOT}tell()", folder=tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_uninstalled_the_package_is_as_it_was(tmp_path: Path, stock: Ended, way: str) -> None:
    ended = python("-c", f"{SNAPSHOT}{BEFORE}{way}{AFTER}", folder=tmp_path)

    assert ended.code == 0, ended.err
    assert ended.facts["seen"].keys() == stock.facts["seen"].keys()
    for module, names in stock.facts["seen"].items():
        assert ended.facts["seen"][module] == names, module


def test_the_snapshot_would_show_what_is_replaced(tmp_path: Path, stock: Ended) -> None:
    ended = python("-c", f"{SNAPSHOT}{BEFORE}surestep.compat.install()\ntell()", folder=tmp_path)
    changed = {module for module in HOMES if ended.facts["seen"].get(module) != stock.facts["seen"].get(module)}

    assert {"transformers.trainer", "transformers.training_args", "transformers.data.data_collator"} <= changed
    assert "surestep" in ended.facts["seen"]["transformers"]["Trainer"][1]
    assert ended.facts["seen"]["transformers.modelcard"]["ParallelMode"][1].startswith("surestep.")
    notebook = ended.facts["seen"]["transformers.utils.notebook"]["NotebookProgressCallback"]
    assert "surestep.training.callback.TrainerCallback" in notebook


def test_objects_keep_their_identity_over_install_and_uninstall(tmp_path: Path) -> None:
    program = """
import transformers
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
import surestep.compat
surestep.compat.install()
assert transformers.Trainer is surestep.Trainer is not Trainer
assert transformers.trainer.Trainer is surestep.Trainer
assert transformers.integrations.integration_utils.TrainerCallback is surestep.TrainerCallback
surestep.compat.uninstall()
assert transformers.Trainer is transformers.trainer.Trainer is Trainer
assert transformers.TrainerCallback is TrainerCallback and transformers.PreTrainedModel is PreTrainedModel
assert transformers.integrations.TensorBoardCallback is TensorBoardCallback
assert issubclass(TensorBoardCallback, transformers.TrainerCallback)
"""
    ended = python("-c", program, folder=tmp_path)

    assert ended.code == 0, ended.err
    assert "still the original's: PreTrainedModel" not in ended.err
    assert "Trainer in __main__, TrainerCallback in __main__, TensorBoardCallback in __main__. Call" in ended.err
    assert ended.err.count("serves the Trainer") == 1


@pytest.mark.parametrize("first", ["", "import transformers\nfrom transformers import PreTrainedModel\n"])
def test_names_of_older_years_are_at_the_top_as_long_as_it_is_installed(tmp_path: Path, first: str) -> None:
    program = f"""
{first}import surestep.compat
surestep.compat.install()
import transformers as top
from transformers import AdamW, DataCollatorForWholeWordMask, EvaluationStrategy, PreTrainedModel
from transformers.optimization import AdamW as own
assert AdamW is own is top.AdamW and AdamW.__module__.startswith("surestep.")
assert not hasattr(top.models, "AdamW") and not hasattr(top.integrations, "AdamW")
surestep.compat.uninstall()
import transformers
assert not hasattr(transformers, "AdamW") and not hasattr(top, "AdamW")
"""
    ended = python("-c", program, folder=tmp_path)

    assert ended.code == 0, ended.err


def test_a_notebook_that_installs_serves_its_workers_too(tmp_path: Path) -> None:
    program = """
import os, subprocess, sys
import surestep.compat
child = [sys.executable, "-c", sys.argv[1]]
before = dict(os.environ)
surestep.compat.install()
surestep.compat.install()
during = subprocess.run(child, capture_output=True, text=True, check=True).stdout
surestep.compat.uninstall()
surestep.compat.uninstall()
assert os.environ == before
after = subprocess.run(child, capture_output=True, text=True, check=True).stdout
assert (during, after) == ("StandIn\\n", "module\\n"), (during, after)
"""
    ended = python("-c", program, CHILD, folder=tmp_path)

    assert ended.code == 0, ended.err


@pytest.mark.parametrize("first", ["", "import transformers.hf_argparser\n"], ids=["before", "after"])
def test_under_exec_a_script_can_uninstall(tmp_path: Path, first: str) -> None:
    (tmp_path / "script.py").write_text(
        f"{first}import surestep.compat\nsurestep.compat.install()\nsurestep.compat.uninstall()\n"
        f"import subprocess, sys\n{CHILD}\nsys.stdout.flush()\n"
        f"subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)\n"
    )
    ended = execute("script.py", folder=tmp_path)

    assert ended.out.split() == ["module", "module"], ended.err
    assert ended.err.count("serves the Trainer") == 1


def test_without_the_original_there_is_nothing_to_install(tmp_path: Path) -> None:
    program = """
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name == "transformers":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
import surestep.compat
surestep.compat.install()
"""
    ended = python("-c", program, folder=tmp_path)

    assert ended.code == 1
    assert "transformers is not installed. Import from surestep instead." in ended.err


def test_a_stand_in_answers_as_the_module_that_it_stands_for(tmp_path: Path) -> None:
    program = """
import importlib, inspect, pickle
import transformers
import surestep.compat
surestep.compat.install()
import transformers.hf_argparser as module
from transformers.hf_argparser import *

assert HfArgumentParser is transformers.HfArgumentParser is surestep.HfArgumentParser
assert {"HfArgumentParser", "HfArg", "DataClassType"} <= set(dir(module)) and "DataClassType" in module.__all__
assert DataClassType is module.DataClassType
assert module.__name__ == "transformers.hf_argparser" and module.__file__.endswith("hf_argparser.py")
assert "class HfArgumentParser" in inspect.getsource(module)
assert inspect.signature(HfArgumentParser.__init__) == inspect.signature(surestep.HfArgumentParser.__init__)
assert pickle.loads(pickle.dumps(HfArgumentParser)) is HfArgumentParser
kept = importlib.import_module("transformers.trainer_utils").HPSearchBackend
assert pickle.loads(pickle.dumps(kept)) is kept
assert not hasattr(module, "nothing") and not hasattr(module, "__wrapped__")
try:
    from transformers.hf_argparser import nothing
except ImportError as error:
    assert "cannot import name 'nothing' from 'transformers.hf_argparser'" in str(error)
for _ in range(2):
    module.HfArg = len
assert module.HfArg is len
"""
    ended = python("-c", program, folder=tmp_path)

    assert ended.code == 0, ended.err
    assert ended.err.count("transformers.hf_argparser.HfArg is set from outside.") == 1
