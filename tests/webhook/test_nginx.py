# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The documented rule for nginx removes the token from nginx's logs, in every spelling, and forwards the webhook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from demo.processes import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "webhooks.md").read_text()
#: The folders in which this test looks for nginx. If they contain no nginx, `make test` unpacks one into the last
#: folder.
FOLDERS = (os.environ.get("PATH", os.defpath), "/usr/sbin", str(ROOT / ".work" / "nginx" / "usr" / "sbin"))
NGINX = shutil.which("nginx", path=os.pathsep.join(FOLDERS))
TOKEN = "secret-token-that-was-made-up-0123456789"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
PATH = f"/faceki/webhook/faceki_default/{TOKEN}"


@dataclass
class Proxy:
    port: int
    folder: Path
    upstream: list[str]

    def request(self, method: str, path: str, body: bytes = b"{}") -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body)
            return connection.getresponse().status
        finally:
            connection.close()

    @property
    def logs(self) -> str:
        """The content of all nginx logs."""
        return "".join(each.read_text() for each in sorted(self.folder.glob("*.log")))

    def logs_with(self, line: str) -> str:
        """Return the content of all nginx logs when they contain this line.

        nginx writes the line after it has sent the response, so this method waits for the line.
        """
        wait_until(lambda: line in self.logs)
        return self.logs

    def empty_log(self) -> None:
        """Remove all lines of earlier requests below /faceki/."""
        os.truncate(self.folder / "faceki.log", 0)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start nginx with the documented rule, and with its usual log for all other requests."""
    if NGINX is None:
        pytest.skip("no nginx: on Debian `make nginx` unpacks one into .work/")
    folder, port, upstream, seen = tmp_path_factory.mktemp("nginx"), free_port(), free_port(), list[str]()
    (rule,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    outside, inside = rule.replace("/var/log/nginx/", f"{folder}/").split("# In `server`.")
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{ }}
        http {{
            {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)}
            access_log {folder}/access.log;
            upstream airflow {{ server 127.0.0.1:{upstream}; }}
            {outside}
            server {{
                listen 127.0.0.1:{port};
                # In `server`.{inside}
                location / {{ proxy_pass http://airflow; }}
            }}
        }}"""
    )

    class Airflow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", upstream), Airflow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)], stderr=subprocess.PIPE)
    proxy = Proxy(port, folder, seen)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            try:
                assert proxy.request("POST", "/elsewhere") == 200
                break
            except ConnectionError:
                time.sleep(0.05)
        yield proxy
        # This proves that the usual log is enabled. So if nginx logged a token, the tests would have found it.
        assert "POST /elsewhere" in proxy.logs
    finally:
        process.terminate()
        process.wait(300)
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param(PATH, 200, id="as it should be"),
        pytest.param("/" + PATH, 200, id="two slashes"),
        pytest.param("///" + PATH, 200, id="four slashes"),
        pytest.param(PATH.replace("/webhook", "//webhook"), 200, id="two slashes inside"),
        pytest.param(PATH.replace("/faceki/", "/f%61ceki/"), 200, id="an encoded letter"),
        pytest.param(PATH.replace("/webhook/", "%2Fwebhook%2F"), 200, id="encoded slashes"),
        pytest.param("/x/.." + PATH, 200, id="dots"),
        pytest.param(PATH + "?again=1", 200, id="a query"),
        pytest.param(PATH.replace("faceki", "Faceki"), 404, id="a capital letter"),
        pytest.param(PATH.replace("webhook", "webhok"), 404, id="a letter left out"),
        pytest.param(PATH.replace("webhook", "WebHook"), 404, id="capital letters"),
        pytest.param(f"/faceki/{TOKEN}", 404, id="something left out"),
    ],
)
def test_nginx_logs_no_spelling_of_the_token_path(nginx: Proxy, path: str, status: int) -> None:
    nginx.upstream.clear()
    nginx.empty_log()
    assert nginx.request("POST", path) == status
    assert [each.partition("?")[0] for each in nginx.upstream] == ([PATH] if status == 200 else [])
    assert TOKEN not in nginx.logs_with(f'"POST /faceki/***" {status}')


def test_nginx_logs_no_token_of_rejected_requests(nginx: Proxy) -> None:
    assert nginx.request("GET", PATH) == 403
    assert TOKEN not in nginx.logs_with('"GET /faceki/***" 403')
    assert nginx.request("POST", PATH, bytes(257 * 1024)) == 413
    assert TOKEN not in nginx.logs_with('"POST /faceki/***" 413')


def test_airflow_that_cannot_be_reached_is_not_logged_with_the_token(nginx: Proxy) -> None:
    config = nginx.folder / "nginx.conf"
    down = free_port()
    other = nginx.folder / "down.conf"
    port = free_port()
    text = config.read_text().replace(f"127.0.0.1:{nginx.port}", f"127.0.0.1:{port}")
    other.write_text(re.sub(r"(upstream airflow \{ server 127\.0\.0\.1:)\d+", rf"\g<1>{down}", text))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(nginx.folder), "-c", str(other)])
    try:
        proxy, deadline = Proxy(port, nginx.folder, []), time.monotonic() + 300
        while True:
            assert time.monotonic() < deadline
            try:
                assert proxy.request("POST", PATH) == 502
                break
            except ConnectionError:
                time.sleep(0.05)
        assert proxy.request("POST", "/elsewhere") == 502
    finally:
        process.terminate()
        process.wait(300)
    assert "/elsewhere" in (nginx.folder / "error.log").read_text()
    assert TOKEN not in nginx.logs
