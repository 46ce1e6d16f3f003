"""A hub for tests: a real HTTP server on this machine that speaks what the real client says, and keeps what it gets."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Answer = tuple[int, dict[str, Any]]


class FakeHub:
    """Repositories by name: the files of each revision, and its commits. `answers` may step in before any request."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[dict[str, Any]] = []
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.tokens: list[str | None] = []
        self.blobs: dict[str, bytes] = {}
        self.answers: Callable[[str], Answer | None] = lambda path: None
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        self.requests.append(f"{method} {path}")
        early = self.answers(path)
        if early is not None:
            return early
        routes: dict[str, Callable[..., Answer]] = {
            r"POST /api/repos/create": self._create,
            r"POST /api/validate-yaml": lambda content: (200, {"warnings": [], "errors": []}),
            r"POST /api/models/(.+?)/preupload/(.+)": self._preupload,
            r"POST /(.+)\.git/info/lfs/objects/batch": self._batch,
            r"PUT /blobs/(\w+)": self._blob,
            r"POST /api/models/(.+?)/commit/(.+)": self._commit,
            r"GET /api/models/(.+)": lambda content, repo: (200, {"id": repo, "sha": "0" * 40}),
        }
        for pattern, route in routes.items():
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return route(body, *map(unquote, match.groups()))
        return 404, {"error": f"no {method} {path}"}

    def _create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        self.created.append(asked)
        name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        return 200, {"url": f"{self.url}/{name}", "name": name}

    def _preupload(self, body: bytes, repo: str, revision: str) -> Answer:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        found = [
            {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        ]
        return 200, {"files": found}

    def _batch(self, body: bytes, repo: str) -> Answer:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.url}/blobs/{item['oid']}", "header": {}}}}
            for item in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _blob(self, body: bytes, name: str) -> Answer:
        self.blobs[name] = body
        return 200, {}

    def _commit(self, body: bytes, repo: str, revision: str) -> Answer:
        lines = [json.loads(line) for line in body.splitlines()]
        kept = self.files.setdefault(f"{repo}@{revision}", {})
        arrived = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                arrived[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                arrived[value["path"]] = self.blobs[value["oid"]]
        kept |= arrived
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        self.commits.append({"repo": repo, "revision": revision, "message": message, "files": arrived})
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{len(self.commits):040d}", "commitOid": "1" * 40}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.append(self.headers.get("Authorization"))
            status, content = hub.answer(self.command, self.path.partition("?")[0], body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    for verb in ("GET", "POST", "PUT", "HEAD"):
        setattr(Handler, f"do_{verb}", Handler.serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
