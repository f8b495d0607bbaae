"""Reads one request whole, says who has it, and does what its path says. Exits when it is told to stop."""

import ctypes
import os
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
signal.signal(signal.SIGHUP, lambda number, frame: None)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
request = b""
while b"\r\n\r\n" not in request:
    request += connection.recv(4096)
with open(os.environ["RIG_MARKS"], "a") as marks:
    marks.write("%d\n" % os.getpid())
path = request.split()[1]
if path == b"/abort":
    os.abort()
elif path == b"/segfault":
    ctypes.string_at(0)
elif path == b"/hoard":
    hoard = [b"x" * (1 << 20) for _ in range(4096)]
else:
    # Until a signal has been handled that lets it live.
    signal.pause()
connection.close()
signal.pause()
