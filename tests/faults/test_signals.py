"""Signals at every kind of moment, to one process or several: the promised code, one save, and an exact resume."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Reference
from tests.faults.stage import ROOT, Stage

# Where the program stands when it signals itself, and how often it has been there.
MOMENTS = [
    ("begin", 1),
    ("loading", 1),
    ("loading", 40),
    ("forward", 1),
    ("forward", 8),
    ("step_end", 5),
    ("evaluating", 1),
    ("evaluating", 9),
    ("saving", 1),
    ("saved", 1),
    ("epoch_end", 1),
    ("evaluating", 36),
    ("epoch_end", 2),
    ("train_end", 1),
]


def stopped(folder: Path, ranks: int) -> list[list[int]]:
    """Return signal and step with which each rank stopped."""
    return [json.loads((folder / f"stopped-{rank}").read_text()) for rank in range(ranks)]


def saved(folder: Path) -> list[int]:
    """Return the steps that were saved, in order."""
    path = folder / "saved.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def said(folder: Path, rank: int = 0) -> str:
    return (folder / f"said-{rank}.txt").read_text()


def check_stopped(folder: Path, codes: list[int], number: int) -> int:
    """Check that all ranks ended after the same step, with the code of the signal, and that this step is saved."""
    everyone = stopped(folder, len(codes))
    assert codes == [128 + number] * len(codes), said(folder)
    assert everyone == [everyone[0]] * len(codes)
    assert everyone[0][0] == number
    step = everyone[0][1]
    assert step == 0 or (folder / f"checkpoint-{step}").is_dir()
    return step


def check_goes_on(stage: Stage, folder: Path, whole: dict[str, Any], ranks: int = 1, **case: Any) -> None:
    """Resume, and compare the end with that of a run that nothing interrupted."""
    assert stage.run(folder, ranks, case=case) == [0] * ranks, said(folder)
    end = json.loads((folder / "end.json").read_text())
    assert end == whole


@pytest.mark.parametrize(("point", "count"), MOMENTS)
def test_one_process_stops_and_goes_on(
    point: str, count: int, stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    codes = stage.run(tmp_path, case={"point": point, "count": count})
    step = check_stopped(tmp_path, codes, signal.SIGTERM)
    if point not in ("epoch_end", "saved"):
        assert saved(tmp_path).count(step) <= 1
    check_goes_on(stage, tmp_path, reference())


@pytest.mark.parametrize(
    ("point", "count", "ranks", "signalled"),
    [
        ("forward", 5, 2, [1]),
        ("evaluating", 3, 2, [0]),
        ("saving", 1, 2, [0, 1]),
        ("begin", 1, 2, [1]),
        ("loading", 20, 3, [2]),
        ("evaluating", 2, 3, [0, 1, 2]),
    ],
)
def test_several_ranks_stop_after_the_same_step(
    point: str, count: int, ranks: int, signalled: list[int], stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    codes = stage.run(tmp_path, ranks, case={"point": point, "count": count, "ranks": signalled})
    check_stopped(tmp_path, codes, signal.SIGTERM)
    check_goes_on(stage, tmp_path, reference(ranks), ranks)


def test_nobody_leaves_before_the_others_know(stage: Stage, tmp_path: Path) -> None:
    """The first process holds what they agree through."""
    settings = {"on_signal": "stop", "eval_steps": 5}
    case = {"point": "forward", "count": 13, "settings": settings, "slow_to_settle": 0.5}
    assert stage.run(tmp_path, 2, case=case) == [143, 143], said(tmp_path, 1)


def interrupted_at_random(
    stage: Stage, whole: dict[str, Any], folder: Path, ranks: int, draw: random.Random, most: int
) -> int:
    """Signal a run from outside, so often at most, until it comes to its end, and compare; return how often it was."""
    stops = 0
    while stops < most:
        signalled = draw.choice([[draw.randrange(ranks)], list(range(ranks))])
        name = draw.choice(["SIGTERM", "SIGUSR1", "SIGINT"])
        request = {"signals": [name], "after": draw.uniform(0, 0.8), "ranks_signalled": signalled}
        codes = stage.run(folder, ranks, **request)
        if codes == [0] * ranks:
            assert json.loads((folder / "end.json").read_text()) == whole
            return stops
        step = check_stopped(folder, codes, getattr(signal, name))
        # The last step is saved by schedule, and once more when its epoch is at its end as well.
        assert saved(folder).count(step) <= (2 if step == 12 else 1)
        stops += 1
    check_goes_on(stage, folder, whole, ranks)
    return stops


@pytest.mark.parametrize(("ranks", "seed"), [(1, 0), (2, 1), (3, 2)])
def test_signals_at_random_moments(ranks: int, seed: int, stage: Stage, reference: Reference, tmp_path: Path) -> None:
    """Two for each number of ranks; more runs are begun where one has ended before."""
    draw, stops, runs = random.Random(seed), 0, 0
    while stops < 2:
        runs += 1
        stops += interrupted_at_random(stage, reference(ranks), tmp_path / str(runs), ranks, draw, 2 - stops)


@pytest.mark.soak
def test_a_hundred_signals_at_random_moments(stage: Stage, reference: Reference, tmp_path: Path) -> None:
    draw, stops, runs = random.Random(), 0, 0
    while stops < 100:
        ranks, runs = draw.choice([1, 2, 2, 3]), runs + 1
        stops += interrupted_at_random(stage, reference(ranks), tmp_path / str(runs), ranks, draw, 100 - stops)
    print(f"{stops} signals, {runs} runs that equal those without")


def test_a_second_interrupt_aborts(stage: Stage, tmp_path: Path) -> None:
    codes = stage.run(tmp_path, case={"point": "forward", "count": 8, "signals": ["SIGINT", "SIGINT"]})
    assert codes == [130]
    assert "Stopped by" not in said(tmp_path)
    assert saved(tmp_path) == []


def test_an_interrupt_that_does_not_stop_early_enough_keeps_the_last_checkpoint(
    stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    settings = {"preemption_grace": 0.001}
    codes = stage.run(tmp_path, case={"point": "forward", "count": 13, "settings": settings})
    assert (codes, saved(tmp_path)) == ([143], [5])
    assert stopped(tmp_path, 1) == [[15, 7]]
    assert "the last checkpoint is kept as it is" in said(tmp_path)
    check_goes_on(stage, tmp_path, reference())


def test_with_time_enough_it_is_saved(stage: Stage, tmp_path: Path) -> None:
    codes = stage.run(tmp_path, case={"point": "forward", "count": 13, "settings": {"preemption_grace": "5m"}})
    assert (codes, saved(tmp_path)) == ([143], [5, 7])


def test_ranks_are_of_one_mind_about_the_time_left(stage: Stage, reference: Reference, tmp_path: Path) -> None:
    case = {"point": "forward", "count": 13, "ranks": [1], "settings": {"preemption_grace": 0.001}}
    codes = stage.run(tmp_path, 2, case=case)
    assert codes == [143, 143]
    assert saved(tmp_path) == [5]
    check_goes_on(stage, tmp_path, reference(2), 2)


@pytest.mark.parametrize("count", [4, 6, 22])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_may_save_and_go_on(
    ranks: int, count: int, stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    """Nothing else saves. Where a run ends before all of its processes have heard, it is saved at its end."""
    settings: dict[str, Any] = {"save_strategy": "no"}
    whole = reference(ranks, settings=settings)
    case = {"point": "forward", "count": count, "ranks": [ranks - 1], "signals": ["SIGUSR1"]}
    case["settings"] = {**settings, "on_signal": {"SIGUSR1": "save"}}
    assert stage.run(tmp_path, ranks, case=case) == [0] * ranks
    assert json.loads((tmp_path / "end.json").read_text()) == whole
    steps = saved(tmp_path)
    assert len(steps) == 1, said(tmp_path)
    assert steps[0] >= count // 2
    check_goes_on(stage, tmp_path, whole, ranks, settings=settings)


def test_without_a_save_strategy_it_stops_and_says_that_nothing_is_saved(stage: Stage, tmp_path: Path) -> None:
    case: dict[str, Any] = {"point": "forward", "count": 8, "settings": {"save_strategy": "no"}}
    assert stage.run(tmp_path, case=case) == [143]
    assert saved(tmp_path) == []
    assert 'nothing is saved, as save_strategy="no" says' in said(tmp_path)
    case["settings"]["enable_jit_checkpoint"] = True
    assert stage.run(tmp_path / "jit", case=case) == [143]
    assert saved(tmp_path / "jit") == [4]


# What ends a run in the evaluation that is cut off: settings, the step of that evaluation, and which one it is.
ENDS = {
    "patience, with an epoch": ({}, 6, 2),
    "patience, within an epoch": ({"eval_steps": 2}, 4, 2),
    "patience, after an epoch": ({"eval_strategy": "epoch", "num_train_epochs": 4}, 12, 2),
    "the last step, within an epoch": ({"max_steps": 8, "eval_steps": 8, "logging_strategy": "epoch"}, 8, 1),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("end", ENDS)
def test_the_evaluation_that_ends_a_run_is_made_again_and_ends_it(
    end: str, ranks: int, stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    """The loss falls, and is wanted to grow: the second evaluation is at the end of a patience of one."""
    settings, step, number = ENDS[end]
    wanted = {"greater_is_better": True, "metric_for_best_model": "loss"}
    case: dict[str, Any] = {"patience": 1, "one_set": True, "settings": {**wanted, **settings}}
    whole = reference(ranks, **case)
    assert whole["step"] == step
    # An evaluation has 6 batches, of which the first rank has half if there are two.
    count = number * 6 // ranks - 1
    codes = stage.run(tmp_path, ranks, case={**case, "point": "evaluating", "count": count, "ranks": [0]})
    assert check_stopped(tmp_path, codes, signal.SIGTERM) == step
    check_goes_on(stage, tmp_path, whole, ranks, **case)


def test_a_save_that_is_due_after_the_evaluation_is_made_as_well(
    stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    """What was saved at the cut has the evaluation still to come; what is saved after it has it done."""
    case: dict[str, Any] = {"settings": {"save_steps": 3}}
    codes = stage.run(tmp_path, case={**case, "point": "evaluating", "count": 3})
    assert check_stopped(tmp_path, codes, signal.SIGTERM) == 3
    check_goes_on(stage, tmp_path, reference(), **case)
    assert saved(tmp_path) == [3, 6, 9, 12]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_workers_outlive_a_signal_to_the_whole_group(
    name: str, stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    """As torchrun sends it, and a scheduler to all processes of a job."""
    settings = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    case = {"point": "step_end", "count": 2, "group": True, "signals": [name], "settings": settings}
    codes = stage.run(tmp_path, 2, case=case)
    check_stopped(tmp_path, codes, getattr(signal, name))
    assert "DataLoader worker" not in said(tmp_path) + said(tmp_path, 1)
    check_goes_on(stage, tmp_path, reference(2), 2)


def test_torchrun_hands_the_signal_on_and_waits(reference: Reference, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    case = {"settings": {"dataloader_num_workers": 1}, "pace": 0.2}
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.faults.program"]
    with (tmp_path / "said.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(folder), json.dumps(case)],
            env=ENVIRONMENT,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
        while not (folder / "checkpoint-5").exists():
            assert process.poll() is None, (tmp_path / "said.txt").read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    everyone = stopped(folder, 2)
    assert everyone == [everyone[0]] * 2
    assert everyone[0][0] == signal.SIGTERM
    assert saved(folder)[-1] == everyone[0][1]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.small import Points, arguments, line
from surestep import Trainer

class Signals(Points):
    def __getitem__(self, index):
        if index == 13:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        return super().__getitem__(index)

trainer = Trainer(line(), arguments(Path(sys.argv[1])), train_dataset=Points(), eval_dataset=Signals())
{call}
print("came to its end")
"""


@pytest.mark.parametrize(
    ("call", "name", "code"),
    [
        ("trainer.evaluate()", "SIGTERM", 143),
        ("trainer.predict(Signals(), output_dir=sys.argv[1] + '/predictions')", "SIGINT", 130),
    ],
)
def test_a_script_ends_with_the_code_and_without_a_traceback(call: str, name: str, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.format(call=call), str(tmp_path), name]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "came to its end" not in ended.stdout
    assert f"{name}: finishing this batch, then stopping" in ended.stderr
    assert not (tmp_path / "predictions").exists()
