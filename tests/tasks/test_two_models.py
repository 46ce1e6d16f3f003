"""The examples with more than one network: several optimizers, and a teacher."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMON = ["--use_cpu", "--disable_tqdm", "true", "--logging_steps", "500"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_adversarial_pair_finds_every_centre(tmp_path: Path) -> None:
    gan = load("gan")
    settings = ["--per_device_train_batch_size", "256", "--max_steps", "700", "--learning_rate", "1e-3"]
    found = gan.main(
        ["--output_dir", str(tmp_path), "--lr_scheduler_type", "constant", "--save_strategy", "no", *settings, *COMMON]
    )
    assert found >= 7
    torch.manual_seed(1)
    assert gan.modes_found(gan.Pair()) < 7, "an untrained generator must not pass"


def test_the_second_optimizer_resumes_to_the_last_bit(tmp_path: Path) -> None:
    gan = load("gan")
    settings = ["--per_device_train_batch_size", "256", "--max_steps", "12", "--save_steps", "6", *COMMON]

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")

    gan.main(["--output_dir", str(tmp_path), *settings])
    straight = weights(tmp_path)
    gan.main(["--output_dir", str(tmp_path), *settings, "--resume_from_checkpoint", str(tmp_path / "checkpoint-6")])
    resumed = weights(tmp_path)
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_the_taught_student_beats_the_one_that_is_alone(tmp_path: Path) -> None:
    distillation = load("distillation")
    settings = ["--per_device_train_batch_size", "32", "--max_steps", "1200", "--learning_rate", "1e-2"]
    scores = distillation.main(["--output_dir", str(tmp_path), "--save_strategy", "no", *settings, *COMMON])
    assert scores["teacher"] > 0.95
    assert scores["taught"] > scores["alone"] + 0.01
