"""Settings that save memory or look at it, through the trainer and beside the original."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from tests.parity.harness import Case, as_parameters, both, check, run
from tests.parity.models import Documents, Points, Reviews, pad
from tests.parity.test_transformers_models import llama
from tests.small import Line, arguments, quick
from torch import Tensor, nn

import surestep
from surestep.engine.recompute import Recompute
from surestep.errors import ArgumentError, MissingPackageError, ModelError

BASE = {"per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 1, "learning_rate": 1e-2}
TEXTS = {"train": Documents, "data_collator": pad}


# Recomputed activations


def deep(kind: type, config: type, **settings: Any) -> Callable[[], Any]:
    """Return a maker of a model of two layers."""
    names = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}

    def make() -> Any:
        torch.manual_seed(0)
        return kind(config(**names, **settings))

    return make


DEEP_BERT = deep(
    transformers.BertForSequenceClassification, transformers.BertConfig, intermediate_size=16, hidden_dropout_prob=0.3
)
DEEP_LLAMA = deep(transformers.LlamaForCausalLM, transformers.LlamaConfig, intermediate_size=16, attention_dropout=0.3)
DEEP_GPT2 = deep(transformers.GPT2LMHeadModel, transformers.GPT2Config, resid_pdrop=0.3)


def batch_of(kind: type = Reviews) -> dict[str, Tensor]:
    return pad([kind()[number] for number in range(4)])


def gradients(model: nn.Module, kind: type, autocast: bool) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(**batch_of(kind)).loss
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("make", [DEEP_BERT, DEEP_LLAMA, DEEP_GPT2], ids=["Bert", "Llama", "GPT-2"])
@pytest.mark.parametrize(
    "settings",
    [None, {"use_reentrant": False}, {"use_reentrant": True}, {"every_n_layers": 2}, {"offload": True}],
    ids=str,
)
def test_gradients_of_a_transformer_are_the_same(make: Callable[[], Any], settings: Any, autocast: bool) -> None:
    model, kind = make(), Reviews if make is DEEP_BERT else Documents
    model.config.use_cache = False
    model.train()
    plain = gradients(model, kind, autocast)
    with Recompute.of(settings).applied(model):
        recomputed = gradients(model, kind, autocast)
    # Reentrant recomputation runs backward in pieces, and bfloat16 shows that branches are summed in another order.
    reordered = autocast and settings == {"use_reentrant": True}
    allowed = 1e-3 * max(float(one.abs().max()) for one in plain) if reordered else 0.0

    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=allowed)


@as_parameters(
    [
        Case(
            f"recomputed, {settings}",
            {**BASE, "activation_checkpointing": True, "activation_checkpointing_kwargs": settings, **more},
            {**TEXTS, "model": llama},
        )
        for settings in ({"use_reentrant": True}, {"use_reentrant": False})
        for more in ({}, {"bf16": True})
    ]
)
def test_recomputed_runs_are_those_of_the_original(case: Case) -> None:
    check(case)


def test_after_training_layers_have_their_own_forward_again(tmp_path: Path) -> None:
    class Deep(Line):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            assert "forward" in vars(self.layers[0]) or not self.training
            for layer in self.layers:
                x = layer(x)
            return super().forward(x, labels)

    trainer = quick(tmp_path, model=Deep(), activation_checkpointing=True)
    trainer.train()

    assert not any("forward" in vars(layer) for layer in trainer.model.layers)


# Memory figures


def memory_names(side: Any) -> list[list[str]]:
    names: list[list[str]] = []

    def drive(trainer: Any) -> Any:
        output = trainer.train()
        for metrics in (output.metrics, trainer.evaluate(), trainer.predict(Points()).metrics):
            names.extend([sorted(name for name in metrics if "_mem_" in name)])
        return output

    run(side, {**BASE, "skip_memory_metrics": False}, evaluate=Points, drive=drive)
    return names


def test_memory_figures_are_named_as_the_originals() -> None:
    theirs, ours = memory_names(transformers), memory_names(surestep)

    assert ours == theirs
    assert {"before_init_mem_cpu", "init_mem_cpu_alloc_delta", "train_mem_cpu_peaked_delta"} <= set(ours[0])
    assert ours[1] == ["eval_mem_cpu_alloc_delta", "eval_mem_cpu_peaked_delta"]


def test_what_training_allocates_is_counted(tmp_path: Path) -> None:
    size, kept = 96 * 2**20, []

    class Keeps(surestep.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                kept.append(torch.ones(size // 4))

    metrics = quick(tmp_path, skip_memory_metrics=False, callbacks=[Keeps()]).train().metrics

    assert 0.8 * size < metrics["train_mem_cpu_alloc_delta"] < 2 * size


def test_a_passing_tensor_is_a_peak(tmp_path: Path) -> None:
    size = 96 * 2**20

    class Passes(surestep.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Touched several times, so that a look falls into its life.
            tensor = torch.ones(size // 4)
            for _ in range(20):
                tensor += 1

    metrics = quick(tmp_path, skip_memory_metrics=False, callbacks=[Passes()]).train().metrics

    assert metrics["train_mem_cpu_peaked_delta"] > 0.8 * size


# Half precision for evaluation


@as_parameters(
    [
        Case(
            f"{name}, {when}",
            {**BASE, name: True},
            {**TEXTS, "model": llama, "evaluate": Documents, "drive": drive},
            lambda seen: True,
            1e-3,
            "evaluation sums in float64, the original in the half precision that the losses have",
        )
        for name in ("bf16_full_eval", "fp16_full_eval")
        for when, drive in (
            ("alone", lambda trainer: trainer.evaluate()),
            ("after training", lambda trainer: (trainer.train(), trainer.evaluate())[1]),
        )
    ]
)
def test_evaluation_in_half_precision_is_the_originals(case: Case) -> None:
    theirs, ours = check(case)

    assert {value.dtype for value in ours.weights.values()} == {value.dtype for value in theirs.weights.values()}
    assert {torch.bfloat16, torch.float16} & {value.dtype for value in ours.weights.values()}


# Compilation


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_run_is_the_same(backend: str) -> None:
    plain = run(surestep, BASE, train=Points, evaluate=Points)
    compiled = run(surestep, {**BASE, "torch_compile_backend": backend}, train=Points, evaluate=Points)

    assert compiled.losses == pytest.approx(plain.losses, rel=0 if backend == "eager" else 1e-6)
    for name, value in plain.weights.items():
        torch.testing.assert_close(compiled.weights[name], value, rtol=1e-6, atol=1e-7)
    assert hasattr(compiled.trainer.model_wrapped, "_orig_mod")


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_transformer_trains_as_with_the_original(backend: str) -> None:
    theirs, ours = both({**BASE, "torch_compile_backend": backend}, model=llama, **TEXTS)

    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)


# Overflow


@pytest.mark.parametrize("spell", ["underflow_overflow", ["underflow_overflow"]])
def test_the_first_module_out_of_range_is_named(spell: Any, tmp_path: Path) -> None:
    class Bursts(Line):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.third = nn.Linear(3, 3), nn.Linear(3, 3)
            nn.init.constant_(self.second.weight, torch.inf)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            return super().forward(self.third(self.second(x)), labels)

    trainer = quick(tmp_path, model=Bursts(), debug=spell)
    with pytest.raises(ModelError, match="The output of module 'second' is not finite"):
        trainer.train()

    assert not any(module._forward_hooks for module in trainer.model.modules())


# Caches, determinism, what is refused


@pytest.mark.parametrize(("every", "expected"), [(None, []), (1, [0, 1, 2, 3]), (2, [0, 2])])
def test_the_cache_is_emptied_at_the_steps_of_the_original(
    every: int | None, expected: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emptied: list[int] = []
    trainer = quick(tmp_path, max_steps=4, torch_empty_cache_steps=every)
    monkeypatch.setattr(
        "surestep.trainer.points.stepping.empty_cache", lambda device: emptied.append(trainer.state.global_step)
    )
    trainer.train()

    assert emptied == expected


@pytest.fixture
def determinism(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


@pytest.mark.usefixtures("determinism")
def test_full_determinism_is_the_originals() -> None:
    theirs, ours = both({**BASE, "full_determinism": True}, model=llama, **TEXTS)

    assert torch.are_deterministic_algorithms_enabled()
    assert ours.losses == theirs.losses


def test_tf32_needs_a_card(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"tf32=True: cpu has no TF32 .*Write tf32=None"):
        arguments(tmp_path, tf32=True)
    assert arguments(tmp_path, tf32=False).tf32 is False


class FusedKernels(ModuleType):
    """Stands in for liger-kernel, which needs triton and so a GPU: notes what it is asked to do."""

    def __init__(self) -> None:
        super().__init__("liger_kernel.transformers")
        self.asked: list[tuple[Any, dict[str, bool]]] = []

    def _apply_liger_kernel_to_instance(self, model: Any, **settings: bool) -> None:
        self.asked.append((model, settings))


def with_kernels(monkeypatch: pytest.MonkeyPatch) -> FusedKernels:
    kernels = FusedKernels()
    monkeypatch.setattr("surestep.optional.installed", lambda module: True)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", kernels)
    return kernels


def test_fused_kernels_are_put_into_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = with_kernels(monkeypatch)
    settings = {"use_liger_kernel": True, "liger_kernel_config": {"rope": False}}
    seen = run(surestep, {**BASE, **settings}, model=llama, **TEXTS)
    assert [(model is seen.trainer.model, asked) for model, asked in kernels.asked] == [(True, {"rope": False})]


def test_fused_kernels_are_for_models_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = with_kernels(monkeypatch)
    with pytest.raises(ArgumentError, match=r"use_liger_kernel is True, but .* has no config"):
        run(surestep, {**BASE, "use_liger_kernel": True})
    assert not kernels.asked


def test_fused_kernels_that_are_not_installed_are_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("liger_kernel") is not None:
        pytest.skip("liger-kernel is installed here")
    with pytest.raises(MissingPackageError, match="use_liger_kernel=True needs the package 'liger-kernel'"):
        run(surestep, {**BASE, "use_liger_kernel": True}, model=llama, **TEXTS)


def test_settings_of_kernels_without_kernels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"liger_kernel_config.*use_liger_kernel=True"):
        arguments(tmp_path, liger_kernel_config={"rope": True})


def test_fp8_is_refused_where_the_hardware_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = r"fp8 is True, but cpu does not multiply in float8.*capability 8.9.*Set bf16=True"
    with pytest.raises(ArgumentError, match=refused):
        quick(tmp_path, fp8=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ArgumentError, match=refused):
        quick(tmp_path)


def test_noise_is_gone_after_training() -> None:
    seen = run(surestep, {**BASE, "neftune_noise_alpha": 5}, model=llama, **TEXTS)

    assert not seen.trainer.model.get_input_embeddings()._forward_hooks
