"""What Prometheus reads, under vLLM's names with our prefix, so that the dashboards made for one show the other."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from qualm.serving.flights import Flight
from qualm.serving.served import Models, Served

QUICK = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # seconds
LONG = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600)
ONE = ["model_name"]


class Metrics:
    """Counts and times of one server. `observe` is called when an answer ends, however it ends."""

    def __init__(self, models: Models):
        self.models, registry = models, CollectorRegistry()
        self.registry = registry
        self.read = Counter("qualm:prompt_tokens", "Tokens read.", ONE, registry=registry)
        self.written = Counter("qualm:generation_tokens", "Tokens written.", ONE, registry=registry)
        self.success = Counter(
            "qualm:request_success", "Answers that ended well.", [*ONE, "finished_reason"], registry=registry
        )
        self.aborted = Counter("qualm:request_aborted", "Answers that nobody waited for.", ONE, registry=registry)
        self.requests = Counter("qualm:http_requests", "Requests by status.", ["path", "status"], registry=registry)
        self.first = Histogram(
            "qualm:time_to_first_token_seconds", "From arrival.", ONE, buckets=LONG, registry=registry
        )
        self.each = Histogram(
            "qualm:inter_token_latency_seconds", "Mean of an answer.", ONE, buckets=QUICK, registry=registry
        )
        self.whole = Histogram(
            "qualm:e2e_request_latency_seconds", "From arrival.", ONE, buckets=LONG, registry=registry
        )
        registry.register(self)  # a collector by its one method
        for served in models.values():
            served.worker.observe = lambda flight, served=served: self.observe(served, flight)

    def observe(self, served: Served, flight: Flight) -> None:
        name, now, done = served.name, time.monotonic(), flight.completion
        if flight.began:
            self.first.labels(name).observe(flight.began - flight.arrived)
        if done is None or done.unread:
            self.aborted.labels(name).inc()
            return
        self.whole.labels(name).observe(now - flight.arrived)
        if done.tokens > 1:
            self.each.labels(name).observe((now - flight.began) / (done.tokens - 1))
        self.read.labels(name).inc(done.prompt_tokens)
        self.written.labels(name).inc(done.tokens)
        self.success.labels(name, done.finish).inc()

    def collect(self) -> Iterator[Metric]:
        """What is so now."""
        running = GaugeMetricFamily("qualm:num_requests_running", "Being answered.", labels=ONE)
        waiting = GaugeMetricFamily("qualm:num_requests_waiting", "In the queue.", labels=ONE)
        held = GaugeMetricFamily("qualm:kv_cache_usage_perc", "Share of the slots in use, 0 to 1.", labels=ONE)
        faults = GaugeMetricFamily("qualm:model_faults", "Errors raised by the model.", labels=ONE)
        for served in self.models.values():
            running.add_metric([served.name], served.worker.running)
            waiting.add_metric([served.name], served.worker.waiting)
            held.add_metric([served.name], served.worker.held)
            faults.add_metric([served.name], served.worker.faults)
        yield from (running, waiting, held, faults)

    def text(self) -> bytes:
        return generate_latest(self.registry)
