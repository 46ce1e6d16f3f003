import logging

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from surestep.callbacks.trackers import registry
from surestep.callbacks.trackers.registry import tracker_callbacks
from surestep.callbacks.trackers.tensorboard import TensorBoardCallback
from surestep.errors import ArgumentError, NotServedError


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (None, []),
        ("none", []),
        ([], []),
        (["none"], []),
        ("tensorboard", [TensorBoardCallback]),
        (["tensorboard"], [TensorBoardCallback]),
    ],
)
def test_names_mean_classes(names, classes):
    assert tracker_callbacks(names) == classes


def test_every_name_of_the_original_is_known():
    assert set(registry._SERVED) | set(registry._NOT_SERVED) == set(INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize("name", sorted(registry._NOT_SERVED))
def test_what_is_not_served_yet_says_so(name):
    with pytest.raises(NotServedError, match=rf"report_to='{name}' is not served yet \(scope row B10\)"):
        tracker_callbacks(["tensorboard", name])


@pytest.mark.parametrize(
    ("name", "hint"), [("tensorbord", "Did you mean 'tensorboard'?"), ("zzz", "names no tracker. Write")]
)
def test_unknown_names_are_answered(name, hint):
    with pytest.raises(ArgumentError) as error:
        tracker_callbacks(name)
    assert hint in str(error.value)


@pytest.mark.parametrize("everything", ["all", ["all"]])
def test_all_means_what_is_installed_and_names_what_is_left_out(monkeypatch, caplog, everything):
    monkeypatch.setattr(registry, "installed", {"tensorboard", "wandb"}.__contains__)
    with caplog.at_level(logging.WARNING):
        assert tracker_callbacks(everything) == [TensorBoardCallback]
    assert "not served yet: wandb." in caplog.text
    monkeypatch.setattr(registry, "installed", {"mlflow"}.__contains__)
    assert tracker_callbacks(everything) == []
