"""Every operation of a store, with a fault between any two system calls: a checkpoint is whole or not there."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import read_tree
from surestep.runtime.disk import writing_through
from tests.faults.disk import Dead, Fault, FaultyDisk, inodes
from tests.unit.checkpoint.stores import make_store, names, save, steps


@dataclass(frozen=True)
class Operation:
    """What is done while the fault is there, on a store that holds steps 1 to 3, of value 1."""

    name: str
    run: Callable[[CheckpointStore], object]
    # What may be found afterwards as the newest: step and value.
    newest: frozenset[tuple[int, float]]
    left: Callable[[Path], None] = lambda root: None


def damaged(store: CheckpointStore) -> None:
    folder = store.root / "checkpoint-3"
    store.set_aside(folder)


def half_done(root: Path) -> None:
    """Leave what runs that died leave: a stage, a checkpoint half deleted, one that was about to be replaced."""
    shutil.copytree(root / "checkpoint-1", root / ".staging-checkpoint-9" / "checkpoint-9")
    shutil.copytree(root / "checkpoint-1", root / ".deleting-checkpoint-8")
    (root / "checkpoint-3").rename(root / ".replaced-checkpoint-3")
    shutil.copytree(root / "checkpoint-2", root / ".replaced-checkpoint-2")


SAVE = Operation("save", lambda store: save(store, 4, 2.0), frozenset({(3, 1.0), (4, 2.0)}))
REPLACE = Operation("replace", lambda store: save(store, 3, 2.0), frozenset({(3, 1.0), (3, 2.0)}))
PRUNE = Operation("prune", lambda store: store.prune(), frozenset({(3, 1.0)}))
ASIDE = Operation("set aside", damaged, frozenset({(3, 1.0), (2, 1.0)}))
TIDY = Operation("tidy", lambda store: store.claim(), frozenset({(3, 1.0)}), half_done)
OPERATIONS = [SAVE, REPLACE, PRUNE, ASIDE, TIDY]
BY_NAME = [pytest.param(operation, id=operation.name) for operation in OPERATIONS]
MOST = 400


@pytest.fixture(autouse=True)
def _nobody_waits() -> Iterator[None]:
    with writing_through(FaultyDisk()):
        yield


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    """Return a store of steps 1 to 3, to be copied."""
    store = make_store(tmp_path_factory.mktemp("begun"))
    for step in (1, 2, 3):
        save(store, step)
    store.release()
    return store


def copied(begun: CheckpointStore, root: Path, operation: Operation) -> CheckpointStore:
    """Return a store of the same run in another place."""
    shutil.copytree(begun.root, root)
    operation.left(root)
    store = make_store(root, 1)
    store.run = begun.run
    if operation is not TIDY:
        store.claim()
    return store


def found(root: Path) -> tuple[int, float]:
    """Return what a process that starts now would go on from."""
    store = make_store(root)
    newest = store.newest_valid()
    assert newest.passed_over == []
    assert newest.path is not None
    return int(newest.path.name.rpartition("-")[2]), value_of(newest.path)


def assert_usable(root: Path) -> None:
    """Check that a new run finds nothing half-done, saves, and deletes."""
    assert names(root) == {path.name for path in checkpoints_in(root)} | {path.name for path in root.glob("damaged-*")}
    store = make_store(root, 1)
    assert store.verify(save(store, 9)) == []
    store.release()


@pytest.mark.parametrize("power", [False, True], ids=["process dies", "power fails"])
@pytest.mark.parametrize("operation", BY_NAME)
def test_a_crash_between_any_two_operations_leaves_the_old_or_the_new(
    begun: CheckpointStore, scratch: Path, operation: Operation, power: bool
) -> None:
    outcomes = set()
    for at in range(MOST):
        root = scratch / str(at)
        store, disk = copied(begun, root, operation), FaultyDisk(Fault(at))
        safe = inodes(root)
        with writing_through(disk), suppress(Dead):
            operation.run(store)
        if power:
            disk.lose_power(root, safe)
        # Whatever carries the name is whole, also before anything is cleared away.
        assert all(not store.verify(path) for path in checkpoints_in(root)), disk.operations[-1]
        store.release()
        outcomes.add(found(root))
        assert_usable(root)
        if not disk.hit:
            break
        shutil.rmtree(root)
    assert not disk.hit, "the operation did not come to its end"
    assert outcomes == operation.newest


ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


@pytest.mark.parametrize(("error", "lasting"), [("EIO", False), ("ENOSPC", False), ("ENOSPC", True), ("EROFS", True)])
@pytest.mark.parametrize("operation", [pytest.param(one, id=one.name) for one in (SAVE, REPLACE)])
def test_an_error_at_any_operation_of_a_save_leaves_nothing_behind(
    begun: CheckpointStore, scratch: Path, operation: Operation, error: str, lasting: bool
) -> None:
    before, after = {1, 2, 3}, {1, 2, 3, max(operation.newest)[0]}
    # A disk that does not even remove or rename cannot be cleared: then what is left waits for the next save.
    cleared = not lasting or error == "ENOSPC"
    failed = 0
    for at in range(MOST):
        root = scratch / str(at)
        store, disk = copied(begun, root, operation), FaultyDisk(Fault(at, ERRORS[error], lasting))
        problem = None
        with writing_through(disk):
            try:
                operation.run(store)
            except OSError as raised:
                problem = raised
        if not disk.hit:
            break
        assert problem is None or problem.errno == ERRORS[error]
        assert all(not store.verify(path) for path in checkpoints_in(root)), disk.operations
        if cleared:
            # A save that raises has not happened; one that only could not clear away behind itself has.
            failed += problem is not None
            assert set(steps(store)) == (before if problem else after), disk.operations
            assert value_of(store.root / f"checkpoint-{max(steps(store))}") == (1.0 if problem else 2.0)
        # The disk works again.
        save(store, 5, 3.0)
        store.release()
        assert set(steps(store)) in (before | {5}, after | {5})
        assert names(root) == {f"checkpoint-{step}" for step in steps(store)}, disk.operations
        assert found(root) == (5, 3.0)
        shutil.rmtree(root)
    assert not disk.hit, "the save did not come to its end"
    assert failed > 20 or not cleared


def value_of(folder: Path) -> float:
    value: float = read_tree(folder, "optimizer")["w"][0].item()
    return value


@pytest.mark.parametrize("error", ["EIO", "EROFS"])
def test_an_error_while_thinning_out_is_told_and_costs_no_checkpoint_that_stays(
    begun: CheckpointStore, scratch: Path, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    for at in range(MOST):
        root = scratch / str(at)
        store, disk = copied(begun, root, PRUNE), FaultyDisk(Fault(at, ERRORS[error]))
        with writing_through(disk):
            store.prune()
        if not disk.hit:
            break
        assert "could not be deleted" in caplog.text
        assert all(not store.verify(path) for path in checkpoints_in(root))
        assert 3 in steps(store)
        save(store, 4)
        store.prune()
        assert names(root) == {"checkpoint-4"}
        store.release()
    assert at > 10
