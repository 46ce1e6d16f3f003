"""A stream that tells where it is is taken up there, with nothing read again; any other is read again, and says so."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from surestep.data.loaders import LoaderSettings, build_loader
from surestep.data.ranks import RankStream
from surestep.data.reading import Reader
from surestep.data.streams import ShuffledStream, at_position, origin, position_of, untold
from surestep.errors import DataError
from surestep.runtime.world import World

SIZE, BATCH = 22, 4
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:Length of IterableDataset:UserWarning"),
]


class Told(IterableDataset[Any]):
    """Numbers with a draw each, shared out among workers, which say how far they have come. `read` are those read."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.at = 0
        self.begin = 0
        self.read: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        part = range(self.size) if info is None else range(info.id, self.size, info.num_workers)
        self.at, self.begin = self.begin, 0
        for number in part[self.at :]:
            self.at += 1
            self.read.append(number)
            yield number, torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.begin = state["at"]


class Untold(Told):
    """The same without a word."""

    state_dict: Any = None


def plain(example: dict[str, int]) -> dict[str, int]:
    return example


def table() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"number": list(range(SIZE))})


def rows(shards: list[int]) -> Iterator[dict[str, int]]:
    for shard in shards:
        yield from ({"number": number} for number in range(shard, SIZE, 3))


def doubled(batch: dict[str, list[int]]) -> dict[str, list[int]]:
    return {"number": [number for number in batch["number"] for _ in range(2)]}


# What `datasets` makes a stream of; each is read from every place.
SOURCES: dict[str, Callable[[], Any]] = {
    "table": lambda: table().to_iterable_dataset(num_shards=3),
    "generator": lambda: datasets.IterableDataset.from_generator(rows, gen_kwargs={"shards": [0, 1, 2]}),
    "mapped": lambda: SOURCES["table"]().map(plain),
    "mapped by the batch": lambda: SOURCES["table"]().map(doubled, batched=True, batch_size=3),
    "filtered": lambda: SOURCES["generator"]().filter(lambda row: row["number"] % 4 != 1),
    "taken": lambda: SOURCES["table"]().skip(3).take(15),
    "selected": lambda: SOURCES["table"]().select_columns(["number"]),
    "repeated": lambda: SOURCES["generator"]().repeat(2),
    "formatted": lambda: SOURCES["table"]().with_format("torch"),
    "joined": lambda: datasets.concatenate_datasets([SOURCES["table"](), SOURCES["generator"]()]),
    "in turn": lambda: datasets.interleave_datasets([SOURCES["table"](), SOURCES["generator"]()]),
    "drawn": lambda: datasets.interleave_datasets([SOURCES["table"](), SOURCES["mapped"]()], [0.3, 0.7], seed=4),
    "windows": lambda: ShuffledStream(SOURCES["mapped"](), 6, seed=1),
    "windows of one's own": lambda: ShuffledStream(Told(), 5),
}


def loader(stream: Any, workers: int = 0, world: World | None = None) -> DataLoader[Any]:
    settings = LoaderSettings(batch_size=BATCH, num_workers=workers)
    return build_loader(stream, list, settings, training=True, world=world, seed=0)


def reader(stream: Any, workers: int = 0, world: World | None = None) -> Reader:
    return Reader(loader(stream, workers, world), seed=3, world=world)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def goes_on(make: Callable[[], Any], workers: int, epoch: int, places: list[int] | None = None) -> None:
    """Read from each of the places as well as from the beginning, and compare; the next epoch too."""
    whole = list(reader(make(), workers).batches(epoch))
    following = list(reader(make(), workers).batches(epoch + 1))
    assert len(whole) > 3

    for done in places or range(1, len(whole) + 1):
        first = reader(make(), workers)
        assert same(list(islice(first.batches(epoch), done)), whole[:done])
        again = reader(make(), workers)
        again.load_state_dict(first.state_dict())

        assert same(list(again.batches(epoch, done=done)), whole[done:]), f"behind {done} batches"
        assert same(list(again.batches(epoch + 1)), following), f"the epoch after one begun behind {done} batches"


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("make", [Told, *SOURCES.values()], ids=["told", *SOURCES])
def test_a_stream_goes_on_from_every_place(make: Callable[[], Any], epoch: int) -> None:
    goes_on(make, 0, epoch)


@pytest.mark.parametrize("name", ["generator", "mapped by the batch", "drawn", "windows"])
def test_a_stream_goes_on_where_its_workers_were(name: str) -> None:
    goes_on(SOURCES[name], 2, 0, [3])


@pytest.mark.parametrize(("workers", "places"), [(2, [1, 4]), (3, [1, 2, 5])])
def test_workers_take_the_parts_that_are_next(workers: int, places: list[int]) -> None:
    goes_on(Told, workers, 1, places)


@pytest.mark.parametrize("done", [1, 3, 5])
def test_nothing_is_read_again(done: int) -> None:
    first = reader(Told())
    list(islice(first.batches(0), done))
    stream = Told()
    again = reader(stream)
    again.load_state_dict(first.state_dict())

    next(again.batches(0, done=done))

    assert stream.read == list(range(done * BATCH, min(done * BATCH + BATCH, SIZE)))


def test_a_shuffled_stream_reads_its_window_again_and_no_more() -> None:
    first = reader(ShuffledStream(Told(2000), 50))
    list(islice(first.batches(0), 300))
    inner = Told(2000)
    again = reader(ShuffledStream(inner, 50))
    again.load_state_dict(first.state_dict())

    next(again.batches(0, done=300))

    assert inner.read == list(range(1200, 1250))


def test_windows_give_each_sample_once_in_an_order_of_the_epoch() -> None:
    stream = ShuffledStream(range(103), 20, seed=5)
    first = list(stream)
    stream.set_epoch(1)
    second = list(stream)

    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert sorted(first[:20]) == list(range(20))
    assert first == list(ShuffledStream(range(103), 20, seed=5))
    assert first != list(ShuffledStream(range(103), 20, seed=6))


def test_a_window_holds_a_sample_or_more() -> None:
    with pytest.raises(DataError, match="buffer_size=0"):
        ShuffledStream(range(3), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_tells_nothing_is_read_again(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    whole = list(reader(Untold(), workers).batches(0))
    again = reader(Untold(), workers)
    assert again.state_dict()["stream"] is None

    with caplog.at_level(logging.WARNING, logger="surestep"):
        rest = list(again.batches(0, done=3))

    assert same(rest, whole[3:])
    assert "read again from its beginning: 3 batches, since Untold does not tell its position" in caplog.text


def test_a_shuffle_buffer_is_read_again_and_its_users_are_told_what_to_write(caplog: pytest.LogCaptureFixture) -> None:
    def shuffled() -> Any:
        return SOURCES["table"]().shuffle(seed=2, buffer_size=8)

    whole = list(reader(shuffled()).batches(0))
    first = reader(shuffled())
    list(islice(first.batches(0), 2))
    again = reader(shuffled())
    again.load_state_dict(first.state_dict())

    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert same(list(again.batches(0, done=2)), whole[2:])

    assert "surestep.ShuffledStream(stream, buffer_size, seed)" in caplog.text


def test_another_number_of_workers_is_told(caplog: pytest.LogCaptureFixture) -> None:
    first = reader(Told(), 2)
    list(islice(first.batches(0), 2))
    again = reader(Told())
    again.load_state_dict(first.state_dict())

    with caplog.at_level(logging.WARNING, logger="surestep"):
        rest = list(again.batches(0, done=2))

    assert [number for number, _ in chain.from_iterable(rest)] == list(range(8, SIZE))
    assert "read by 2 workers and is now by 0" in caplog.text


def test_another_batch_size_begins_at_the_sample() -> None:
    first = reader(Told())
    list(islice(first.batches(0), 3))
    stream = Told()
    again = Reader(DataLoader(stream, batch_size=6, collate_fn=list), seed=3)
    again.load_state_dict(first.state_dict())

    rest = list(again.batches(0, start=12))

    assert [[number for number, _ in batch] for batch in rest] == [list(range(12, 18)), list(range(18, 22))]
    assert stream.read[0] == 12


def test_ranks_that_read_the_whole_stream_may_become_more() -> None:
    first = reader(Told())
    list(islice(first.batches(0), 2))
    seen = []
    for rank in range(2):
        world = World(rank=rank, size=2)
        again = reader(Told(), world=world)
        again.load_state_dict(first.state_dict())
        seen += [number for number, _ in chain.from_iterable(again.batches(0, start=8))]

    assert sorted(seen) == list(range(8, SIZE))


class StatefulLoader:
    """A loader in the manner of torchdata's, over numbers with a draw each."""

    batch_size = BATCH

    def __init__(self) -> None:
        self.at = self.begin = 0
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        self.at, self.begin = self.begin, 0
        for number in range(self.at, 6):
            self.read += 1
            self.at = number + 1
            yield torch.full((BATCH,), number), random.random()

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.begin = state["at"]


@pytest.mark.parametrize("done", range(1, 6))
def test_a_loader_with_a_state_goes_on_from_it(done: int) -> None:
    whole = list(Reader(StatefulLoader(), seed=3).batches(0))
    first = Reader(StatefulLoader(), seed=3)
    list(islice(first.batches(0), done))
    loader = StatefulLoader()
    again = Reader(loader, seed=3)
    again.load_state_dict(first.state_dict())

    assert same(list(again.batches(0, done=done)), whole[done:])
    assert loader.read == 6 - done


def test_a_state_of_the_middle_is_not_kept_by_a_stream_of_datasets() -> None:
    stream = SOURCES["mapped"]()
    numbers = iter(stream)
    next(numbers)
    moved = at_position(stream, position_of(stream))

    assert len(list(moved)) == SIZE - 1
    assert len(list(stream)) == SIZE


def test_what_a_loader_puts_around_a_stream_is_seen_through() -> None:
    told = Told()
    wrapped = RankStream(told, BATCH, World(rank=0, size=2))

    assert origin(wrapped) is told
    assert untold(wrapped) is None
    assert origin(at_position(wrapped, {"at": 4})) is told
    assert told.begin == 4
