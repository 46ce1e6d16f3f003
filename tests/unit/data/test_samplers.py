import itertools
import sys

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torch.utils.data import SequentialSampler as TorchSequentialSampler

from surestep.data.loaders import LoaderSettings, build_loader, set_epoch
from surestep.data.samplers import (
    SeededRandomSampler,
    Seekable,
    SequentialSampler,
    WeightedSeededSampler,
    adopt,
)
from surestep.errors import DataError


def randperm(size, seed):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


class Samples(torch.utils.data.Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"x": torch.tensor([float(index)]), "labels": torch.tensor([0.0])}


class Recorder(torch.nn.Module):
    """Keeps the samples of each training forward."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, x, labels=None):
        self.seen.append(x.flatten().long().tolist())
        return {"loss": torch.nn.functional.mse_loss(self.linear(x), labels)}


@pytest.mark.parametrize("data_seed", [None, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_random_order_is_the_one_that_the_original_trains_on(data_seed, drop_last, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = Recorder()
    args = transformers.TrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=4,
        num_train_epochs=3,
        seed=11,
        data_seed=data_seed,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        dataloader_drop_last=drop_last,
        dataloader_pin_memory=False,
    )
    transformers.Trainer(model, args, train_dataset=Samples(23)).train()

    seed = 11 if data_seed is None else data_seed
    loader = build_loader(
        Samples(23),
        lambda features: [int(feature["x"]) for feature in features],
        LoaderSettings(batch_size=4, drop_last=drop_last),
        RandomSampler(range(23)),
        training=True,
        seed=seed,
    )
    ours = []
    for epoch in range(3):
        set_epoch(loader, epoch)
        ours.extend(loader)
    assert ours == model.seen
    assert len(ours) == 3 * (5 if drop_last else 6)


def test_order_is_a_function_of_seed_and_epoch_alone():
    sampler = SeededRandomSampler(200_000, seed=3)
    sampler.set_epoch(4)
    torch.rand(17)
    assert list(sampler) == randperm(200_000, 7)


def test_a_complete_pass_moves_on_to_the_next_epoch_and_a_broken_one_does_not():
    sampler = SeededRandomSampler(range(10), seed=0)
    assert [list(sampler) for _ in range(3)] == [randperm(10, epoch) for epoch in range(3)]
    assert list(itertools.islice(sampler, 4)) == randperm(10, 3)[:4]
    assert list(sampler) == randperm(10, 3)


def test_it_draws_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    list(SeededRandomSampler(50, seed=0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "options", [{"replacement": True}, {"replacement": True, "num_samples": 70}, {"num_samples": 25}]
)
def test_torchs_options_mean_what_they_mean_to_torch(options):
    sampler = SeededRandomSampler(range(10), seed=6, **options)
    sampler.set_epoch(2)
    twin = RandomSampler(range(10), **options, generator=torch.Generator().manual_seed(8))
    assert len(sampler) == len(twin)
    assert list(sampler) == list(twin)


@pytest.mark.parametrize("start", [0, 1, 9, 20])
@pytest.mark.parametrize("make", [lambda: SeededRandomSampler(20, seed=1), lambda: SequentialSampler(range(20))])
def test_seek_starts_inside_the_epoch_once(make, start):
    whole = list(make())
    sampler = make()
    sampler.seek(start)
    assert len(sampler) == 20
    assert list(sampler) == whole[start:]
    if isinstance(sampler, SeededRandomSampler):
        sampler.set_epoch(0)
    assert list(sampler) == whole


@pytest.mark.parametrize("start", [-1, 21])
@pytest.mark.parametrize("sampler", [SeededRandomSampler(20, seed=1), SequentialSampler(range(20))])
def test_seek_outside_the_epoch_is_refused(sampler, start):
    with pytest.raises(DataError, match=f"{start} samples into an epoch of 20"):
        sampler.seek(start)


def test_an_empty_dataset_has_no_random_order():
    with pytest.raises(DataError, match="empty"):
        SeededRandomSampler([], seed=0)


def test_adopt_replaces_torchs_own_samplers_only():
    class Mine(RandomSampler):
        pass

    assert type(adopt(TorchSequentialSampler(range(3)), None)) is SequentialSampler
    adopted = adopt(RandomSampler(range(9), replacement=True, num_samples=4), 2)
    assert type(adopted) is SeededRandomSampler
    assert (adopted.replacement, adopted.num_samples, adopted.seed) == (True, 4, 2)
    for kept, seed in [(RandomSampler(range(3)), None), (Mine(range(3)), 1), ([2, 0, 1], 1)]:
        assert adopt(kept, seed) is kept


def test_ours_pass_for_torchs_samplers():
    assert isinstance(SeededRandomSampler(3, 0), RandomSampler)
    assert isinstance(SequentialSampler(range(3)), TorchSequentialSampler)
    seekers = [SeededRandomSampler(3, 0), SequentialSampler(range(3))]
    assert all(isinstance(one, Seekable) for one in [*seekers, WeightedSeededSampler([1], 1, 0)])


def test_reading_the_order_costs_no_python_call_per_sample():
    calls = []
    batches = iter(BatchSampler(SeededRandomSampler(1000, 0), 100, drop_last=False))
    next(batches)
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    next(batches)
    sys.setprofile(None)
    assert len(calls) <= 1


def test_a_loader_over_our_sampler_reads_only_what_it_yields():
    read = []

    class Watched(Samples):
        def __getitem__(self, index):
            read.append(index)
            return index

    sampler = SeededRandomSampler(20, seed=1)
    loader = DataLoader(Watched(20), batch_size=4, sampler=sampler, collate_fn=list)
    sampler.seek(10)
    assert list(loader) == [read[:4], read[4:8], read[8:]]
    assert read == randperm(20, 1)[10:]


@pytest.mark.parametrize("replacement", [True, False])
def test_weighted_order_is_torchs_draw(replacement):
    weights = [0.1, 0.0, 3.0, 2.0, 1.0]
    sampler = WeightedSeededSampler(weights, 4, seed=5, replacement=replacement)
    sampler.set_epoch(2)
    twin = torch.utils.data.WeightedRandomSampler(weights, 4, replacement, torch.Generator().manual_seed(7))
    assert list(sampler) == list(twin)
    sampler.set_epoch(2)
    sampler.seek(3)
    assert list(sampler) == list(twin.__class__(weights, 4, replacement, torch.Generator().manual_seed(7)))[3:]


def test_weights_are_chances():
    order = list(WeightedSeededSampler([1, 0, 3], 4000, seed=0))
    assert order.count(1) == 0
    assert order.count(2) / len(order) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "number", "replacement", "said"),
    [
        ([[1.0]], 1, True, r"weights of shape \(1, 1\)"),
        ([1.0, -1.0], 1, True, "negative or not finite"),
        ([1.0, float("nan")], 1, True, "negative or not finite"),
        ([1.0], 0, True, "num_samples=0; give 1 or more"),
        ([0.0, 0.0], 1, True, "with 0 weights above 0"),
        ([1.0, 0.0], 2, False, "num_samples=2 with 1 weights above 0"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(weights, number, replacement, said):
    with pytest.raises(DataError, match=said):
        WeightedSeededSampler(weights, number, seed=0, replacement=replacement)
