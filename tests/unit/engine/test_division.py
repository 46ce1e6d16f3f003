"""Dividing by weights that are known late: what is exact, what it costs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed import one_gradient as og
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import surestep as s
from surestep.engine.division import Division, _multiply
from surestep.engine.strategies.single import SingleDevice
from surestep.errors import ModelError
from surestep.runtime.world import World
from surestep.training.protocols import Group
from surestep.training.tally import Tally

BATCH = og.batch_of(6, seed=3)


def ranks(folder: Path, function: Any, size: int = 1, **options: Any) -> og.Ranks:
    options.setdefault("dtype", torch.float64)
    return og.Ranks.make(folder, og.Way(lambda outputs, batch: [], function), size, **options)


def test_a_power_of_two_of_weight_rounds_nothing(tmp_path: Path) -> None:
    """With a weight that is a power of two, dividing late is adding up what was divided early, bit for bit."""

    def weighing(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
        return og.crossed(outputs, labels)[0], 2.0

    step = ranks(tmp_path, weighing, dtype=torch.float32).step(og.cut(BATCH, [[1, 2, 2, 1]]))
    model = og.Tagger(torch.float32)
    for batch in og.cut(BATCH, [[1, 2, 2, 1]])[0]:
        (og.crossed(model(batch["tokens"]), batch["labels"])[0] / 8).backward()

    assert torch.equal(step.gradients[0], og.flat(model))


@pytest.mark.parametrize("sizes", [[[6]], [[2, 2, 2]], [[3], [3]], [[2, 2], [2]], [[1], [], []]], ids=str)
def test_where_nothing_weighs_anything_loss_and_gradient_are_zero(tmp_path: Path, sizes: list[list[int]]) -> None:
    batch = {**BATCH, "labels": torch.full_like(BATCH["labels"], -100)}
    batch = {name: value[: sum(map(sum, sizes))] for name, value in batch.items()}
    step = ranks(tmp_path, og.as_tuple, len(sizes)).step(og.cut(batch, sizes))

    assert step.loss == 0.0
    assert all(not gradient.any() for gradient in step.gradients)


@pytest.mark.parametrize("masked", [False, True], ids=["counted", "first masked"])
def test_raw_sums_overflow_no_float16(tmp_path: Path, masked: bool) -> None:
    """Backward begins with loss scale over divisor: a raw sum of 40,000 times a loss of one would be infinite."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, tokens: Tensor, **_: Any) -> dict[str, Tensor]:
            half = self.scale.half()
            return {"logits": (half * tokens.half()).float()}

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
        counted = (labels[0, 0] != -100).float()
        return outputs["logits"].mean() * 40_000 * counted, 40_000 * counted

    group = ranks(tmp_path, loss, dtype=torch.float32, precision="fp16")
    trainer = group.trainers[0]
    trainer.engine.prepare(Large())
    trainer.model = trainer.engine.model
    for number in range(2):
        labels = BATCH["labels"].clamp(min=0)
        if masked and number == 1:
            labels[:2] = -100
        group.step(og.cut({**BATCH, "labels": labels, "tokens": torch.ones(6, 5)}, [[2, 2, 2]]))
    scale = trainer.engine.precision.scaler.get_scale()
    gradient = trainer.model.scale.grad / scale

    assert gradient.item() == pytest.approx(1.0, rel=1e-3)


def test_the_shares_of_a_step_add_up_to_its_loss(tmp_path: Path) -> None:
    group = ranks(tmp_path, og.as_parts)
    shares: list[float] = []
    trainer = group.trainers[0]
    plain = trainer.training_step
    trainer.training_step = lambda *given: shares.append(plain(*given)) or shares[-1]  # type: ignore[func-returns-value]
    step = group.step(og.cut(BATCH, [[1, 3, 2]]))

    assert len(shares) == 3
    assert all(share.isfinite() and not share.requires_grad for share in shares)
    assert sum(map(float, shares)) == pytest.approx(step.loss, rel=1e-6)
    assert set(step.parts) == {"words", "value", "rare"}


class Reads(TorchDispatchMode):
    """Counts what the host reads of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("sizes", [[6], [2, 2, 2]], ids=str)
@pytest.mark.parametrize("loss", [og.as_tuple, og.as_parts])
def test_no_value_is_read_on_the_host(tmp_path: Path, loss: Callable[..., Any], sizes: list[int]) -> None:
    trainer = ranks(tmp_path, loss).trainers[0]
    (batches,) = og.cut(BATCH, [sizes])
    trainer.current_gradient_accumulation_steps = len(batches)
    with Reads() as reads:
        for number, batch in enumerate(batches, start=1):
            trainer.engine.on_last_of_step = number == len(batches)
            trainer.training_step(trainer.model, batch)
        assert reads.count == 0
        float(torch.ones(()))

    assert reads.count == 1


@pytest.mark.parametrize(
    ("loss", "buffers", "passes"), [(og.Weighed(), 1, 3), (og.late(og.Weighed()), 2, 5)], ids=["told", "late"]
)
def test_weights_told_beforehand_need_no_gradients_aside(tmp_path: Path, loss: Any, buffers: int, passes: int) -> None:
    trainer = ranks(tmp_path, loss).trainers[0]
    engine, calls, held = trainer.engine, [], []
    bias = trainer.model.head.bias
    compute, backward = trainer.compute_loss, engine.precision.backward

    def counting(*given: Any, **named: Any) -> Any:
        # What the micro-batches before have left: gradients of this bias, wherever they are kept.
        division = engine._dividing()
        aside = [one for account in division._accounts.values() for one in account.aside or [] if one is not None]
        held.append((bias.grad is not None) + sum(one.shape == bias.shape for one in aside))
        return compute(*given, **named)

    trainer.compute_loss = counting
    engine.precision.backward = lambda *given, **options: calls.append(1) or backward(*given, **options)  # type: ignore
    (batches,) = og.cut(BATCH, [[2, 2, 2]])
    engine.forward_backward(trainer, Group(batches, None, 3), Tally(og.CPU), og.Silent())

    assert held == [0, buffers, buffers]
    assert len(calls) == passes


def weighing(weights: Any) -> Any:
    loss = og.Weighed()
    loss.weight = weights  # type: ignore[method-assign]
    return loss


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (lambda batch: 12.0, r"has the parts 'words', 'rare', and its weight was told for none with a name"),
        (
            lambda batch: {"words": 1.0, "rare": 1.0},
            r"The loss '\w+' weighs \d+ in the first step, and 3 was told before",
        ),
        (lambda batch: None, r"The weight of the loss is of type NoneType.*for every micro-batch"),
        (
            lambda batch: {"words": torch.ones(2), "rare": 1},
            r"The weight of the loss 'words' is a tensor of shape \(2,\)",
        ),
    ],
    ids=["names", "number", "none", "no scalar"],
)
def test_a_weight_that_cannot_be_right_is_told(tmp_path: Path, weights: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        ranks(tmp_path, weighing(weights)).step(og.cut(BATCH, [[2, 2, 2]]))


def test_a_wrong_weight_of_nothing_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"and 0 was told"):
        ranks(tmp_path, weighing(lambda batch: {"words": 0, "rare": 0})).step(og.cut(BATCH, [[6]]))


@pytest.mark.parametrize(("sizes", "passes"), [([6], 1), ([2, 2, 2], 7)], ids=["one", "three"])
def test_a_backward_for_each_part_but_in_the_last_micro_batch(tmp_path: Path, sizes: list[int], passes: int) -> None:
    group = ranks(tmp_path, og.as_parts)
    engine, calls = group.trainers[0].engine, []
    plain = engine.precision.backward
    engine.precision.backward = lambda *given, **options: calls.append(1) or plain(*given, **options)  # type: ignore
    group.step(og.cut(BATCH, [sizes]))

    assert len(calls) == passes


def test_a_part_without_a_gradient_may_be_there(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
        return {"words": og.crossed(outputs, labels), "constant": (torch.tensor(3.0, dtype=torch.float64), 2)}

    found = ranks(tmp_path, loss).step(og.cut(BATCH, [[2, 2, 2]]))
    words = ranks(tmp_path, og.as_tuple).step(og.cut(BATCH, [[2, 2, 2]]))

    torch.testing.assert_close(found.gradients, words.gradients)
    assert found.parts["constant"] == pytest.approx(1.5)


def test_sparse_gradients_are_brought_to_the_true_divisor() -> None:
    table, dense = nn.Embedding(5, 2, sparse=True), nn.Embedding(5, 2)
    dense.load_state_dict(table.state_dict())
    for layer in (table, dense):
        division = Division(SingleDevice(World(), og.CPU), torch.autograd.backward)
        for number, word in enumerate((1, 3, 1)):
            total = layer(torch.tensor(word)).square().sum()
            pairs = {"": (total, 3.0), "aside": (total * 2, 5.0)}
            division.backward(list(layer.parameters()), pairs, micro_batches=3, last=number == 2, uneven=False)

    torch.testing.assert_close(table.weight.grad.to_dense(), dense.weight.grad)


def changing(*turns: Any) -> Any:
    left = list(turns)
    return lambda outputs, labels, num_items_in_batch=None: left.pop(0)(outputs, labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_gpu_is_not_waited_for(dtype: torch.dtype) -> None:
    grads = [torch.ones(3, dtype=dtype, device="cuda") for _ in range(3)]
    factor = torch.tensor(0.5, dtype=torch.float64, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        _multiply(grads, factor)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert all((grad == 0.5).all() for grad in grads)


def test_parts_that_change_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has the parts none with a name, and had 'rare', 'value', 'words' before"):
        ranks(tmp_path, changing(og.as_parts, og.as_tuple)).step(og.cut(BATCH, [[3, 3]]))


@pytest.mark.parametrize("sizes", [[[3], [3]], [[3], [3], []]], ids=["all", "one has none"])
def test_parts_that_differ_between_ranks_are_told(tmp_path: Path, sizes: list[list[int]]) -> None:
    group = ranks(tmp_path, None, len(sizes))
    for trainer, loss in zip(group.trainers, (og.as_parts, og.as_tuple, og.as_tuple), strict=False):
        trainer.compute_loss_func = loss
    with pytest.raises(ModelError, match=r"on this rank and others elsewhere"):
        group.step(og.cut(BATCH, sizes))


def test_a_rank_that_never_had_a_micro_batch_knows_the_parts(tmp_path: Path) -> None:
    group = ranks(tmp_path, og.as_parts, 3)
    step = group.step(og.cut(BATCH, [[3, 1], [2], []]))
    whole = ranks(tmp_path, og.as_parts).step(og.cut(BATCH, [[6]]))

    assert step.parts == pytest.approx(whole.parts, rel=1e-6)


def test_means_beside_a_rank_without_a_micro_batch(tmp_path: Path) -> None:
    def mean(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        return outputs["value"].square().mean()

    step = ranks(tmp_path, mean, 3).step(og.cut(BATCH, [[3], [3], []]))
    whole = ranks(tmp_path, mean).step(og.cut(BATCH, [[6]]))

    torch.testing.assert_close(step.gradients, whole.gradients * 3)


def test_a_step_broken_off_leaves_nothing(tmp_path: Path) -> None:
    group = ranks(tmp_path, og.as_parts)
    trainer = group.trainers[0]
    (batches,) = og.cut(BATCH, [[2, 2, 2]])
    trainer.current_gradient_accumulation_steps, trainer.engine.on_last_of_step = 3, False
    trainer.training_step(trainer.model, batches[0])
    found = group.step([batches])

    assert torch.equal(found.gradients[0], ranks(tmp_path, og.as_parts).step([batches]).gradients[0])


def test_the_model_may_recompute_its_activations(tmp_path: Path) -> None:
    """Several backward passes go through a graph that keeps nothing."""

    class Recomputes(og.Tagger):
        def forward(self, *given: Any, **named: Any) -> Any:
            forward = super().forward
            return torch.utils.checkpoint.checkpoint(
                lambda x: forward(x, **named), *given, **named, use_reentrant=False
            )

    group = ranks(tmp_path, og.as_parts)
    trainer = group.trainers[0]
    trainer.model = trainer.engine.prepare(Recomputes())
    trainer.compute_loss = lambda model, inputs, **_: og.as_parts(model(inputs["tokens"]), inputs["labels"])
    found = group.step(og.cut(BATCH, [[2, 2, 2]]))

    torch.testing.assert_close(found.gradients, ranks(tmp_path, og.as_parts).step(og.cut(BATCH, [[6]])).gradients)
    assert isinstance(trainer, s.Trainer)
