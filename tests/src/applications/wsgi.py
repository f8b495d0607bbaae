"""Says who has the request, and keeps it; but for one whose path ends in ok, which it answers at once."""

import os
import time


def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/ok"):
        start_response("200 OK", [("Content-Length", "3")])
        return [b"ok\n"]
    with open(os.environ["RIG_MARKS"], "a") as marks:
        marks.write("%d\n" % os.getpid())
    time.sleep(60)
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
