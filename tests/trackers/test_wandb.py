"""Weights & Biases offline: what its own files hold."""

import json

import pytest

pytest.importorskip("wandb", reason="needs wandb: make test-trackers")

from surestep.callbacks.trackers.entries import SUMMARY, rewrite_logs
from surestep.callbacks.trackers.recordlog import record_log
from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run, script

OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def renamed(name):
    return next(iter(rewrite_logs({name: 0})))


def parts(folder):
    """Return the offline runs in their order, as the records in them."""
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    return [[Record.FromString(content) for content in record_log(file)] for file in files]


def rows(folder):
    for records in parts(folder):
        for record in records:
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {(item.nested_key[0] if item.nested_key else item.key): json.loads(item.value_json)
                       for item in items}  # fmt: skip


def curves(folder):
    return curves_of(
        (name, row["train/global_step"], value)
        for row in rows(folder)
        for name, value in row.items()
        if not name.startswith("_") and name != "train/global_step"
    )


def wanted(folder):
    return {renamed(name): points for name, points in expected(folder).items() if name not in SUMMARY}


def config(folder):
    found = {}
    for records in parts(folder):
        for record in records:
            for update in [*record.config.update, *record.run.config.update]:
                found["/".join(update.nested_key) or update.key] = json.loads(update.value_json)
    return found


def test_a_run_is_written_as_it_was_logged(tmp_path):
    run(tmp_path, "wandb", env=OFFLINE, eval_strategy="steps", eval_steps=4, run_name="mine")
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    assert [row["_step"] for row in rows(tmp_path)] == list(range(len(list(rows(tmp_path)))))
    settings = config(tmp_path)
    assert settings["max_steps"] == 12
    assert settings["model/num_parameters"] == 4
    [records] = parts(tmp_path)
    started = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (started[0].display_name, started[0].project) == ("mine", "huggingface")
    summary = {
        item.nested_key[0] if item.nested_key else item.key for record in records for item in record.summary.update
    }
    assert set(SUMMARY) <= summary
    assert_no_network(tmp_path)


@pytest.mark.parametrize(
    ("steps", "save", "kill"),
    [
        # So early, all that W&B was given is lost with the process.
        (12, 5, 8),
        # Much of what followed the checkpoint is on disk.
        (300, 50, 250),
        (300, 200, 202),
    ],
)
def test_a_killed_run_goes_on_with_every_step_once(tmp_path, steps, save, kill):
    settings = {"env": OFFLINE, "max_steps": steps, "save_steps": save, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "wandb", expect=KILLED, kill_at=kill, **settings)
    assert bool(list(rows(tmp_path))) == (kill > 8)
    run(tmp_path, "wandb", resume=True, **settings)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    # The count of W&B itself goes on as well, so that the parts fit when they are uploaded.
    assert [row["_step"] for row in rows(tmp_path)] == list(range(len(list(rows(tmp_path)))))
    names = [file.name.split("-")[-1] for file in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(names) == 2
    assert len(set(names)) == 1


def test_another_name_begins_a_run_of_its_own(tmp_path):
    run(tmp_path, "wandb", env=OFFLINE, run_name="one", max_steps=5)
    printed = run(tmp_path, "wandb", env=OFFLINE, run_name="two", resume=True)
    assert "run_name is 'two' and was 'one'" in printed
    names = [file.name.split("-")[-1] for file in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(set(names)) == 2


def test_no_account_is_said_before_the_first_step(tmp_path):
    printed = run(tmp_path, "wandb", expect=1, env={"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path)})
    assert "TrackerError: wandb: no run can be opened." in printed
    assert "WANDB_MODE=offline" in printed
    assert not (tmp_path / "out" / "checkpoint-5").exists()


def test_models_are_artifacts(tmp_path):
    run(tmp_path, "wandb", env={**OFFLINE, "WANDB_LOG_MODEL": "checkpoint"}, max_steps=6)
    [records] = parts(tmp_path)
    sent = [record.request.log_artifact.artifact or record.artifact for record in records]
    sent = [artifact for artifact in [*sent, *(record.artifact for record in records)] if artifact.name]
    aliases = {alias for artifact in sent for alias in artifact.aliases}
    assert {"base_model", "checkpoint_global_step_5", "checkpoint_global_step_6", "final_model"} <= aliases
    files = {entry.path for artifact in sent for entry in artifact.manifest.contents}
    assert {"model.safetensors", "trainer_state.json", "model_architecture.txt"} <= files


def test_a_run_of_the_scripts_own_is_used_and_left_open(tmp_path):
    script(
        tmp_path,
        """
        import wandb
        mine = wandb.init(project="own")
        trainer = train(report_to="wandb")
        assert wandb.run is mine
        trainer.predict(trainer.eval_dataset)
        wandb.log({"more": 1})
        """,
        env=OFFLINE,
    )
    found = list(rows(tmp_path))
    assert [row["train/global_step"] for row in found if "train/loss" in row] == list(range(1, 9))
    assert any("test/loss" in row for row in found)
    assert found[-1]["more"] == 1


def test_resuming_in_the_same_process_goes_on_in_the_open_run(tmp_path):
    script(
        tmp_path,
        """
        train(report_to="wandb", max_steps=6)
        train(report_to="wandb", resume="out/checkpoint-5")
        """,
        env=OFFLINE,
    )
    assert len(parts(tmp_path)) == 1
    assert [row["train/global_step"] for row in rows(tmp_path) if "train/loss" in row] == list(range(1, 9))


def test_each_trial_has_a_run(tmp_path):
    script(
        tmp_path,
        """
        from surestep import TrainerControl, TrainerState, TrainingArguments, WandbCallback
        callback, args = WandbCallback(), TrainingArguments("out", run_name="search")
        for trial in ("run-0", "run-1"):
            state = TrainerState(is_hyper_param_search=True, trial_name=trial)
            callback.on_train_begin(args, state, TrainerControl())
            callback.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
            callback.on_train_end(args, state, TrainerControl())
            callback.close()
        assert args.run_name == "search"
        """,
        env=OFFLINE,
    )
    started = [r.run for records in parts(tmp_path) for r in records if r.WhichOneof("record_type") == "run"]
    assert {(run.display_name, run.run_group) for run in started} == {("run-0", "search"), ("run-1", "search")}


def test_a_subclass_adds_to_the_setup(tmp_path):
    script(
        tmp_path,
        """
        from surestep import WandbCallback
        class Mine(WandbCallback):
            def setup(self, args, state, model, **kwargs):
                super().setup(args, state, model, **kwargs)
                self._wandb.config["mine"] = 7
        import program
        from surestep import Trainer, TrainingArguments
        args = TrainingArguments("out", max_steps=2, logging_steps=1, use_cpu=True, disable_tqdm=True)
        Trainer(program.Line(), args, train_dataset=program.samples(20), callbacks=[Mine]).train()
        """,
        env=OFFLINE,
    )
    assert config(tmp_path)["mine"] == 7
    assert len(list(rows(tmp_path))) == 3
