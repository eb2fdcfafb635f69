"""Frames and detections for browsers and programs: MJPEG and JSON over HTTP, as AlexeyAB's demo serves them.

Source: ``src/http_stream.cpp, MJPG_sender, JSON_sender``. Each viewer has a thread of its own, so that a slow one
stalls nobody: of images it gets the newest when it is ready for one, and one that takes nothing for some seconds is
left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, ClassVar

from ..errors import VideoError

LOCAL = "127.0.0.1"
PATIENCE = 5.0  # seconds that a viewer may take nothing
GOODBYE = 1.0  # seconds for the last bytes at the end
BACKLOG = 256  # JSON objects that wait for a viewer; then it is left
BOUNDARY = "mjpegstream"
HEADERS = {
    "Connection": "close", "Cache-Control": "no-cache, no-store, private", "Pragma": "no-cache", "Expires": "0",
}  # fmt: skip


class Server:
    """An HTTP server in threads. ``content`` is its Content-Type. Port 0 takes any that is free.

    Raises :class:`VideoError` where the port is taken, or ``host`` no address of this machine.
    """

    content: ClassVar[str]

    def __init__(self, port: int, host: str = LOCAL) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"
            timeout = PATIENCE

            def handle(self) -> None:
                # Somebody may go away at any time, before he has asked too, or take nothing any more.
                with suppress(OSError):
                    super().handle()

            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in {**HEADERS, "Content-Type": server.content}.items():
                    self.send_header(name, value)
                with server.viewer():
                    self.end_headers()
                    for part in server.parts():
                        self.wfile.write(part)

            def log_message(self, *words: Any) -> None:
                """Says nothing of each request."""

        if not host:  # which Python takes for every address
            raise VideoError("the host of a port is empty; expected an address of this machine; 0.0.0.0: for everybody")
        try:
            self._http = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError, TypeError, UnicodeError) as error:
            raise VideoError(
                f"{host}:{port}: {getattr(error, 'strerror', None) or error}; expected a port that is free, at an "
                "address of this machine"
            ) from None
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.port: int = self._http.server_address[1]
        self._changed = threading.Condition()
        self._closed = False
        self._open = 0
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def parts(self) -> Iterator[bytes]:
        """What one viewer gets, as it comes; ends when the server is closed."""
        raise NotImplementedError

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """While somebody is served."""
        with self._changed:
            self._open += 1
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let the viewers have their end, if they take it soon, and free the port."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, GOODBYE)
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class MjpegServer(Server):
    """The newest frame for each viewer."""

    content = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

    def __init__(self, port: int, host: str = LOCAL) -> None:
        self._newest, self._number = b"", 0
        super().__init__(port, host)

    @property
    def watched(self) -> bool:
        """Is anybody there? A frame that nobody sees need not be encoded."""
        return self._open > 0

    def show(self, jpeg: bytes) -> None:
        """A frame, as a JPEG file."""
        with self._changed:
            self._newest, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def parts(self) -> Iterator[bytes]:
        seen = 0  # the newest frame is for somebody who just came, too
        while True:
            with self._changed:
                while self._number == seen and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                seen, jpeg = self._number, self._newest
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"


class JsonServer(Server):
    """One JSON list for each viewer, of the frames since it came; its end closes the list."""

    content = "application/json"

    def __init__(self, port: int, host: str = LOCAL) -> None:
        self._waiting: dict[int, deque[bytes]] = {}
        self._numbers = count()
        super().__init__(port, host)

    def show(self, text: str) -> None:
        """What was found in a frame. A viewer that takes nothing for too long gets no more."""
        with self._changed:
            for number, waiting in list(self._waiting.items()):
                waiting.append(text.encode())
                if len(waiting) > BACKLOG:
                    del self._waiting[number]
            self._changed.notify_all()

    def parts(self) -> Iterator[bytes]:
        waiting: deque[bytes] = deque()
        with self._changed:
            number = next(self._numbers)
            self._waiting[number] = waiting
        between = b"[\n"
        try:
            while True:
                with self._changed:
                    while not waiting and not self._closed and number in self._waiting:
                        self._changed.wait()
                    if not waiting:
                        break
                    part = waiting.popleft()
                yield between + part
                between = b", \n"
            yield b"\n]" if between == b", \n" else b"[\n\n]"
        finally:
            with self._changed:
                self._waiting.pop(number, None)
