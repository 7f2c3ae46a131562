"""What the edge counts, and how Prometheus reads it.

Rules:
- The data path adds to plain integers; Prometheus' objects are made when somebody asks.
- Labels are bounded: outcomes, limits, results. Never an address or a service.

What must not live here: HTTP.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable

import attrs
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from drtp_edge.limits import LimitHits

__all__ = ["EdgeCollector", "EdgeStats", "exposition"]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; from a loopback dial to the longest wait for an ACCEPT."""


@attrs.define
class EdgeStats:
    """Counters of one edge since its start."""

    visitors: int = 0
    """Visitors that were accepted."""
    visitors_now: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0
    probes: int = 0
    """Health probes of the gateway: LOCAL headers, and connections closed without a byte."""
    intake_faults: Counter[str] = attrs.field(factory=Counter)
    handshakes: Counter[str] = attrs.field(factory=Counter)
    tunnels_ended: Counter[str] = attrs.field(factory=Counter)
    log_lines: int = 0
    _latency: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1))
    _latency_sum: float = 0.0

    def accepted_after(self, seconds: float) -> None:
        """Take note of how long an ACCEPT took."""
        self._latency[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._latency_sum += seconds

    def latency(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative buckets of :meth:`accepted_after` and the sum."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, BUCKETS), "+Inf"], self._latency, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._latency_sum


@attrs.define(eq=False)
class EdgeCollector(Collector):
    """Makes Prometheus' metrics of the counters."""

    name: str
    version: str
    stats: EdgeStats
    hits: LimitHits
    gauges: Callable[[], dict[str, float]]

    def collect(self) -> Iterable[Metric]:
        """Return every metric."""
        info = InfoMetricFamily("drtp_edge", "This edge.")
        info.add_metric([], {"name": self.name, "version": self.version})
        yield info
        stats = self.stats
        for name, text, value in (
            ("drtp_edge_visitors", "Visitors accepted.", stats.visitors),
            ("drtp_edge_retries", "Streams opened again on another tunnel.", stats.retries),
            ("drtp_edge_probes", "Health probes of the gateway.", stats.probes),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for name, text, label, counts in (
            ("drtp_edge_visitors_closed", "Visitors that ended.", "outcome", stats.outcomes),
            ("drtp_edge_intake_faults", "Connections to data ports turned away.", "fault", stats.intake_faults),
            ("drtp_edge_handshakes", "Handshakes of agents.", "result", stats.handshakes),
            ("drtp_edge_tunnels_ended", "Tunnels that ended.", "code", stats.tunnels_ended),
            ("drtp_limit_hits", "How often a limit was met.", "limit", self.hits.counts),
        ):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, count in sorted(counts.items()):
                family.add_metric([key], count)
            yield family
        traffic = CounterMetricFamily("drtp_edge_visitor_bytes", "Bytes of visitors.", labels=["direction"])
        traffic.add_metric(["in"], stats.bytes_in)
        traffic.add_metric(["out"], stats.bytes_out)
        yield traffic
        buckets, total = stats.latency()
        yield HistogramMetricFamily(
            "drtp_edge_accept_seconds", "From OPEN to ACCEPT.", buckets=buckets, sum_value=total
        )
        for name, gauge in self.gauges().items():
            yield GaugeMetricFamily(f"drtp_edge_{name}", f"{name.replace('_', ' ').capitalize()} now.", value=gauge)


def exposition(collector: Collector) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
