"""A Google Cloud Storage on loopback, for processes that are told of it by their environment.

It is `gcp-storage-emulator`. TensorFlow, which reads and writes `gs://` for `etils.epath` and `tf.data`, knows one
address of the service, by https: it is led here as to a proxy, with a certificate of the test's own. TensorStore, which
writes the arrays of checkpoints, is told the address. Both send what they would send to the real service.
"""

import contextlib
import functools
import http.server
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"
read_data = emulator._read_data
# An object may be empty, as COMPLETED is; the emulator fails for want of a body.
emulator._read_data = lambda *arguments: found if (found := read_data(*arguments)) is not None else b""


class Handler(emulator.RequestHandler):
    """The emulator's answers, with what TensorFlow and TensorStore rely on and it leaves out.

    The methods' names are those that `http.server` looks for.
    """

    # curl waits a second with a body for a server that does not ask it to go on.
    protocol_version = "HTTP/1.1"

    def __init__(self, storage: Storage, tls: ssl.SSLContext, lock: threading.RLock, *arguments: Any) -> None:
        self.tls, self.lock = tls, lock
        super().__init__(storage, *arguments)

    def do_CONNECT(self) -> None:  # noqa: N802
        """As a proxy that takes itself for every host: the next request comes encrypted on the same connection."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def finish(self) -> None:
        """The encrypted socket has taken the plain one's place and is closed as that would be."""
        super().finish()
        self.connection.close()

    def generation(self) -> str | None:
        """Of the object that the request names in its path or its query: "0" where there is none of that name."""
        url = urllib.parse.urlsplit(self.path)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        name = urllib.parse.unquote(name.removeprefix("/")) or urllib.parse.parse_qs(url.query).get("name", [""])[0]
        try:
            return self.storage.get_file_obj(bucket, name)["generation"] if name else None
        except NotFound:
            return "0"

    def end_headers(self) -> None:
        """TensorStore reads an object's generation from the headers of its content."""
        if self.command == "GET" and (generation := self.generation()):
            self.send_header("x-goog-generation", generation)
        super().end_headers()

    def parse_request(self) -> bool:
        """Of a body that comes in chunks the stated length does not count (RFC 9112, 6.3); TensorFlow states one."""
        parsed = super().parse_request()
        if parsed and "Transfer-Encoding" in self.headers:
            del self.headers["Content-Length"]
        return parsed

    def send_header(self, keyword: str, value: str) -> None:
        """An upload goes on at an address of the scheme that it began with."""
        if keyword == "Location" and isinstance(self.connection, ssl.SSLSocket):
            value = value.replace("http://", "https://")
        super().send_header(keyword, value)

    def do_GET(self) -> None:  # noqa: N802
        """One request at a time, as for every method: the emulator's store is not made for threads.

        Before it renames a folder, TensorFlow asks whether the bucket has a hierarchy, in which that is one request.
        """
        if self.path.endswith("/storageLayout"):
            content = b'{"hierarchicalNamespace": {"enabled": false}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        with self.lock:
            super().do_GET()

    def do_POST(self) -> None:  # noqa: N802
        """Keeps to the condition that nobody has written the object meanwhile."""
        wanted = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("ifGenerationMatch", [None])[0]
        with self.lock:
            if wanted is not None and wanted != self.generation():
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_error(412)
            else:
                super().do_POST()

    def do_PUT(self) -> None:  # noqa: N802
        with self.lock:
            super().do_PUT()

    def do_DELETE(self) -> None:  # noqa: N802
        with self.lock:
            super().do_DELETE()


class ObjectStore(NamedTuple):
    """A running store, with one empty bucket.

    Attributes:
        storage: what it holds.
        environment: of a process for which `gs://` is this store.
    """

    storage: Storage
    environment: dict[str, str]

    def put(self, name: str, content: bytes) -> None:
        """Writes an object."""
        address = f"{self.environment['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{BUCKET}/o"
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        urllib.request.urlopen(urllib.request.Request(f"{address}?{query}", content, method="POST")).close()

    def names(self) -> set[str]:
        """Of every object."""
        return {found["name"] for found in self.storage.get_file_list(BUCKET)[0]}


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A store for the time of the `with`; `folder` gets its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("www.googleapis.com", "storage.googleapis.com").configure_cert(tls)
    storage = Storage(use_memory_fs=True)
    create_bucket(BUCKET, storage)
    handler = functools.partial(Handler, storage, tls, threading.RLock())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield ObjectStore(
                storage,
                {
                    "https_proxy": address,
                    "CURL_CA_BUNDLE": str(folder / "authority.pem"),
                    "TENSORSTORE_GCS_HTTP_URL": address,
                    "STORAGE_EMULATOR_HOST": address,
                    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anyone",
                },
            )
        finally:
            server.shutdown()
            thread.join()
