import itertools
import random

import pandas as pd
import pytest
import torch
from tests.unit.data.reads import skip_batches, skip_samples
from torch.utils.data import DataLoader

from surestep.data.grouping import BatchRebalanceSampler, LengthGroupedSampler, lengths_of
from surestep.data.loaders import LoaderSettings, build_loader, set_epoch
from surestep.data.samplers import Seekable
from surestep.data.seek import seekable
from surestep.data.sources import FrameDataset
from surestep.errors import ArgumentError, DataError


def lengths(kind, size):
    draw = random.Random(size)
    tables = {
        "even": lambda: draw.randint(1, 100),
        "skewed": lambda: int(draw.lognormvariate(4, 1.5)) + 1,
        "few": lambda: draw.choice([1, 5, 500]),
        "equal": lambda: 7,
    }
    return [tables[kind]() for _ in range(size)]


@pytest.mark.parametrize("kind", ["even", "skewed", "few", "equal"])
@pytest.mark.parametrize(("dp_size", "grad_accum"), [(1, 1), (1, 4), (2, 1), (3, 2), (4, 4), (9, 3), (16, 1)])
@pytest.mark.parametrize("per_group", [1, 2, 8])
@pytest.mark.parametrize(("shuffle", "drop_last"), [(True, True), (False, False)])
def test_batches_are_the_originals(kind, dp_size, grad_accum, per_group, shuffle, drop_last):
    tools = pytest.importorskip("transformers.trainer_pt_utils")
    groups = dp_size * grad_accum
    step = groups * per_group
    # A tail that fills the groups; smaller ones differ, and have a test of their own.
    table = lengths(kind, 3 * step + (groups if per_group > 1 else 0))
    for rank in {0, dp_size - 1}:
        options = {"shuffle": shuffle, "seed": 3, "rank": rank, "drop_last": drop_last}
        ours = BatchRebalanceSampler(table, step, dp_size, grad_accum, **options)
        theirs = tools.BatchRebalanceSampler(table, step, dp_size, grad_accum, **options)
        for epoch in range(2):
            ours.set_epoch(epoch)
            theirs.set_epoch(epoch)
            batches = list(ours)
            assert batches == list(theirs)
            assert len(batches) == len(ours) == len(theirs)


def test_a_group_may_cost_just_as_much_as_the_dearest():
    tools = pytest.importorskip("transformers.trainer_pt_utils")
    # Four samples of 200 tokens cost exactly what one of 600 does.
    table = [600, 200, 200, 200, 200, 1, 1, 1]
    for rank in range(2):
        ours = BatchRebalanceSampler(table, 8, 2, 2, shuffle=False, rank=rank)
        assert list(ours) == list(tools.BatchRebalanceSampler(table, 8, 2, 2, shuffle=False, rank=rank))


@pytest.mark.parametrize("size", [0, 1, 3, 7, 24, 25, 31])
@pytest.mark.parametrize("dp_size", [1, 2, 3])
def test_each_sample_comes_once_over_all_ranks(size, dp_size):
    table = lengths("even", size)
    samplers = [BatchRebalanceSampler(table, 12, dp_size, 2, rank=rank, drop_last=False) for rank in range(dp_size)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(one) for one in batches] == [len(sampler) for sampler in samplers]
    assert sorted(index for rank in batches for batch in rank for index in batch) == list(range(size))
    assert all(batch for rank in batches for batch in rank)


def test_groups_cost_about_the_same():
    table = lengths("skewed", 640)
    sampler = BatchRebalanceSampler(table, 64, 4, 2)

    def cost(batch):
        longest = max(table[index] for index in batch)
        return len(batch) * longest * (1 + 0.001 * longest)

    batches = list(sampler)
    plain = [sorted(range(640), key=table.__getitem__)[start : start + 8] for start in range(0, 64, 8)]
    spread = max(map(cost, batches[:2])) / min(map(cost, batches[:2]))
    assert spread < max(map(cost, plain)) / min(map(cost, plain))


@pytest.mark.parametrize(("effective", "dp_size", "grad_accum"), [(3, 2, 2), (4, 0, 1), (4, 1, 0)])
def test_settings_that_cannot_be_right_are_refused(effective, dp_size, grad_accum):
    with pytest.raises(ArgumentError, match=f"effective_batch_size={effective} for {dp_size} ranks of {grad_accum}"):
        BatchRebalanceSampler([1] * 10, effective, dp_size, grad_accum)


def loader(**options):
    table = lengths("even", 50)
    sampler = BatchRebalanceSampler(table, 8, 1, 2, **options)
    return build_loader(range(50), list, LoaderSettings(batch_size=4), sampler, training=True)


def test_it_brings_its_batches_to_a_loader_and_seeks_there():
    assert isinstance(loader().batch_sampler, Seekable)
    assert seekable(loader()) == "seek"
    whole = list(loader())
    assert len(whole) == 12
    assert list(skip_samples(loader(), 24)) == whole[6:]
    for batches in (1, 6, 12):
        assert list(skip_batches(loader(), batches)) == whole[batches:]


def test_a_position_inside_a_step_loses_and_repeats_no_sample():
    everything = [index for batch in loader(drop_last=False) for index in batch]
    sampler = loader(drop_last=False).batch_sampler
    sampler.seek(13)
    rest = list(itertools.chain.from_iterable(sampler))
    assert len(rest) == len(set(rest)) == 50 - 13
    assert set(rest) < set(everything)


def test_epochs_differ_and_are_told_through_the_loader():
    one = loader()
    first = list(one)
    assert list(one) != first
    set_epoch(one, 0)
    assert list(one) == first


class Recorder(torch.nn.Module):
    """Keeps the samples of each training forward."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, x, labels=None):
        self.seen += x.flatten().long().tolist()
        return {"loss": torch.nn.functional.mse_loss(self.linear(x), labels)}


LENGTHS = [
    [5, 3, 9, 9, 1, 7, 7, 7, 2, 9, 4],
    [4] * 30,
    list(range(100)),
    random.Random(0).choices(range(1, 40), k=1003),
    [3],
]


@pytest.mark.parametrize("lengths", LENGTHS, ids=len)
@pytest.mark.parametrize("batch_size", [1, 3, 4, 200])
@pytest.mark.parametrize("seed", [0, 42])
def test_length_grouping_starts_with_the_originals_order(seed, batch_size, lengths):
    tools = pytest.importorskip("transformers.trainer_pt_utils")
    torch.manual_seed(seed)
    theirs = tools.LengthGroupedSampler(batch_size, lengths=lengths)
    original = [
        index for batch in DataLoader(range(len(lengths)), 1, sampler=theirs, collate_fn=list) for index in batch
    ]
    assert list(LengthGroupedSampler(batch_size, lengths=lengths)) == original
    generator = torch.Generator().manual_seed(seed)
    evaluated = tools.LengthGroupedSampler(batch_size, lengths=lengths, generator=generator)
    assert list(LengthGroupedSampler(batch_size, lengths=torch.tensor(lengths), seed=seed)) == list(evaluated)


def test_length_grouping_is_the_order_that_the_original_trains_on(tmp_path):
    transformers = pytest.importorskip("transformers")
    rows = [
        {"x": torch.tensor([float(index)]), "labels": torch.tensor([0.0]), "input_ids": [0] * (index % 7 + 1)}
        for index in range(50)
    ]
    model = Recorder()
    args = transformers.TrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        seed=9,
        train_sampling_strategy="group_by_length",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    transformers.Trainer(model, args, train_dataset=rows).train()
    torch.manual_seed(9)
    ours = LengthGroupedSampler(4, rows)
    assert model.seen == list(ours)


def test_length_grouping_puts_like_lengths_together_and_the_longest_first():
    lengths = random.Random(1).choices(range(1, 100), k=400)
    sampler = LengthGroupedSampler(8, lengths=lengths, seed=0)
    order = list(sampler)
    assert sorted(order) == list(range(400))
    assert lengths[order[0]] == max(lengths)
    assert sampler.window == 96
    for start in range(0, 400, 96):
        window = [lengths[index] for index in order[start + 1 : start + 96]]
        assert sum(a < b for a, b in itertools.pairwise(window)) <= 1
    assert list(sampler) != order


def test_length_grouping_keeps_its_order_under_another_batch_size_by_its_window():
    lengths = random.Random(1).choices(range(1, 100), k=400)
    before = LengthGroupedSampler(8, lengths=lengths, seed=0)
    order = list(before)
    assert list(LengthGroupedSampler(7, lengths=lengths, seed=0)) != order
    after = LengthGroupedSampler(7, lengths=lengths, seed=0, window=before.window)
    after.seek(100)
    assert list(after) == order[100:]


@pytest.mark.parametrize("lengths", [[], [[1, 2]], 3])
def test_length_grouping_needs_a_length_for_each_sample(lengths):
    with pytest.raises(DataError, match="give one length for each sample"):
        LengthGroupedSampler(2, lengths=lengths)


def test_lengths_come_from_the_column_or_from_the_samples():
    rows = [{"input_ids": [1, 2], "size": 7, "pixels": [1]}, {"input_ids": [1], "size": 8, "pixels": [1, 2, 3]}]
    tables = [pd.DataFrame(rows), FrameDataset(pd.DataFrame(rows))]
    datasets = pytest.importorskip("datasets")
    tables += [datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows).with_format("torch")]
    for table in tables:
        assert lengths_of(table, "size") == [7, 8]
        assert lengths_of(table) == [2, 1]
        assert lengths_of(table, model_input_name="pixels") == [1, 3]
    assert lengths_of(rows, "size") == [2, 1]
    assert lengths_of(rows, model_input_name="pixels") == [1, 3]
    for lacking in (rows, [(1, 2)]):
        with pytest.raises(DataError, match="no 'words' to measure; give the dataset a column 'length'"):
            lengths_of(lacking, model_input_name="words")
