"""Meet the other processes of a run, and end together with them.

JAX's coordination service carries the values that processes exchange and the step after which they stop
(`processes`, `stop_signals`). It handles two cases badly (jaxlib 0.10; see tests/distributed/test_group.py): a process
that cannot reach the others, and one whose neighbour is killed, are aborted from C++ with a stack trace and exit code
134, the second only after a heartbeat's timeout. Here process 0 listens, the others connect, and each sends one line
of JSON before it closes its socket. A socket that closes without that line, or a host that the kernel's keep-alive
finds gone, ends all processes at once with one sentence and an exit code.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from electra_jax.errors import PREEMPTED, UserError

Message = dict[str, Any]
# Seconds of silence before the kernel probes, seconds between its probes, and how many may stay unanswered: a host that
# is gone is noticed within 40 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
RETRY_SECONDS = 0.2


class Link:
    """A socket to another process that carries lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        """Wrap a connected socket, and turn on the kernel's keep-alive."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            # Only Linux has all of these options.
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection
        self._lines: IO[bytes] = connection.makefile("rb")

    def send(self, message: Message) -> None:
        """Write a message; a broken connection is noticed by the reader."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> Message | None:
        """Return the next message, or None if the connection is closed or silent for `seconds`."""
        try:
            self._connection.settimeout(seconds)
            line = self._lines.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()


class Group:
    """The processes of one run. Process 0 has a link to every other process; the others have one to process 0."""

    def __init__(self, index: int, hosts: list[str], port: int, links: dict[int, Link]) -> None:
        """Start watching the links.

        Args:
            index: index of this process.
            hosts: the name of each process's machine.
            port: a free port on process 0's machine, for JAX's coordinator.
            links: the links by the index of the process at the other end.
        """
        self.index = index
        self.hosts = hosts
        self.port = port
        self._links = links
        self._ended = False
        self._ending = threading.Lock()
        for other, link in links.items():
            threading.Thread(target=self._watch, args=(other, link), name=f"group-{other}", daemon=True).start()

    @property
    def count(self) -> int:
        """Return the number of processes."""
        return len(self.hosts)

    def leave(self, code: int, sentence: str = "") -> None:
        """Tell the others that this process is about to end.

        Args:
            code: 0 if the run is done; otherwise the others end too, with this exit code.
            sentence: the reason, which the others print.
        """
        with self._ending:
            self._ended = True
            self._send_to_all({"left": self.index, "code": code, "sentence": sentence})

    def _watch(self, other: int, link: Link) -> None:
        """Wait for another process's last message, and end this process unless that message says the run is done."""
        killed = {"left": other, "code": PREEMPTED, "sentence": "it was killed, or its machine is gone"}
        message = link.receive() or killed
        if message["code"] == 0:
            return
        with self._ending:
            if self._ended:
                return
            self._send_to_all(message)
            left = message["left"]
            sentence = f"process {left} on {self.hosts[left]} ended, and this one with it: {message['sentence']}"
            print(f"electra: {sentence}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            # The main thread may be in a collective that never returns, and JAX's own shutdown waits for the others.
            os._exit(message["code"])

    def _send_to_all(self, message: Message) -> None:
        for link in self._links.values():
            link.send(message)


def connect(address: str, index: int, count: int, *, seconds: int) -> Group:
    """Wait until all processes are connected, and return their group.

    Args:
        address: HOST:PORT, on which process 0 listens.
        index: index of this process.
        count: the number of processes.
        seconds: how long to wait.

    Raises:
        UserError: if process 0 cannot be reached, or another process does not connect in time.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    if index == 0:
        return _accept_all(address, int(port), count, seconds, deadline)
    link = _reach(host.strip("[]"), int(port), index, count, seconds, deadline)
    link.send({"hello": index, "count": count, "host": socket.gethostname()})
    # Process 0 gives up earlier, and then says which processes are missing.
    answer = link.receive(max(1.0, deadline - time.monotonic()) + seconds)
    if answer is None:
        raise UserError(
            f"process 0 at {address} closed the connection before all {count} processes were there: see its log"
        )
    if "refused" in answer:
        raise UserError(answer["refused"])
    return Group(index, answer["hosts"], answer["port"], {0: link})


def free_port() -> int:
    """Return a port of this machine on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _reach(host: str, port: int, index: int, count: int, seconds: int, deadline: float) -> Link:
    """Connect to process 0, which may not have started yet."""
    while True:
        try:
            return Link(socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())))
        except OSError as error:
            if time.monotonic() + RETRY_SECONDS > deadline:
                raise UserError(
                    f"process {index} of {count} could not reach the coordinator at {host}:{port} within {seconds} "
                    f"seconds ({error.strerror or error}): start process 0 there, and let the port through"
                ) from error
            time.sleep(RETRY_SECONDS)


def _accept_all(address: str, port: int, count: int, seconds: int, deadline: float) -> Group:
    """Accept the other processes, and answer them when all are connected."""
    hosts, links = {0: socket.gethostname()}, {}
    with _listener(port) as listener:
        while len(links) < count - 1:
            listener.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                link = Link(listener.accept()[0])
            except OSError:
                missing = ", ".join(str(other) for other in range(1, count) if other not in links)
                sentence = (
                    f"process 0 waited {seconds} seconds at {address} for {count} processes, and these did not come: "
                    f"{missing}; start all of them, or set the number of processes that there are"
                )
                for waiting in links.values():
                    waiting.send({"refused": sentence})
                raise UserError(sentence) from None
            # An unrelated connection that stays silent must not hold up the others.
            hello = link.receive(5.0) or {}
            other = hello.get("hello")
            if hello.get("count") != count or not isinstance(other, int) or not 0 < other < count or other in links:
                link.send(
                    {
                        "refused": f"a process that says it is {other} of {hello.get('count')} came to {address}, "
                        f"where the others of {count} meet: give each its own number from 0 to {count - 1}"
                    }
                )
                link.close()
                continue
            hosts[other], links[other] = str(hello["host"]), link
    names, jax_port = [hosts[other] for other in range(count)], free_port()
    for link in links.values():
        link.send({"hosts": names, "port": jax_port})
    return Group(0, names, jax_port, links)


@contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """Listen on a port of this machine, on IPv6 as well if the machine has it."""
    both = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} ({error.strerror}): another run may use it; choose another port "
            "for the coordinator's address"
        ) from error
    with listener:
        yield listener
