"""The two ports: what viewers get, and that none of them stalls the others or the end."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from darknet_compat.errors import VideoError
from darknet_compat.video import servers
from darknet_compat.video.servers import BOUNDARY, GOODBYE, JsonServer, MjpegServer


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def viewer(port):
    """A connection that has asked, and its bytes as they come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return connection, connection.makefile("rb")


def head(file):
    lines = []
    while line := file.readline().strip():
        lines.append(line.decode())
    return lines


def test_frames_for_browsers():
    server = MjpegServer(0)
    assert not server.watched
    connection, file = viewer(server.port)
    lines = head(file)
    assert lines[0].endswith("200 OK")
    assert f"Content-Type: multipart/x-mixed-replace; boundary={BOUNDARY}" in lines
    assert any(line.startswith("Cache-Control: no-cache, no-store") for line in lines)
    wait_for(lambda: server.watched)
    for frame in (b"first", b"and second"):
        server.show(frame)
        assert head(file) == [f"--{BOUNDARY}", "Content-Type: image/jpeg", f"Content-Length: {len(frame)}"]
        assert file.read(len(frame)) == frame
        assert file.readline() == b"\r\n"
    server.close()
    assert file.read() == b""
    connection.close()


def test_a_viewer_gets_the_newest_frame_and_a_slow_one_stalls_nobody():
    server = MjpegServer(0)
    slow, _ = viewer(server.port)  # reads nothing
    quick, file = viewer(server.port)
    head(file)
    wait_for(lambda: server._open == 2)
    frame = bytes(2**20)
    start = time.monotonic()
    for _ in range(40):  # more than a socket takes
        server.show(frame)
    server.show(b"last")
    seen = 0
    while head(file)[-1] != "Content-Length: 4":
        file.read(len(frame) + 2)
        seen += 1
    assert seen < 40
    server.close()
    assert time.monotonic() - start < 4
    for connection in (slow, quick):
        connection.close()


def test_who_comes_gets_the_newest_frame_at_once_and_who_goes_is_no_viewer():
    server = MjpegServer(0)
    server.show(b"newest")
    connection, file = viewer(server.port)
    assert head(file)[0].endswith("200 OK")
    assert head(file)[-1] == "Content-Length: 6"
    assert server.watched
    file.close()
    connection.close()
    wait_for(lambda: server.show(b"next") or not server.watched)
    server.close()


def blocked_viewer(server):
    """A connection that takes nothing, while the server wants to send more than goes."""
    connection, _ = viewer(server.port)
    wait_for(lambda: server.watched)
    server.show(bytes(2**26))
    time.sleep(0.1)
    return connection


def test_who_takes_nothing_is_left(monkeypatch):
    monkeypatch.setattr(servers, "PATIENCE", 0.2)
    server = MjpegServer(0)
    connection = blocked_viewer(server)
    wait_for(lambda: not server.watched)
    server.close()
    connection.close()


def test_the_end_does_not_wait_for_who_takes_nothing():
    server = MjpegServer(0)
    connection = blocked_viewer(server)
    start = time.monotonic()
    server.close()
    assert time.monotonic() - start < GOODBYE + 2
    connection.close()


def test_the_end_waits_for_who_takes_it_slowly(monkeypatch):
    monkeypatch.setattr(servers, "GOODBYE", 20.0)
    server = JsonServer(0)
    connection, file = viewer(server.port)
    head(file)
    wait_for(lambda: server._waiting)
    long = json.dumps("x" * 2**24)
    server.show(long)
    received = []
    reader = threading.Timer(0.2, lambda: received.append(file.read()))
    reader.start()
    server.close()
    assert not server._open
    reader.join()
    assert received == [f"[\n{long}\n]".encode()]
    connection.close()


def test_who_goes_away_is_no_line(capfd):
    """Before he has asked too, and by what is no HTTP."""
    server = JsonServer(0)
    for said in (b"", b"GE", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01 no HTTP\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        connection.sendall(said)
        time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
        connection.close()
        for _ in range(3):
            server.show("{}")
            time.sleep(0.02)
    wait_for(lambda: not server._open and not server._waiting)
    server.close()
    assert capfd.readouterr() == ("", "")


def test_detections_as_one_json_list():
    server = JsonServer(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        wait_for(lambda: server._waiting)
        for number in range(3):
            server.show(json.dumps({"frame_id": number}))
        threading.Thread(target=server.close).start()
        assert json.loads(answer.read()) == [{"frame_id": number} for number in range(3)]


def test_a_list_of_nothing_is_one_too():
    server = JsonServer(0)
    connection, file = viewer(server.port)
    head(file)
    wait_for(lambda: server._waiting)
    server.close()
    assert json.loads(file.read()) == []
    connection.close()


def test_a_program_that_takes_nothing_is_left():
    server = JsonServer(0)
    connection, file = viewer(server.port)
    wait_for(lambda: server._waiting)
    big = json.dumps("x" * 2**16)
    for _ in range(200):
        server.show(big)
    assert server._waiting, "some seconds of frames may wait"
    for _ in range(200):
        server.show(big)
    assert not server._waiting
    head(file)
    file.read()  # what waited, and its end, while the server goes on
    server.close()
    connection.close()


def test_the_port_is_free_at_the_end_and_a_taken_one_is_an_error():
    server = MjpegServer(0)
    with pytest.raises(VideoError, match=f"127.0.0.1:{server.port}: Address already in use; expected a port that is"):
        JsonServer(server.port)
    connection, file = viewer(server.port)
    head(file)
    server.close()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        viewer(server.port)
    JsonServer(server.port).close()


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("", "the host of a port is empty; expected an address"),  # Python's own word for all addresses
        ("192.0.2.1", "192.0.2.1:0: .*; expected a port that is free, at an address of this machine"),
        ("ä" * 70, "ä:0: .*; expected a port that is free, at an address of this machine"),
        ("\udcff", ":0: .*; expected a port that is free, at an address of this machine"),
    ],
)
def test_a_host_is_an_address_of_this_machine(host, what):
    with pytest.raises(VideoError, match=what) as raised:
        MjpegServer(0, host)
    assert "\n" not in str(raised.value)


def test_another_address_of_it():
    server = MjpegServer(0, "127.0.0.2")
    assert server._http.server_address == ("127.0.0.2", server.port)
    server.close()


def test_it_is_for_this_machine_alone():
    server = MjpegServer(0)
    try:
        others = socket.gethostbyname(socket.gethostname())
        if not others.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((others, server.port), timeout=2)
        assert server._http.server_address[0] == "127.0.0.1"
    finally:
        server.close()


def test_a_browser_shows_the_frames(chromium, tmp_path):
    """A real one, which tells a port of ours how wide the image is that it shows. It is one frame behind."""
    widths = set()

    class Told(BaseHTTPRequestHandler):
        def do_GET(self):
            widths.add(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    told, server = ThreadingHTTPServer(("127.0.0.1", 0), Told), MjpegServer(0)
    threading.Thread(target=told.serve_forever, daemon=True).start()
    page = tmp_path / "page.html"
    page.write_text(
        f"""<body><img src="http://127.0.0.1:{server.port}"><script>setInterval(() => fetch(
        "http://127.0.0.1:{told.server_address[1]}/" + document.querySelector("img").naturalWidth, {{mode: "no-cors"}}
        ), 30)</script></body>"""
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}",
               "--remote-debugging-port=0", page.as_uri()]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: server.watched, 60)  # it starts slowly where others work, too
            for width in (40, 60):
                jpeg = cv2.imencode(".jpg", np.full((30, width, 3), width, np.uint8))[1].tobytes()
                wait_for(lambda jpeg=jpeg, width=width: server.show(jpeg) or f"/{width}" in widths)
            server.show(cv2.imencode(".jpg", np.full((30, 80, 3), 80, np.uint8))[1].tobytes())
            time.sleep(0.2)
            server.close()  # with which the last frame is shown
            wait_for(lambda: "/80" in widths)
        finally:
            process.kill()
            told.shutdown()
            told.server_close()


def test_curl_reads_it():
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt-get install curl")
    server = JsonServer(0)
    command = ["curl", "-sN", f"http://127.0.0.1:{server.port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        wait_for(lambda: server._waiting)
        server.show('{"a": 1}')
        server.close()
        assert json.loads(process.communicate(timeout=10)[0]) == [{"a": 1}]
