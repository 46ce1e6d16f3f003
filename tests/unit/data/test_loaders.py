import random
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler
from torch.utils.data import SequentialSampler as TorchSequentialSampler

from surestep.data.loaders import (
    LoaderSettings,
    build_loader,
    has_length,
    num_samples,
    seed_worker,
    set_epoch,
)
from surestep.data.samplers import SeededRandomSampler, SequentialSampler
from surestep.errors import ArgumentError, DataError
from surestep.runtime.world import World

TWO = LoaderSettings(batch_size=2)


class Stream(IterableDataset):
    def __init__(self, size):
        self.size = size

    def __iter__(self):
        yield from range(self.size)


class SizedStream(Stream):
    def __len__(self):
        return self.size


class Modules(torch.utils.data.Dataset):
    """Tells what the reading process has imported."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        names = [name for name in sys.modules if name.startswith("surestep")]
        return {"trainer": any(".trainer" in name for name in names), "surestep": bool(names), "index": index}


class Draws(torch.utils.data.Dataset):
    """Draws from every generator of the reading process."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def keep(features):
    return features


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"batch_size": 1, "num_workers": -1}, "dataloader_num_workers=-1"),
        ({"batch_size": 1, "prefetch_factor": 0, "num_workers": 1}, "dataloader_prefetch_factor=0"),
        ({"batch_size": 1, "prefetch_factor": 2}, "dataloader_prefetch_factor=2 needs workers"),
        ({"batch_size": 1, "persistent_workers": True}, "dataloader_persistent_workers=True needs workers"),
        ({"batch_size": 1, "multiprocessing_context": "spawn"}, "dataloader_multiprocessing_context='spawn' needs"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, named):
    with pytest.raises(ArgumentError, match=named):
        LoaderSettings(**settings)


def test_every_setting_reaches_the_loader():
    settings = LoaderSettings(
        batch_size=3,
        num_workers=2,
        persistent_workers=True,
        prefetch_factor=5,
        in_order=False,
        multiprocessing_context="forkserver",
        drop_last=True,
    )
    loader = build_loader(list(range(10)), keep, settings, training=False)
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (3, 2, 5)
    assert (loader.persistent_workers, loader.in_order, loader.drop_last) == (True, False, True)
    assert loader.multiprocessing_context.get_start_method() == "forkserver"
    assert loader.collate_fn is keep


@pytest.mark.parametrize(("kind", "wanted"), [(None, False), ("cuda", True), ("mps", False)])
@pytest.mark.parametrize("asked", [True, False])
def test_memory_is_pinned_only_for_an_accelerator_that_takes_it(kind, wanted, asked, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: types.SimpleNamespace(type=kind))
    loader = build_loader([1, 2], keep, LoaderSettings(batch_size=1, pin_memory=asked), training=True)
    assert loader.pin_memory is (asked and wanted)


def test_without_a_sampler_the_order_is_the_datasets_own():
    loader = build_loader(list("abcde"), keep, TWO, training=True, seed=1)
    assert list(loader) == [["a", "b"], ["c", "d"], ["e"]]
    assert type(loader.sampler) is SequentialSampler


def test_torchs_samplers_give_way_to_ours():
    data = list(range(6))
    assert (
        type(build_loader(data, keep, TWO, RandomSampler(data), training=True, seed=4).sampler) is SeededRandomSampler
    )
    assert type(build_loader(data, keep, TWO, RandomSampler(data), training=True).sampler) is RandomSampler
    assert (
        type(build_loader(data, keep, TWO, TorchSequentialSampler(data), training=False).sampler) is SequentialSampler
    )


def test_a_batch_sampler_brings_its_batches():
    batches = BatchSampler([4, 3, 2, 1, 0], 3, drop_last=False)
    loader = build_loader(list(range(5)), keep, LoaderSettings(batch_size=2, drop_last=True), batches, training=True)
    assert list(loader) == [[4, 3, 2], [1, 0]]


@pytest.mark.parametrize(("drop_last", "batches"), [(False, [[0, 1], [2, 3], [4]]), (True, [[0, 1], [2, 3]])])
def test_a_stream_is_read_in_its_order(drop_last, batches):
    loader = build_loader(Stream(5), keep, LoaderSettings(batch_size=2, drop_last=drop_last), training=True, seed=1)
    assert list(loader) == batches


def test_a_stream_takes_no_sampler():
    with pytest.raises(DataError, match="train_dataset is a stream"):
        build_loader(Stream(5), keep, TWO, [0, 1], training=True)


def test_an_empty_dataset_is_refused_by_name():
    with pytest.raises(DataError, match="eval_dataset is empty"):
        build_loader([], keep, TWO, training=False, name="eval_dataset")


def test_a_frame_is_read_by_rows():
    frame = pd.DataFrame({"x": [1.5, 2.5], "labels": [0, 1]}, index=[7, 9])
    loader = build_loader(frame, keep, TWO, training=True)
    assert list(loader) == [[{"x": 1.5, "labels": 0}, {"x": 2.5, "labels": 1}]]


def test_the_loader_draws_from_the_global_generator_what_torchs_does():
    data = list(range(9))
    torch.manual_seed(3)
    list(build_loader(data, keep, TWO, RandomSampler(data), training=True, seed=5))
    ours = torch.rand(3)
    torch.manual_seed(3)
    list(DataLoader(data, 2, collate_fn=keep))
    assert torch.equal(ours, torch.rand(3))


def test_workers_draw_what_the_originals_workers_draw():
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    from functools import partial

    settings = LoaderSettings(batch_size=2, num_workers=2)
    torch.manual_seed(8)
    ours = list(build_loader(Draws(), keep, settings, training=True, world=World(rank=3, size=4)))
    torch.manual_seed(8)
    init = partial(trainer_utils.seed_worker, num_workers=2, rank=3)
    theirs = list(DataLoader(Draws(), 2, collate_fn=keep, num_workers=2, worker_init_fn=init))
    # The rank's own samples are the seventh and the eighth; the draws are those of a first batch.
    assert [[draw[1:] for draw in batch] for batch in ours] == [[draw[1:] for draw in batch] for batch in theirs[:1]]
    assert [draw[0] for batch in ours for draw in batch] == [6, 7]
    torch.manual_seed(8)
    assert list(build_loader(Draws(), keep, settings, training=True)) != theirs


def test_worker_seeds_beyond_numpys_range_wrap(monkeypatch):
    monkeypatch.setattr(torch, "initial_seed", lambda: 2**32 - 1)
    state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        seed_worker(0, num_workers=4, rank=2)
        assert np.random.rand() == np.random.RandomState(7).rand()
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.random.set_rng_state(state[2])


def test_spawned_workers_read_and_never_import_the_trainer():
    settings = LoaderSettings(batch_size=2, num_workers=2, multiprocessing_context="spawn")
    rows = [row for batch in build_loader(Modules(), keep, settings, training=True, seed=0) for row in batch]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert all(row["surestep"] for row in rows)
    assert not any(row["trainer"] for row in rows)


def test_set_epoch_reaches_samplers_and_datasets():
    class Told:
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

    class ToldData(list, Told):
        pass

    data = ToldData(range(6))
    sampler = SeededRandomSampler(data, seed=0)
    set_epoch(build_loader(data, keep, TWO, sampler, training=True), 3)
    assert (sampler.epoch, data.epoch) == (3, 3)
    loader = Told()
    set_epoch(loader, 2)
    assert loader.epoch == 2
    set_epoch([1, 2], 1)


def test_has_length():
    class Broken:
        def __len__(self):
            raise AttributeError

    assert has_length([])
    assert has_length(SizedStream(2))
    assert not any(has_length(one) for one in (Stream(2), Broken(), None, 3, iter([])))


def test_num_samples():
    class Batches:
        batch_size = 4

        def __len__(self):
            return 3

    assert num_samples(build_loader(list(range(5)), keep, TWO, training=False)) == 5
    assert num_samples(DataLoader(SizedStream(7), 2)) == 7
    assert num_samples(Batches()) == 12
    assert num_samples([1, 2]) == 2
    with pytest.raises(DataError, match="max_steps"):
        num_samples(DataLoader(Stream(7), 2))
