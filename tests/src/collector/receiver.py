"""A collector of OpenTelemetry: decodes what it is sent by the official definitions, and prints each request as a line of JSON."""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

MESSAGES = {
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
}
# How to answer the first requests with log records, one after the other: a status, and how long to be left alone; no status: never.
ANSWERS = json.loads(sys.argv[2])
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request, response = MESSAGES[self.path]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/x-protobuf", self.headers
        with LOCK:
            planned = ANSWERS.pop(0) if self.path == "/v1/logs" and ANSWERS else [200, None]
            status, after = planned
            message = MessageToDict(request.FromString(body))
            print(json.dumps({"path": self.path, "status": status, "at": time.monotonic(), "message": message}), flush=True)
        if status is None:
            threading.Event().wait()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        if after is not None:
            self.send_header("Retry-After", str(after))
        self.end_headers()
        self.wfile.write(response().SerializeToString())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
print(json.dumps({"port": server.server_address[1]}), flush=True)
server.serve_forever()
