"""`electra serve` as a process of its own, asked over a socket."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import electra_jax
from support.command_line import finish, start
from support.finetuned_model import text_facts, write_tuned

LABELS = ("bad", "good")


@contextlib.contextmanager
def served(model: Path, cache: Path, *bindings: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port, once it says that it serves."""
    process = start(["serve", str(model), "--gin.PORT=0", *bindings], cache)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        found = re.fullmatch(rf"serving {model} at http://127\.0\.0\.1:(\d+); .*\n", lines[1])
        assert found, (lines, finish(process))
        yield process, int(found[1])
    finally:
        process.kill()


def get(port: int, path: str) -> bytes:
    """What a path says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


def post(port: int, value: Any) -> tuple[int, Any]:
    """The status and the JSON that a value gets."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/predict", json.dumps(value), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_many_clients_are_answered_and_a_stop_loses_no_request(place: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    write_tuned(directory, "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False))
    model = electra_jax.load(directory)
    texts = [" ".join(["the", "cat", "ran", "home"][: number % 4 + 1] * (number % 5 + 1)) for number in range(24)]
    expected = {text: model(text)[0]["probabilities"]["good"] for text in texts}
    # A wait long enough that the last requests are in the queue when the signal comes.
    with served(directory, place / "cache", "--gin.MAX_BATCH_SIZE=4", "--gin.MAX_WAIT_MS=1500") as (process, port):
        with ThreadPoolExecutor(8) as clients:
            for text, (status, record) in zip(texts, clients.map(lambda text: post(port, text), texts), strict=True):
                assert status == 200
                assert record["probabilities"]["good"] == pytest.approx(expected[text], abs=1e-6)
            # What is sent beyond the limit is still answered by a sentence.
            status, refusal = post(port, "a" * 3_000_000)
            assert (status, refusal["error"]) == (
                413,
                "the body has more than 1,000,000 bytes: send less in a request, or raise MAX_BODY_BYTES",
            )
            last = clients.submit(post, port, texts[0])
            while b"electra_waiting_inputs 1.0" not in get(port, "/metrics"):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            status, record = last.result(60)
        assert (status, record["label"]) == (200, max(LABELS, key=lambda name: record["probabilities"][name]))
        ended = finish(process)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_request_that_never_ends_is_refused_and_does_not_keep_the_server(place: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    write_tuned(directory, "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False))
    half = b'POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 20\r\n\r\n"the cat'
    with served(directory, place / "cache", "--gin.MAX_BATCH_SIZE=1", "--gin.MAX_BODY_SECONDS=2.0") as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(half)
            # All of it: the server closes the connection.
            head, _, body = b"".join(iter(lambda: client.recv(4096), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body) == {
            "error": "the body did not arrive in 2 seconds: send it at once, or raise MAX_BODY_SECONDS"
        }
        assert post(port, "the cat")[0] == 200
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(half.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            # The server waits for the rest.
            assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
            process.send_signal(signal.SIGTERM)
            assert finish(process).returncode == 0
