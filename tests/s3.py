"""A real S3 server on loopback, and a proxy before it that fails as storage does."""

from __future__ import annotations

import gc
import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import s3fs
from clusters import until

KEY, SECRET = "AKIAFORTESTSONLY", "this-is-the-secret-of-the-tests"
BUCKET = "bucket"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(port):
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Faults:
    """What the proxy does to a request; each is a rule that says how, or None."""

    rule: Callable[[str, str], str | None] = lambda *_: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    injected: int = 0
    away: Callable[[], AbstractContextManager[None]] = nullcontext
    """Within its block no connection comes about, and those that there are end."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: int
    faults: Faults

    def log_message(self, *_):
        pass

    def _forward(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.faults.requests.append((self.command, self.path))
        fault = self.faults.rule(self.command, self.path)
        if self.server.gone.is_set():
            self.close_connection = True
            return
        if KEY not in (self.headers.get("Authorization") or ""):
            self._answer(403, [], _error("InvalidAccessKeyId", "The key is not in our records"))
            return
        if fault:
            self.faults.injected += 1
        if fault == "503":
            self._answer(503, [], _error("SlowDown", "Please reduce your request rate."))
            return
        if fault == "denied":
            self._answer(403, [], _error("AccessDenied", "Access Denied"))
            return
        link = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        link.request(self.command, self.path, body, dict(self.headers))
        answer = link.getresponse()
        content = answer.read()
        link.close()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OF_A_HOP]
        if fault == "slow":
            time.sleep(1.0)
        if fault == "cut" and len(content) > 1:
            self._answer(answer.status, headers, content, sent=len(content) // 2)
            self.close_connection = True
            return
        size = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, content, length=size)

    def _answer(self, status, headers, content, *, sent=None, length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the server's names


def _error(code, message):
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


_OF_A_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


@contextmanager
def s3_server(folder):
    """Run a server of its own process with an empty bucket; give the port."""
    port = free_port()
    with open(folder / "s3.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: answers(port), "the S3 server answers")
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        link.request("PUT", f"/{BUCKET}")
        assert link.getresponse().status == http.HTTPStatus.OK
        link.close()
        yield port
    finally:
        process.kill()
        process.wait()
        s3fs.S3FileSystem.clear_instance_cache()
        gc.collect()  # whose sessions end here, and not in a test of something else


@contextmanager
def faulty(upstream):
    """Run a proxy before a server; give its port and what it does."""
    faults = Faults()
    handler = type("Handler", (_Handler,), {"upstream": upstream, "faults": faults})
    port = free_port()

    @contextmanager
    def served():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads, server.gone = True, threading.Event()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.gone.set()
            server.shutdown()
            server.server_close()
            thread.join()

    with ExitStack() as serving:
        serving.enter_context(served())

        @contextmanager
        def away():
            serving.close()
            try:
                yield
            finally:
                serving.enter_context(served())

        faults.away = away
        yield port, faults


def environment(port):
    """What a process needs to find the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
