import itertools
import random

import pytest

from surestep.data.balance import BatchRebalanceSampler
from surestep.data.loaders import LoaderSettings, build_loader, set_epoch
from surestep.data.samplers import Seekable
from surestep.data.seek import seekable, skip_batches, skip_samples
from surestep.errors import ArgumentError


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
