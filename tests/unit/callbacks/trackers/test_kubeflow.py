"""Reports as a server on this machine gets them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.small import quick

from surestep import KubeflowCallback, TrainerState
from surestep.callbacks.trackers import kubeflow
from surestep.errors import ArgumentError, TrackerError
from surestep.training.state import TrainerControl


@pytest.fixture
def server(tmp_path, monkeypatch):
    got = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Authorization"], json.loads(body)["trainerStatus"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    found = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"http://127.0.0.1:{found.server_port}/status")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    yield got
    found.shutdown()
    found.server_close()
    thread.join()


def figures(status):
    return {figure["name"]: figure["value"] for figure in status["metrics"]}


def test_progress_and_figures_are_reported(tmp_path, server, monkeypatch):
    monkeypatch.setattr(kubeflow, "_INTERVAL", 0.0)
    quick(tmp_path / "out", report_to="kubeflow", logging_steps=1).train()
    assert {token for token, _ in server} == {"Bearer secret"}
    statuses = [status for _, status in server]
    assert [status["progressPercentage"] for status in statuses] == [0, 20, 40, 60, 80, 99, 100]
    assert figures(statuses[0]) == {"total_steps": "5"}
    assert figures(statuses[2]).keys() >= {"loss", "learning_rate", "current_step", "total_steps", "current_epoch"}
    assert statuses[-2]["estimatedRemainingSeconds"] == 0
    assert float(figures(statuses[-1])["train_loss"]) > 0


def test_reports_are_seconds_apart(tmp_path, server):
    quick(tmp_path / "out", report_to="kubeflow").train()
    assert [status["progressPercentage"] for _, status in server] == [0, 100]


def test_a_server_that_does_not_answer_stops_nothing(tmp_path, server, monkeypatch, caplog):
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9/status")
    ours = quick(tmp_path / "out", report_to="kubeflow")
    ours.train()
    assert ours.state.global_step == 5
    assert "kubeflow was not sent: the report of step 0, the report of step 5." in caplog.text
    with pytest.raises(TrackerError):
        quick(tmp_path / "out", callbacks=[KubeflowCallback(strict=True)]).train()


def test_outside_of_kubeflow_it_says_so(monkeypatch):
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    with pytest.raises(ArgumentError, match="needs KUBEFLOW_TRAINER_SERVER_URL"):
        KubeflowCallback()


def test_only_the_main_process_reports(server):
    KubeflowCallback().on_train_begin(None, TrainerState(is_world_process_zero=False), TrainerControl())
    assert server == []
