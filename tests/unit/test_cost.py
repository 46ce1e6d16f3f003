"""The budget of a step: Python calls, operations and memory beside the mathematics.

Time is for `python -m benchmarks.overhead`.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from functools import partial
from typing import Any

import pytest
from benchmarks import overhead
from benchmarks.overhead import EVERY, Work, by_hand, calls_per_step, evaluated, evaluated_by_hand, ours, quiet
from torch.utils._python_dispatch import TorchDispatchMode

# Python calls beyond those of a loop by hand. Once something in the process has compiled a function, torch itself makes
# a dozen more, half of them for the second group of parameters that the trainer has.
STEP, MICRO_BATCH, EVALUATED, PREDICTED = 50, 20, 58, 110


def more_calls(here: Work, hand: Work) -> float:
    return calls_per_step(here) - calls_per_step(hand)


@pytest.mark.timeout(120)
def test_a_step_costs_at_most_a_fifth_more_calls_than_one_by_hand() -> None:
    hand, here = calls_per_step(by_hand), calls_per_step(ours)

    # The loop by hand reads the loader that the trainer made, so that the data counts for nothing in the ratio.
    assert here <= 1.2 * hand, f"{here:.0f} calls a step against {hand:.0f} by hand"
    assert here - hand <= STEP, f"{here:.0f} calls a step against {hand:.0f} by hand"


@pytest.mark.timeout(120)
def test_a_further_micro_batch_costs_little() -> None:
    more = more_calls(partial(ours, accumulation=4), partial(by_hand, accumulation=4))

    assert more <= STEP + 3 * MICRO_BATCH


@pytest.mark.timeout(120)
def test_a_batch_from_a_worker_costs_no_more_than_another() -> None:
    assert more_calls(partial(ours, workers=2), partial(by_hand, workers=2)) <= STEP


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("predicts", "limit"), [(False, EVALUATED), (True, PREDICTED)])
def test_a_batch_of_an_evaluation_costs_little(predicts: bool, limit: int) -> None:
    more = more_calls(partial(evaluated, predicts=predicts), partial(evaluated_by_hand, predicts=predicts))

    assert more <= limit


class Operations(TorchDispatchMode):
    """Counts what torch does in the steps between two logs, by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if EVERY < self.steps < 2 * EVERY - 1 and name.startswith("aten"):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def operations(work: Work) -> Counter[str]:
    """Return the operations of a step."""
    with quiet() as folder, Operations() as seen:
        work(folder, seen.step)
    steps = EVERY - 2
    assert not any(count % steps for count in seen.counts.values()), "steps differ"
    return Counter({name: count // steps for name, count in seen.counts.items()})


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("nonfinite", ["stop", "ignore"])
def test_between_logs_torch_does_what_it_does_by_hand(
    accumulation: int, nonfinite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = overhead._settings
    monkeypatch.setattr(overhead, "_settings", lambda *given: {**settings(*given), "nonfinite": nonfinite})
    hand = operations(partial(by_hand, accumulation=accumulation))
    here = operations(partial(ours, accumulation=accumulation))

    # Nothing is made, copied or read but for these.
    more = {
        # Parameters that do not decay are a group of their own.
        "aten._fused_adamw_.default": 1,
        "aten._foreach_add_.Scalar": 1,
        # What the sum of the losses was before the open group.
        "aten.copy_.default": 1,
        # On the CPU the host reads whether losses and norm are finite.
        "aten._local_scalar_dense.default": accumulation + 1 if nonfinite == "stop" else 0,
    }
    assert here - hand == Counter(more)
    assert not hand - here


def test_an_evaluation_reads_no_loss_before_its_end() -> None:
    assert operations(evaluated)["aten._local_scalar_dense.default"] == 0


def blocks_kept(work: Work) -> int:
    """Return how many more blocks of memory Python holds after 200 further steps without a log."""
    step, blocks = 0, {50: 0, 250: 0}

    def meter() -> None:
        nonlocal step
        step += 1
        if step in blocks:
            gc.collect()
            blocks[step] = sys.getallocatedblocks()

    with quiet() as folder:
        work(folder, meter)
    return blocks[250] - blocks[50]


def test_a_run_keeps_nothing_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "EVERY", overhead.STEPS)

    # Torch's profiling of loaders and optimizers leaves something of every few calls.
    assert blocks_kept(ours) - blocks_kept(by_hand) < 100, "of every other step something is left"
