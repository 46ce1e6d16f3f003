"""The few answers of a W&B server that a sweep's agent asks for, on this machine: values for trials, then the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class SweepServer:
    """Hands out `trials` in turn, and keeps the configuration of the sweep that was made."""

    def __init__(self, trials: list[dict[str, Any]]) -> None:
        self.waiting = [{"type": "run", "run_id": f"run{n}", "args": _wrapped(one)} for n, one in enumerate(trials)]
        self.config: dict[str, Any] = {}
        self.agents = 0

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data that a query asks for."""
        if "upsertSweep" in query:
            self.config = yaml.safe_load(variables["config"])
            project = {"name": "small", "entity": {"name": "me"}}
            return {"upsertSweep": {"sweep": {"name": "sweep0", "project": project}, "configValidationWarnings": []}}
        if "createAgent" in query:
            self.agents += 1
            return {"createAgent": {"agent": {"id": "agent0"}}}
        if "agentHeartbeat" in query:
            commands = [self.waiting.pop(0)] if self.waiting else [{"type": "exit"}]
            return {"agentHeartbeat": {"agent": {"id": "agent0"}, "commands": json.dumps(commands)}}
        viewer = {"id": "1", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve inside the block, and give the address."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = json.dumps({"data": outer.answer(asked["query"], asked.get("variables") or {})}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _wrapped(values: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}
