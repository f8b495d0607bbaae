"""Says who has the request, and keeps it."""

import os
import time


def application(environ, start_response):
    with open(os.environ["RIG_MARKS"], "a") as marks:
        marks.write("%d\n" % os.getpid())
    time.sleep(60)
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
