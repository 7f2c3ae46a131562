"""What Envoy's answers mean: is the configuration in force, and if not, whose fault is it. Pure.

Rules:
- An exposure is programmed when Envoy reports the version of every file that carries it, never because it was written.
- Envoy keeps the good listeners and clusters of a file it rejects, so one exposure's fault is told apart from the
  others' health.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from drtp_api.gateways import ExposureStatus
from drtp_api.resources import Protocol
from drtp_gateway_envoy.options import HTTP_LISTENER, ROUTES
from drtp_gateway_envoy.render import CDS, LDS, RDS, Rendered

__all__ = ["LDS_STAT", "Answers", "blame", "expected_versions", "unconfirmed"]

LDS_STAT: Final = "listener_manager.lds"
_STATS: Final = {
    CDS: "cluster_manager.cds",
    LDS: LDS_STAT,
    RDS: f"http.{HTTP_LISTENER}.rds.{ROUTES}",
}


@attrs.frozen(kw_only=True)
class Answers:
    """What Envoy said: versions in force and files rejected by statistic, listeners refused by name with the reason."""

    versions: Mapping[str, str]
    rejected: frozenset[str] = frozenset()
    refused: Mapping[str, str] = attrs.field(factory=dict)


def _cluster_stat(service: str) -> str:
    # Envoy replaces the separator of its own notation in names.
    return "cluster." + service.replace(":", "_")


def expected_versions(rendered: Rendered, versions: Mapping[str, str]) -> dict[str, str]:
    """Return the version each statistic must report, given the version of every written file by path."""
    expected = {f"{stat}.version_text": versions[path] for path, stat in _STATS.items() if path in versions}
    for service, plan in rendered.plans.items():
        expected[f"{_cluster_stat(service)}.version_text"] = plan.endpoints.version
    return expected


def unconfirmed(expected: Mapping[str, str], versions: Mapping[str, str]) -> frozenset[str]:
    """Return the statistics, without ``version_text``, of the files that Envoy does not run with yet."""
    return frozenset(
        stat.removesuffix(".version_text") for stat, version in expected.items() if versions.get(stat) != version
    )


def _refused(message: str) -> ExposureStatus:
    code = "DRTP-5003" if "cannot bind" in message or "ermission denied" in message else "DRTP-5004"
    reason = "PortUnavailable" if code == "DRTP-5003" else "Rejected"
    return ExposureStatus(programmed=False, reason=reason, message=message, code=code)


def blame(
    rendered: Rendered, previous: Rendered | None, expected: Mapping[str, str], answers: Answers
) -> dict[str, ExposureStatus]:
    """Return the status of every exposure that Envoy does not serve as rendered; the others are programmed."""
    missing = unconfirmed(expected, answers.versions)
    if not missing:
        return {}
    statuses: dict[str, ExposureStatus] = {}
    old_clusters = previous.clusters if previous is not None else {}
    late = ExposureStatus(
        programmed=False, reason="Unconfirmed", message="Envoy has not confirmed the configuration", code="DRTP-5002"
    )
    listeners_rejected = _STATS[LDS] in answers.rejected
    for service, plan in rendered.plans.items():
        listener = plan.listener or HTTP_LISTENER
        if (why := answers.refused.get(listener)) is not None:
            statuses[service] = _refused(why)
        elif _cluster_stat(service) in answers.rejected:
            statuses[service] = _refused("its endpoints were rejected")
        elif plan.protocol is Protocol.HTTP and _STATS[RDS] in missing & answers.rejected:
            statuses[service] = _refused("the routes were rejected")
        elif _STATS[CDS] in missing & answers.rejected and old_clusters.get(service) != rendered.clusters[service]:
            statuses[service] = _refused("its cluster was rejected")
        elif listeners_rejected and not answers.refused and plan.listener is not None:
            statuses[service] = _refused("the listeners were rejected")
        elif _cluster_stat(service) in missing or _waits(plan.protocol, missing - answers.rejected):
            statuses[service] = late
    return statuses


def _waits(protocol: Protocol, silent: frozenset[str]) -> bool:
    """Return whether a shared file that this protocol needs is neither in force nor rejected."""
    return _STATS[CDS] in silent or _STATS[RDS if protocol is Protocol.HTTP else LDS] in silent
