"""Run the HTTP server until it is told to stop."""

import socket

import uvicorn
from starlette.applications import Starlette

from electra_jax.errors import UserError
from electra_jax.training.stop import handled_by


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, and does not listen yet.

    Args:
        host: an IP address, or a name that resolves to one.
        port: the TCP port; 0 for any free one.

    Raises:
        UserError: if this machine has no such address, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
        try:
            # Otherwise the port would stay taken for a while after an earlier server has stopped.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
        except OSError:
            server.close()
            raise
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port} ({error.strerror}): set another HOST or PORT") from error
    return server


def url_of(server: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = server.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve_until_stopped(application: Starlette, listening: socket.socket) -> None:
    """Answer requests at a socket until Ctrl-C, SIGTERM or SIGHUP.

    After that, no connection is accepted, and requests that have arrived are answered before this returns. A second
    Ctrl-C does not wait for them.
    """
    # Our own messages are enough, and no log may contain what people send.
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, access_log=False, server_header=False))
    # Once stopped, uvicorn raises the signals again that stopped it, and their default handlers would end the process.
    with handled_by(server.handle_exit):
        server.run(sockets=[listening])
