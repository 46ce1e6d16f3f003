import pytest
import torch
from tests.unit.data.reads import skip_batches, skip_samples
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from surestep.data.loaders import LoaderSettings, build_loader
from surestep.data.samplers import SeededRandomSampler, SequentialSampler
from surestep.data.seek import seekable
from surestep.errors import DataError

SIZE, BATCH = 22, 4


def collate(features):
    return torch.tensor(features)


class Watched(torch.utils.data.Dataset):
    """Counts its reads."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        self.reads += 1
        return index


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(SIZE)


class Ragged(BatchSampler):
    """Batches of one, two, three ... samples."""

    def __init__(self):
        super().__init__(SequentialSampler(range(SIZE)), 1, drop_last=False)

    def __iter__(self):
        rest, size = list(range(SIZE)), 1
        while rest:
            yield rest[:size]
            rest, size = rest[size:], size + 1


class Reading(DataLoader):
    """A loader with an iterator of its own."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 100


class Foreign:
    """A loader that is no DataLoader."""

    def __iter__(self):
        return iter(list(torch.arange(SIZE).split(BATCH)))


def ours(data, workers=0, **options):
    settings = LoaderSettings(batch_size=BATCH, num_workers=workers)
    return build_loader(data, collate, settings, SeededRandomSampler(data, seed=3), training=True, **options)


MAKERS = {
    "ours": ours,
    "ours with workers": lambda data: ours(data, workers=2),
    "our order in a user's loader": lambda data: DataLoader(
        data, BATCH, sampler=SeededRandomSampler(data, 3), collate_fn=collate
    ),
    "torch's shuffle": lambda data: DataLoader(
        data, BATCH, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(1)
    ),
    "torch's order": lambda data: DataLoader(data, BATCH, collate_fn=collate),
    "a batch sampler": lambda data: DataLoader(data, batch_sampler=Ragged(), collate_fn=collate),
    "a list of batches": lambda data: DataLoader(data, batch_sampler=[[3, 1], [2], [0, 4]], collate_fn=collate),
    "no batches": lambda data: DataLoader(data, batch_size=None, sampler=[5, 3, 1, 0]),
    "our order without batches": lambda data: DataLoader(data, batch_size=None, sampler=SeededRandomSampler(data, 1)),
    "an iterator of its own": lambda data: Reading(data, BATCH, collate_fn=collate),
    "a stream": lambda _: DataLoader(Stream(), BATCH, collate_fn=collate),
    "foreign": lambda _: Foreign(),
}
TIERS = {
    "seek": ["ours", "ours with workers", "our order in a user's loader", "our order without batches"],
    "indices": ["torch's shuffle", "torch's order", "a batch sampler", "a list of batches", "no batches"],
    "reads": ["an iterator of its own", "a stream", "foreign"],
}


def as_lists(iterator):
    return [torch.as_tensor(batch).tolist() for batch in iterator]


@pytest.mark.parametrize(("tier", "kind"), [(tier, kind) for tier, kinds in TIERS.items() for kind in kinds])
def test_tiers(tier, kind):
    assert seekable(MAKERS[kind](Watched())) == tier


def own_order(kind, seeding):
    """The order that the loader gives by itself, except where its draws are to follow from the seed."""
    return as_lists(skip_batches(MAKERS[kind](Watched()), 0, seeding))


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_skipped_is_what_the_loader_gives(kind):
    assert own_order(kind, "global") == own_order(kind, "batch") == as_lists(MAKERS[kind](Watched()))


@pytest.mark.parametrize("seeding", ["batch", "sample", "global"])
@pytest.mark.parametrize("batches", [1, 2, 99])
@pytest.mark.parametrize("kind", MAKERS)
def test_skipping_batches_gives_the_rest_of_the_epoch(kind, batches, seeding):
    whole = as_lists(MAKERS[kind](Watched()))
    data = Watched()
    assert as_lists(skip_batches(MAKERS[kind](data), batches, seeding)) == whole[batches:]
    if seekable(MAKERS[kind](data)) != "reads" and "workers" not in kind:
        assert data.reads == sum(len(batch) if isinstance(batch, list) else 1 for batch in whole[batches:])


@pytest.mark.parametrize("kind", MAKERS)
def test_a_position_at_a_batchs_end_gives_the_same_batches(kind):
    whole = as_lists(MAKERS[kind](Watched()))
    samples = sum(len(batch) if isinstance(batch, list) else 1 for batch in whole[:2])
    if kind == "an iterator of its own":
        samples = 2 * BATCH
    assert as_lists(skip_samples(MAKERS[kind](Watched()), samples)) == whole[2:]


@pytest.mark.parametrize("kind", ["ours", "torch's shuffle", "a batch sampler"])
@pytest.mark.parametrize("samples", range(0, SIZE + 1, 3))
def test_a_position_inside_a_batch_loses_and_repeats_no_sample(kind, samples):
    def flat(batches):
        return [sample for batch in batches for sample in batch]

    whole = flat(as_lists(MAKERS[kind](Watched())))
    assert flat(as_lists(skip_samples(MAKERS[kind](Watched()), samples))) == whole[samples:]


@pytest.mark.parametrize("new_batch", [1, 3, 22])
def test_the_batch_size_may_change_between(new_batch):
    first, second = SeededRandomSampler(SIZE, seed=3), SeededRandomSampler(SIZE, seed=3)
    before = [index for batch in list(BatchSampler(first, 4, drop_last=False))[:3] for index in batch]
    loader = DataLoader(range(SIZE), new_batch, sampler=second, collate_fn=list)
    after = [index for batch in skip_samples(loader, 12) for index in batch]
    assert before + after == list(SeededRandomSampler(SIZE, seed=3))


def test_a_loader_that_is_read_stops_between_batches_only():
    with pytest.raises(DataError, match=r"6 samples do not end one of its batches \(of 4"):
        skip_samples(Foreign(), 6)


@pytest.mark.parametrize("samples", range(0, SIZE + 3, 3))
def test_a_stream_starts_a_full_batch_anywhere(samples):
    rest = list(range(SIZE))[samples:]
    cut = [rest[start : start + BATCH] for start in range(0, len(rest), BATCH)]
    assert as_lists(skip_samples(DataLoader(Stream(), BATCH, collate_fn=collate), samples)) == cut


@pytest.mark.parametrize("kind", ["ours", "torch's shuffle", "torch's order"])
def test_a_position_inside_a_batch_starts_a_full_one(kind):
    sizes = [len(batch) for batch in as_lists(skip_samples(MAKERS[kind](Watched()), 3))]
    assert sizes == [4, 4, 4, 4, 3]


def test_a_loader_that_is_read_past_its_end_is_empty():
    assert list(skip_samples(DataLoader(Stream(), SIZE, collate_fn=collate), 2 * SIZE)) == []


@pytest.mark.parametrize("kind", ["ours", "torch's order", "a batch sampler"])
def test_the_passes_after_it_are_whole(kind):
    loader = MAKERS[kind](Watched())
    whole = as_lists(MAKERS[kind](Watched()))
    list(skip_batches(loader, 2))
    if kind == "ours":
        loader.sampler.set_epoch(0)
    assert as_lists(loader) == whole


def test_replaying_keeps_a_subclass_and_its_own_attributes():
    class Mine(DataLoader):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.extra = 1

        def __len__(self):
            return 99

    loader = Mine(Watched(), BATCH, sampler=RandomSampler(range(4), generator=torch.Generator()), collate_fn=collate)
    assert seekable(loader) == "indices"
    assert as_lists(skip_batches(loader, 1)) == []
    assert loader.batch_sampler.sampler is loader.sampler


def test_a_position_draws_from_the_global_generator_what_a_start_draws():
    def after(samples):
        torch.manual_seed(0)
        list(skip_samples(ours(Watched()), samples))
        return torch.rand(2).tolist()

    assert after(0) == after(8)


def test_an_accelerate_loader_is_read():
    accelerate = pytest.importorskip("accelerate")
    loader = accelerate.data_loader.DataLoaderShard(Watched(), batch_size=BATCH, collate_fn=collate)
    assert isinstance(loader, DataLoader)
    assert seekable(loader) == "reads"
    assert as_lists(skip_batches(loader, 4)) == [[16, 17, 18, 19], [20, 21]]
