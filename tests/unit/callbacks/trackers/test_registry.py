import importlib.util
import sys

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

import surestep
from surestep import TrainingArguments
from surestep.callbacks.trackers import registry
from surestep.callbacks.trackers.registry import tracker_callbacks
from surestep.callbacks.trackers.tensorboard import TensorBoardCallback
from surestep.config.topics import tracking
from surestep.errors import ArgumentError, MissingPackageError
from surestep.optional import installed

# What each name needs, as pip calls it.
PACKAGES = {
    "azure_ml": "azureml-core",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "wandb": "wandb",
}


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


def test_names_and_classes_are_those_of_the_original():
    assert set(registry._CLASSES) == set(tracking.TRACKERS) == set(INTEGRATION_TO_CALLBACK)
    for name, theirs in INTEGRATION_TO_CALLBACK.items():
        [ours] = tracker_callbacks(name)
        assert ours.__name__ == theirs.__name__
        assert getattr(surestep, theirs.__name__) is ours
        assert ours.name == name


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_an_absent_package_is_named_when_the_callback_is_made(name, package):
    module = tracking.TRACKERS[name][0].partition(".")[0]
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{package} is installed")
    [kind] = tracker_callbacks(name)
    with pytest.raises(MissingPackageError) as error:
        kind()
    assert f"pip install {package}" in str(error.value)
    assert f"report_to='{name}'" in str(error.value)


def test_a_trainer_with_an_absent_tracker_fails_where_it_is_made(tmp_path):
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    args = TrainingArguments(str(tmp_path / "out"), report_to="wandb", use_cpu=True)
    with pytest.raises(MissingPackageError, match="pip install wandb"):
        surestep.Trainer(surestep_model(), args)
    assert not (tmp_path / "out").exists()


def surestep_model():
    from tests.small import line

    return line()


@pytest.mark.parametrize(
    ("name", "hint"), [("tensorbord", "Did you mean 'tensorboard'?"), ("zzz", "names no tracker. Write")]
)
def test_unknown_names_are_answered(name, hint):
    with pytest.raises(ArgumentError) as error:
        tracker_callbacks(name)
    assert hint in str(error.value)


@pytest.mark.parametrize("everything", ["all", ["all"]])
def test_all_means_what_is_installed(monkeypatch, everything):
    monkeypatch.setattr(tracking, "installed", {"tensorboard", "wandb", "flytekit"}.__contains__)
    assert [kind.__name__ for kind in tracker_callbacks(everything)] == ["TensorBoardCallback", "WandbCallback"]


@pytest.mark.parametrize(
    ("environment", "packages", "names"),
    [
        ({}, {"mlflow", "azureml.core.run", "dagshub"}, ["dagshub", "mlflow"]),
        ({}, {"azureml.core.run", "dagshub"}, ["azure_ml"]),
        ({"DISABLE_MLFLOW_INTEGRATION": "TRUE"}, {"mlflow", "azureml.core.run"}, ["azure_ml"]),
        ({}, {"comet_ml"}, []),
        ({"COMET_API_KEY": "x"}, {"comet_ml"}, ["comet_ml"]),
        ({"COMET_START_ONLINE": "false"}, {"comet_ml"}, ["comet_ml"]),
        ({"KUBEFLOW_TRAINER_SERVER_URL": "http://x"}, set(), ["kubeflow"]),
        ({"KUBEFLOW_TRAINER_SERVER_URL": "http://x", "DISABLE_KUBEFLOW_INTEGRATION": "true"}, set(), []),
    ],
)
def test_all_asks_what_is_set_up(monkeypatch, tmp_path, environment, packages, names):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(tracking, "installed", packages.__contains__)
    assert TrainingArguments("out", report_to="all").report_to == names


def test_all_is_what_the_original_finds_here(monkeypatch):
    monkeypatch.delenv("COMET_START_ONLINE", raising=False)
    assert set(TrainingArguments("out", report_to="all").report_to) == set(get_available_reporting_integrations())


def test_no_client_is_loaded_before_it_is_asked_for():
    clients = {module for modules in tracking.TRACKERS.values() for module in modules} - {"tensorboard"}
    for name in INTEGRATION_TO_CALLBACK:
        tracker_callbacks(name)
    assert not {module for module in clients if module in sys.modules and not installed(module)}
