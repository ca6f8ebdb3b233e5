"""A local stand-in of the Hub: creates repositories and takes commits, small and large files."""

import base64
import json
import os
import re
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_of_the_tests"


class Hub(ThreadingHTTPServer):
    """repositories: name -> created with; files: name -> path -> bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.files, self.large = {}, {}, {}
        self.status = 200  # of repositories' creation

    def environment(self, **changes):
        """Environment of a command that talks to this hub; None removes a variable."""
        # HF_HUB_DISABLE_XET: the protocol for large files is the one of git LFS
        ours = {"HF_ENDPOINT": self.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        ours |= {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN_PATH": os.devnull} | changes
        return {key: value for key, value in (os.environ | ours).items() if value is not None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Print nothing."""

    def reply(self, value=None, status=200):
        body = json.dumps({} if value is None else value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        """The list of a repository's files."""
        match = re.fullmatch(r"/api/models/(.+)/tree/main\?.*", self.path)
        if match is None:
            return self.reply({"error": self.path}, 404)
        files = self.server.files[match[1]].items()
        return self.reply(
            [{"type": "file", "path": p, "size": len(data), "oid": "0"} for p, data in files]
        )

    def do_PUT(self):
        """The content of a large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.large[sha256(content).hexdigest()] = content
        self.reply()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid token"}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            return self.reply({"files": [self.mode(file) for file in json.loads(body)["files"]]})
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            return self.reply({"objects": [*map(self.place, json.loads(body)["objects"])]})
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            return self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        return self.reply({"error": self.path}, 404)

    def create(self, options):
        name = f"{options['organization']}/{options['name']}"
        if self.server.status != 200:
            return self.reply({"error": "refused"}, self.server.status)
        if name in self.server.repositories:
            return self.reply({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
        self.server.repositories[name] = options
        self.server.files[name] = {}
        return self.reply({"url": f"{self.server.address}/{name}"})

    @staticmethod
    def mode(file):
        large = file["path"].endswith(".safetensors")
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def place(self, item):
        href = f"{self.server.address}/large/{item['oid']}"
        return item | {"actions": {"upload": {"href": href}}}

    def commit(self, name, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                self.server.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.server.files[name][value["path"]]
            elif line["key"] == "lfsFile":
                content = self.server.large[value["oid"]]
                assert (value["algo"], value["size"]) == ("sha256", len(content))
                self.server.files[name][value["path"]] = content
        address = f"{self.server.address}/{name}/commit/{'a' * 40}"
        self.reply({"success": True, "commitOid": "a" * 40, "commitUrl": address})


@contextmanager
def running():
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
