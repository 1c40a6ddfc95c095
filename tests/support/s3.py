"""An S3 server for tests: moto's, a real HTTP endpoint in a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from importlib.util import find_spec

import pytest

from mqinfer.stack.ports import free_port


@pytest.fixture(scope="session")
def s3_endpoint():
    """moto's server, from this environment or from the PATH."""
    if find_spec("moto") and find_spec("flask"):
        command = [sys.executable, "-m", "moto.server"]
    elif found := os.environ.get("MOTO_SERVER") or shutil.which("moto_server"):
        command = [found]
    else:
        pytest.skip("needs an S3 server: pip install 'moto[s3]' flask flask-cors")
    port = free_port()
    server = subprocess.Popen(
        [*command, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert server.poll() is None, "moto's server ended"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                threading.Event().wait(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)


def s3_config(endpoint, **more):
    return {
        "access_key_id": "mqinfer",
        "secret_access_key": "hunter2",
        "region": "us-east-1",
        "endpoint": endpoint,
        **more,
    }


@pytest.fixture
def bucket(s3_endpoint):
    name = f"b-{uuid.uuid4().hex}"
    request = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=120):
        return name
