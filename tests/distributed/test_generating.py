"""Generation and prepared loaders on two ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.distributed.launch import launch
from tests.distributed.training import SIZE


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict]]:
    """What each rank of one and of two came to."""
    module = "tests.distributed.generating"
    return {size: launch(module, size, tmp_path_factory.mktemp(f"ranks{size}")) for size in (1, 2)}


def test_generations_are_those_of_one_process(groups: dict[int, list[dict]]) -> None:
    alone = groups[1][0]["generated"]
    for rank in groups[2]:
        assert torch.equal(rank["generated"]["predictions"], alone["predictions"])
        assert torch.equal(rank["generated"]["labels"], alone["labels"])


def test_a_prepared_loader_gives_each_rank_its_share(groups: dict[int, list[dict]]) -> None:
    one, two = (rank["prepared"] for rank in groups[2])
    alone = groups[1][0]["prepared"]

    for name in ("plain", "batched"):
        assert sorted(number for batch in one[name] + two[name] for number in batch) == list(range(SIZE))
    assert [one["plain"][0], two["plain"][0]] == alone["plain"][:2]
    assert one["batched"] == alone["batched"][::2]
    assert two["batched"] == alone["batched"][1::2]


def test_the_accelerator_brings_ranks_together(groups: dict[int, list[dict]]) -> None:
    for rank in groups[2]:
        assert rank["prepared"]["summed"].tolist() == [2.0, 4.0]
        assert rank["prepared"]["gathered"].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_script_of_the_originals_runs_under_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from transformers import Trainer, TrainingArguments\n"
        "from tests.distributed.training import Sentences, Tagger\n"
        "args = TrainingArguments(sys.argv[1], use_cpu=True, disable_tqdm=True, report_to='none', max_steps=2,\n"
        "    save_strategy='no', per_device_train_batch_size=3)\n"
        "trainer = Trainer(Tagger(), args, train_dataset=Sentences())\n"
        "trainer.train()\n"
        "name = f'{sys.argv[1]}/rank{args.process_index}of{args.world_size}'\n"
        "ours = {'module': torch.tensor(Trainer.__module__.startswith('surestep'))}\n"
        "torch.save(trainer.model.state_dict() | ours, name)\n",
        encoding="utf-8",
    )
    root = Path(__file__).parents[2]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "surestep", "exec", str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    ranks = [tmp_path / f"rank{rank}of2" for rank in range(2)]

    assert all(path.exists() for path in ranks), ended.stderr
    one, two = (torch.load(path, weights_only=True) for path in ranks)
    assert bool(one["module"])
    assert all(torch.equal(one[name], two[name]) for name in one)
