"""What a reader gives: the same batches, and the same random draws in them, however and from wherever they are read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, get_worker_info

from surestep.data.grouping import BatchRebalanceSampler
from surestep.data.loaders import LoaderSettings, build_loader
from surestep.data.placed import place_loader
from surestep.data.reading import DataSeeding, Reader
from surestep.data.samplers import SeededRandomSampler, SequentialSampler
from surestep.errors import CheckpointError
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.runtime.world import World

SIZE, BATCH, SEED = 22, 4, 9
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")


def drawn() -> Tensor:
    """One number from each default generator; normal ones, so that one of a pair waits in the generator."""
    return torch.tensor([random.gauss(0, 1), np.random.randn(), float(torch.randn(()))], dtype=torch.float64)


class Noisy(Dataset[Any]):
    """Samples that carry their number and what was drawn for them."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, drawn()


class NoisyTable(Noisy):
    """The same, fetched by the batch."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class NoisyStream(IterableDataset[Any]):
    """The same as a stream, shuffled in each epoch by the default generator, or shared out among workers."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        info = get_worker_info()
        own: Any = random.sample(range(SIZE), SIZE) if info is None else range(info.id, SIZE, info.num_workers)
        return ((index + 100 * self.epoch, drawn()) for index in own)


def collate(samples: list[Any]) -> list[list[float]]:
    """Each sample as a list of numbers, the last of which is drawn here."""
    return [[index, *noise.tolist(), float(torch.rand(()))] for index, noise in samples]


def loader_of(dataset: Any, *, batch: int = BATCH, workers: int = 0, world: World | None = None, **more: Any) -> Any:
    settings = LoaderSettings(batch_size=batch, num_workers=workers, **more)
    sampler = None if isinstance(dataset, IterableDataset) else SeededRandomSampler(SIZE, SEED)
    return build_loader(dataset, collate, settings, sampler, training=True, seed=SEED, world=world)


def reader_of(loader: Any, seeding: DataSeeding = "batch", world: World | None = None) -> Reader:
    return Reader(loader, seed=SEED, seeding=seeding, world=world)


def epochs(reader: Reader, count: int = 3) -> list[list[Any]]:
    return [list(reader.batches(epoch)) for epoch in range(count)]


class Lazy(BatchSampler):
    """Draws the batches one by one from every default generator."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(6):
            yield [random.randrange(SIZE), int(np.random.randint(SIZE)), int(torch.randint(SIZE, ()))]


class OwnIterator(DataLoader[Any]):
    """A loader with an iterator of its own."""

    def __iter__(self) -> Any:
        return (batch for batch in super().__iter__())


class Foreign:
    """A loader that torch did not make."""

    def __iter__(self) -> Iterator[Any]:
        return (collate([(index, drawn())]) for index in range(SIZE))


MAKERS: dict[str, Callable[[], Any]] = {
    "a map": lambda: loader_of(Noisy()),
    "a table": lambda: loader_of(NoisyTable()),
    "two workers": lambda: loader_of(Noisy(), workers=2),
    "workers that are kept": lambda: loader_of(Noisy(), workers=2, persistent_workers=True),
    "a user's loader": lambda: DataLoader(Noisy(), BATCH, sampler=SequentialSampler(range(SIZE)), collate_fn=collate),
    "a user's batches": lambda: DataLoader(
        Noisy(), batch_sampler=Lazy(range(SIZE), 3, drop_last=False), collate_fn=collate
    ),
    "no batches": lambda: DataLoader(
        Noisy(), batch_size=None, sampler=SequentialSampler(range(SIZE)), collate_fn=lambda one: collate([one])
    ),
    "placed": lambda: place_loader(
        DataLoader(Noisy(), BATCH, shuffle=True, collate_fn=collate), seed=1, device=None, world=World()
    ),
    "a stream": lambda: loader_of(NoisyStream()),
    "a stream in two workers": lambda: loader_of(NoisyStream(), workers=2),
    "a stream in workers that are kept": lambda: loader_of(NoisyStream(), workers=2, persistent_workers=True),
    "a stream without batches": lambda: DataLoader(
        NoisyStream(), batch_size=None, collate_fn=lambda one: collate([one])
    ),
    "an iterator of its own": lambda: OwnIterator(Noisy(), BATCH, collate_fn=collate),
    "foreign": Foreign,
}


def restless(batches: Iterator[Any]) -> list[Any]:
    """Read on while training draws from every generator."""
    seen = []
    for batch in batches:
        seen.append(batch)
        for _ in range(random.randrange(3)):
            drawn()
    return seen


@pytest.mark.parametrize("kind", MAKERS)
def test_epochs_are_functions_of_their_number(kind: str) -> None:
    random.seed(1)
    state = capture_random_state()
    whole = epochs(reader_of(MAKERS[kind]()))
    assert whole[0] != whole[1] != whole[2]
    restore_random_state(state)
    assert restless(reader_of(MAKERS[kind]()).batches(0)) == whole[0]
    if kind != "a user's batches":  # which begins with the generators of the run, as in the original
        drawn()
        assert restless(reader_of(MAKERS[kind]()).batches(2)) == whole[2]


@pytest.mark.parametrize("seeding", ["batch", "sample"])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_read_before_changes_nothing(kind: str, seeding: DataSeeding) -> None:
    state = capture_random_state()
    whole = list(reader_of(MAKERS[kind](), seeding).batches(1))
    for done in (1, 4):
        restore_random_state(state)
        assert restless(reader_of(MAKERS[kind](), seeding).batches(1, done=done)) == whole[done:]


@pytest.mark.parametrize("seeding", ["batch", "sample"])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_generators_of_the_training_are_left_alone(kind: str, seeding: DataSeeding) -> None:
    """But for the one number that torch draws for the workers at the start of each pass."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    drawn()
    state = capture_random_state()
    torch.empty((), dtype=torch.int64).random_()
    expected = [drawn() for _ in range(3)]
    restore_random_state(state)
    batches = reader_of(MAKERS[kind](), seeding).batches(0)
    if kind == "foreign":
        torch.empty((), dtype=torch.int64).random_()
    if kind == "a user's batches":
        return
    seen = []
    for _ in range(3):
        next(batches)
        seen.append(drawn())
    assert torch.equal(torch.stack(seen), torch.stack(expected))


@pytest.mark.parametrize("seeding", ["batch", "sample"])
def test_any_number_of_workers_gives_the_same(seeding: DataSeeding) -> None:
    alone = epochs(reader_of(loader_of(Noisy()), seeding))
    assert epochs(reader_of(loader_of(NoisyTable()), seeding)) == alone
    for workers, more in ((1, {}), (2, {}), (2, {"persistent_workers": True}), (2, {"prefetch_factor": 4})):
        assert epochs(reader_of(loader_of(Noisy(), workers=workers, **more), seeding)) == alone


def test_workers_that_are_started_afresh_give_the_same() -> None:
    spawned = loader_of(Noisy(), workers=1, multiprocessing_context="spawn")
    assert list(reader_of(spawned).batches(1)) == list(reader_of(loader_of(Noisy())).batches(1))


def of_the_world(size: int, batch: int, seeding: DataSeeding, make: Any = None) -> list[list[list[Any]]]:
    """Return the batches of each rank."""
    worlds = [World(rank, size) for rank in range(size)]
    make = make or (lambda world: loader_of(Noisy(), batch=batch, world=world))
    return [list(reader_of(make(world), seeding, world).batches(1)) for world in worlds]


def by_sample(ranks: list[list[list[Any]]]) -> dict[float, list[float]]:
    """Return what was drawn for each sample in the dataset."""
    samples = list(chain.from_iterable(chain.from_iterable(ranks)))
    assert len(samples) == SIZE
    return {sample[0]: sample[1:-1] for sample in samples}


def test_a_sample_draws_the_same_under_any_batch_size_and_world_size() -> None:
    alone = by_sample(of_the_world(1, BATCH, "sample"))
    assert len({tuple(noise) for noise in alone.values()}) == SIZE
    for world, batch in ((1, 1), (1, 7), (2, 4), (3, 3), (2, 20)):
        assert by_sample(of_the_world(world, batch, "sample")) == alone


def rebalancing(world: World) -> Any:
    lengths = [1 + (7 * index) % 13 for index in range(SIZE)]
    sampler = BatchRebalanceSampler(lengths, 8, world.size, 2, rank=world.rank, drop_last=False)
    return DataLoader(Noisy(), batch_sampler=sampler, collate_fn=collate)


def by_batch_sampler(world: World) -> Any:
    batches = BatchSampler(SequentialSampler(range(SIZE)), 3, drop_last=False)
    return place_loader(
        DataLoader(Noisy(), batch_sampler=Ragged(batches), collate_fn=collate), seed=1, device=None, world=world
    )


class Ragged(BatchSampler):
    """Batches of one, two, three ... samples."""

    def __init__(self, batches: BatchSampler) -> None:
        super().__init__(batches.sampler, 1, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        rest, size = list(range(SIZE)), 1
        while rest:
            yield rest[:size]
            rest, size = rest[size:], size + 1


def distributed(world: World) -> Any:
    from torch.utils.data.distributed import DistributedSampler

    sampler = DistributedSampler(range(SIZE), world.size, world.rank)
    return DataLoader(Noisy(), BATCH, sampler=sampler, collate_fn=collate)


@pytest.mark.parametrize("seeding", ["batch", "sample"])
@pytest.mark.parametrize("make", [None, rebalancing, distributed])
def test_ranks_draw_apart(make: Any, seeding: DataSeeding) -> None:
    ranks = of_the_world(2, BATCH, seeding, make)
    noises = [tuple(sample[1:]) for batch in chain.from_iterable(ranks) for sample in batch]
    assert len(set(noises)) == len(noises) == SIZE


@pytest.mark.parametrize("make", [rebalancing, distributed])
def test_ranks_that_share_out_by_themselves_go_on_exactly(make: Any) -> None:
    whole = of_the_world(2, BATCH, "batch", make)
    for rank, batches in enumerate(whole):
        world = World(rank, 2)
        for done in range(len(batches)):
            assert list(reader_of(make(world), world=world).batches(1, done=done)) == batches[done:]


def test_places_of_a_users_batches_count_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surestep.data.ranks.from_main", lambda found: found)
    alone = by_sample(of_the_world(1, 0, "sample", by_batch_sampler))
    assert by_sample(of_the_world(2, 0, "sample", by_batch_sampler)) == alone


def test_ranks_that_read_a_stream_from_end_to_end_read_the_same() -> None:
    worlds = [World(rank, 2) for rank in range(2)]
    ranks = [list(reader_of(loader_of(NoisyStream(), world=world), world=world).batches(0)) for world in worlds]
    numbers = [sample[0] for batch in chain.from_iterable(ranks) for sample in batch]
    assert sorted(numbers) == list(range(SIZE))
    # What is drawn in collating is each rank's own.
    assert not {sample[-1] for batch in ranks[0] for sample in batch} & {
        sample[-1] for batch in ranks[1] for sample in batch
    }


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_of_a_stream_are_told_the_epoch(persistent: bool) -> None:
    reader = reader_of(loader_of(NoisyStream(), workers=2, persistent_workers=persistent))
    for epoch, batches in enumerate(epochs(reader)):
        assert sorted(sample[0] for batch in batches for sample in batch) == [
            index + 100 * epoch for index in range(SIZE)
        ]


class Pids(Noisy):
    def __getitem__(self, index: int) -> Any:
        return os.getpid()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("persistent", [True, False])
def test_workers_are_kept_if_asked_for(stream: bool, persistent: bool) -> None:
    data: Any = Pids() if not stream else Numbers()
    loader = DataLoader(data, BATCH, num_workers=1, persistent_workers=persistent)
    reader = reader_of(loader)
    pids = [{int(pid) for batch in reader.batches(epoch) for pid in batch} for epoch in range(3)]
    # The last pass does not follow the one before, as after going back to a checkpoint.
    pids.append({int(pid) for batch in reader.batches(1) for pid in batch})
    assert all(len(found) == 1 for found in pids)
    assert (pids[0] == pids[1] == pids[2]) is persistent
    if stream:
        assert pids[3] != pids[2]
    assert loader._iterator is None


class Numbers(IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        return (os.getpid() for _ in range(SIZE))


class Told(Noisy):
    """Says what a worker finds where torch keeps the dataset."""

    told = 0

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        assert info is not None
        assert info.dataset is self
        return self.told


def tell(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    dataset: Any = info.dataset
    dataset.told = 10 + worker


def test_users_find_their_dataset_in_a_worker() -> None:
    loader = DataLoader(Told(), SIZE // 2, num_workers=2, worker_init_fn=tell)
    assert [set(batch.tolist()) for batch in reader_of(loader).batches(0)] == [{10}, {11}]


def test_the_loader_given_stays_as_it_is() -> None:
    loader = loader_of(Noisy())
    parts = dict(vars(loader))
    list(reader_of(loader).batches(0, done=2))
    assert vars(loader) == parts


def test_a_collator_changed_between_epochs_is_used() -> None:
    loader = loader_of(Noisy())
    reader = reader_of(loader)
    list(reader.batches(0))
    loader.collate_fn = len
    assert list(reader.batches(1)) == [4, 4, 4, 4, 4, 2]


class OwnGenerator(Noisy):
    """A dataset with a generator of its own, which is seeded for each batch."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def set_batch_seed(self, seed: int) -> None:
        self.generator = np.random.default_rng([seed, 5])

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.tensor([self.generator.random()])


@pytest.mark.parametrize("seeding", ["batch", "sample"])
def test_a_generator_of_its_own_can_be_seeded(seeding: DataSeeding) -> None:
    whole = list(reader_of(loader_of(OwnGenerator()), seeding).batches(0))
    assert len({sample[1] for batch in whole for sample in batch}) == SIZE
    assert list(reader_of(loader_of(OwnGenerator(), workers=2), seeding).batches(0, done=3)) == whole[3:]


def test_an_error_in_a_dataset_leaves_the_generators_as_they_were() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            drawn()
            raise KeyError(index)

    batches = reader_of(loader_of(Broken())).batches(0)
    before = capture_random_state()
    with pytest.raises(KeyError):
        next(batches)
    assert random.getstate() == before["python"]
    assert torch.equal(torch.get_rng_state(), before["cpu"])


def test_an_endless_stream_is_read_batch_by_batch() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            return iter(lambda: 1, 0)

    batches = reader_of(DataLoader(Endless(), 3)).batches(0)
    assert [batch.tolist() for batch in islice(batches, 2)] == [[1, 1, 1]] * 2


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 4, 4, 4, 2]), (True, [4] * 5)])
@pytest.mark.parametrize("seeding", ["batch", "sample", "global"])
def test_the_tail_of_a_stream(drop_last: bool, sizes: list[int], seeding: DataSeeding) -> None:
    reader = reader_of(loader_of(NoisyStream(), drop_last=drop_last), seeding)
    assert [len(batch) for batch in reader.batches(0)] == sizes


def test_a_run_goes_on_by_the_rule_of_its_order() -> None:
    begun = reader_of(loader_of(Noisy()))
    assert begun.state_dict()["order"] == "randperm"
    sampler: Any = begun.loader.sampler
    sampler.rule = "keyed"
    whole, state = list(begun.batches(1)), begun.state_dict()
    assert whole != list(reader_of(loader_of(Noisy())).batches(1))
    resumed = reader_of(loader_of(Noisy()))
    resumed.load_state_dict(state)
    assert list(resumed.batches(1, done=2)) == whole[2:]


def test_a_rule_that_is_not_known_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'sorted'"):
        reader_of(loader_of(Noisy())).load_state_dict({"order": "sorted", "generators": {}, "workers": {}})


def test_workers_that_are_kept_draw_their_number_once_in_a_run_resumed_or_not() -> None:
    def drawn_after(reader: Reader, epoch: int, done: int = 0) -> float:
        torch.manual_seed(4)
        next(reader.batches(epoch, done=done))
        return float(torch.rand(()))

    def kept() -> Reader:
        return reader_of(loader_of(Noisy(), workers=1, persistent_workers=True))

    whole = kept()
    first = drawn_after(whole, 0)
    in_the_first = whole.state_dict()
    second = drawn_after(whole, 1)
    in_the_second = whole.state_dict()
    assert first != second
    for state, epoch, done, expected in (
        (in_the_first, 0, 2, first),
        (in_the_first, 1, 0, second),
        (in_the_second, 1, 2, second),
        (in_the_second, 2, 0, second),
    ):
        for reader in (kept(), whole):  # a new run, and one that goes back
            reader.load_state_dict(state)
            assert drawn_after(reader, epoch, done) == expected
