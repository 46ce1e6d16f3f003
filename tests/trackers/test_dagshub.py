"""DagsHub: MLflow with a store of files. Its server cannot be here: the upload is recorded in its place."""

import pytest

pytest.importorskip("dagshub", reason="needs dagshub: make test-trackers")

from tests.trackers.harness import run, script


def test_without_a_repository_it_says_so(tmp_path):
    printed = run(tmp_path, "dagshub", expect=1)
    assert "MLFLOW_TRACKING_URI is None, which names no repository of DagsHub" in printed


def test_the_output_folder_is_uploaded_at_the_end_and_the_run_is_ended(tmp_path):
    printed = script(
        tmp_path,
        f"""
        import mlflow
        from surestep import DagsHubCallback, Trainer, TrainingArguments
        class Repo:
            def __init__(self, **about):
                print("REPO", about)
            def directory(self, name):
                print("DIRECTORY", name)
                return self
            def add_dir(self, folder):
                print("UPLOAD", folder)

        callback = DagsHubCallback()
        mlflow.set_tracking_uri("sqlite:///{tmp_path}/store.db")
        callback.Repo = Repo
        args = TrainingArguments("out", max_steps=3, logging_steps=1, use_cpu=True, disable_tqdm=True)
        Trainer(program.Line(), args, train_dataset=program.samples(20), callbacks=[callback]).train()
        [run] = mlflow.search_runs(output_format="list")
        print("RUN", run.info.status, run.data.metrics["loss"] > 0)
        """,
        env={"MLFLOW_TRACKING_URI": "https://dagshub.com/me/ours.mlflow", "HF_DAGSHUB_LOG_ARTIFACTS": "1"},
    )
    assert "REPO {'owner': 'me', 'name': 'ours', 'branch': 'main'}" in printed
    assert "UPLOAD out" in printed
    assert "RUN FINISHED True" in printed
