-- Prints what wrk measured as one JSON object; latencies are in microseconds.
done = function(summary, latency, requests)
  io.write(string.format(
    '{"requests":%d,"us":%d,"p50":%d,"p99":%d,"unlike_200":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
