"""The processes of one run, joined by sockets: they meet before JAX connects them, and watch one another until the end.

JAX's own service can do neither in a way that a person would understand: a coordinator that is not there, or a process
that is killed, ends in an abort with a stack trace, and a host that vanishes is noticed after minutes. Here process 0
listens, the others connect, and lines of JSON go to and fro. A socket that closes, or a host that the kernel's
keep-alive finds gone, ends the whole group at once with one sentence.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from electra_jax.errors import PREEMPTED, UserError

Message = dict[str, Any]
# The kernel asks after so much silence, so often and so many times: a host that is gone is noticed within 40 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
RETRY_SECONDS = 0.2


class Link:
    """A socket to one other process, of which whole messages are read and written."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes a connected socket, which blocks from now on."""
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            # Only Linux has all of them.
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection
        self._lines: IO[bytes] = connection.makefile("rb")
        self._writing = threading.Lock()

    def send(self, message: Message) -> None:
        """Writes a message; what is wrong with the other end is found out by reading."""
        try:
            with self._writing:
                self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def receive(self, seconds: float | None = None) -> Message | None:
        """The next message; None where the other end has closed, or is silent for longer than `seconds`."""
        self._connection.settimeout(seconds)
        try:
            line = self._lines.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Closes the socket."""
        self._connection.close()


class Group:
    """This process's place among the others, and its links: to all of them in process 0, to process 0 elsewhere."""

    def __init__(self, index: int, hosts: list[str], links: dict[int, Link]) -> None:
        """Starts to watch.

        Args:
            index: of this process.
            hosts: the name of every process's machine.
            links: by the index of the process at the other end.
        """
        self.index = index
        self.hosts = hosts
        self._links = links
        self._ended = threading.Event()
        self._values: dict[int, queue.SimpleQueue[Any]] = {other: queue.SimpleQueue() for other in links}
        self._closing = threading.Lock()
        # The steps that were passed here and elsewhere, and after which one to stop, and why.
        self._turn = threading.Condition()
        self._passed = 0
        self._why: str | None = None
        self._reports: dict[int, int] = {}
        self._stop: tuple[int, str] | None = None
        for other, link in links.items():
            threading.Thread(target=self._watch, args=(other, link), name=f"group-{other}", daemon=True).start()

    @property
    def count(self) -> int:
        """How many processes there are."""
        return len(self.hosts)

    def gather(self, value: Any, *, last: bool = False) -> list[Any]:
        """Everyone's value, by index; returns when all have called it, as often as this one.

        Args:
            value: what JSON can hold.
            last: afterwards, sockets that close mean nothing.
        """
        if self.index:
            self._links[0].send({"value": value})
            return self._values[0].get()
        values = [value, *(self._values[other].get() for other in sorted(self._links))]
        if last:
            self._ended.set()
        for link in self._links.values():
            link.send({"values": values, "last": last})
        return values

    def ask_to_stop(self, why: str) -> None:
        """Asks all processes to stop after the same step, one that none has passed.

        Process 0 has each say which step it has passed, and wait after the next one it comes to until all have said so.
        A thread says it, so that no process waits for one that itself waits for it in the middle of a step.
        """
        if self.index:
            self._links[0].send({"stop": why})
            return
        with self._turn:
            if self._why is not None:
                return
            self._why = why
            self._reports[0] = self._passed
        for link in self._links.values():
            link.send({"hold": why})
        self._decide()

    def stops_after(self, step: int) -> str | None:
        """Why to stop after this step, None to go on; every process asks after each of its steps.

        Args:
            step: counted from 1, alike in all processes.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._why is None or self._stop is not None)
            if self._stop is not None and step >= self._stop[0]:
                return self._stop[1]
            self._passed = step
        return None

    def leave(self, code: int, sentence: str) -> None:
        """Tells the others that this process ends before its time, and why: they end too, with the same code."""
        self._ended.set()
        for link in self._links.values():
            link.send({"left": self.index, "code": code, "sentence": sentence})

    def _watch(self, other: int, link: Link) -> None:
        """Reads what another process sends, until it closes."""
        while (message := link.receive()) is not None:
            if "value" in message:
                self._values[other].put(message["value"])
            elif "values" in message:
                if message["last"]:
                    self._ended.set()
                self._values[other].put(message["values"])
            elif "left" in message:
                self._end(message)
            else:
                self._agree_to_stop(other, message)
        self._end({"left": other, "code": PREEMPTED, "sentence": "it was killed, or its machine is gone"})

    def _agree_to_stop(self, other: int, message: Message) -> None:
        """One message of `ask_to_stop`."""
        if "stop" in message:
            self.ask_to_stop(message["stop"])
        elif "passed" in message:
            self._reports[other] = message["passed"]
            self._decide()
        elif "hold" in message:
            with self._turn:
                self._why = message["hold"]
                passed = self._passed
            self._links[other].send({"passed": passed})
        else:
            with self._turn:
                self._stop = (message["until"], self._why or "")
                self._turn.notify_all()

    def _decide(self) -> None:
        """Process 0 says after which step to stop, once it knows where all of them are."""
        with self._turn:
            if len(self._reports) < self.count or self._stop is not None:
                return
            self._stop = (max(self._reports.values()) + 1, self._why or "")
            self._turn.notify_all()
        for link in self._links.values():
            link.send({"until": self._stop[0]})

    def _end(self, message: Message) -> None:
        """Ends this process because another one did, and passes it on."""
        with self._closing:
            if self._ended.is_set():
                return
            self._ended.set()
            for link in self._links.values():
                link.send(message)
            left = message["left"]
            sentence = f"process {left} on {self.hosts[left]} ended, and this one with it: {message['sentence']}"
            print(f"electra: {sentence}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            # Nothing that waits for the others, such as JAX's own shutdown, would come back.
            os._exit(message["code"])


def meet(address: str, index: int, count: int, *, seconds: int) -> Group:
    """Waits for all processes.

    Args:
        address: HOST:PORT, where process 0 listens.
        index: of this process.
        count: of all of them.
        seconds: how long to wait.

    Raises:
        UserError: process 0 cannot be reached, or others have not come in time.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    if index == 0:
        return _receive_all(address, int(port), count, seconds, deadline)
    link = _reach(host.strip("[]"), int(port), index, count, seconds, deadline)
    link.send({"hello": index, "count": count, "host": socket.gethostname()})
    # Process 0 stops waiting earlier, and says whom it missed.
    answer = link.receive(max(1.0, deadline - time.monotonic()) + seconds)
    if answer is None:
        raise UserError(
            f"process 0 at {address} closed the connection before all {count} processes had come: see its log"
        )
    if "refused" in answer:
        raise UserError(answer["refused"])
    return Group(index, answer["hosts"], {0: link})


def _reach(host: str, port: int, index: int, count: int, seconds: int, deadline: float) -> Link:
    """Connects to process 0, which may not have started yet."""
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


def _receive_all(address: str, port: int, count: int, seconds: int, deadline: float) -> Group:
    """Process 0: accepts the others, and lets them go when all are there."""
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
                    f"{missing}; start all of them, or set the number of those that there are"
                )
                for waiting in links.values():
                    waiting.send({"refused": sentence})
                raise UserError(sentence) from None
            # A stranger that says nothing must not hold up the others.
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
    names = [hosts[other] for other in range(count)]
    for link in links.values():
        link.send({"hosts": names})
    return Group(0, names, links)


@contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A port of this machine that the others can connect to."""
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
