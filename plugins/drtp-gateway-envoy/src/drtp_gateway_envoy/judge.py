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

__all__ = ["CDS_STAT", "LDS_STAT", "RDS_STAT", "Answers", "blame", "expected_versions", "unconfirmed"]

CDS_STAT: Final = "cluster_manager.cds"
LDS_STAT: Final = "listener_manager.lds"
RDS_STAT: Final = f"http.{HTTP_LISTENER}.rds.{ROUTES}"
_STATS: Final = {CDS: CDS_STAT, LDS: LDS_STAT, RDS: RDS_STAT}


@attrs.frozen(kw_only=True)
class Answers:
    """What Envoy said.

    ``versions`` in force and files ``rejected`` by statistic; clusters still ``warming``; listeners ``refused`` by
    name, with the reason.
    """

    versions: Mapping[str, str]
    rejected: frozenset[str] = frozenset()
    refused: Mapping[str, str] = attrs.field(factory=dict)
    warming: frozenset[str] = frozenset()


def expected_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Return the version each statistic must report, given the version of every written file by path."""
    return {f"{stat}.version_text": versions[path] for path, stat in _STATS.items() if path in versions}


def unconfirmed(expected: Mapping[str, str], versions: Mapping[str, str]) -> frozenset[str]:
    """Return the statistics, without ``version_text``, of the files that Envoy does not run with yet."""
    return frozenset(
        stat.removesuffix(".version_text") for stat, version in expected.items() if versions.get(stat) != version
    )


def _refused(message: str) -> ExposureStatus:
    code = "DRTP-5003" if "cannot bind" in message or "ermission denied" in message else "DRTP-5004"
    reason = "PortUnavailable" if code == "DRTP-5003" else "Rejected"
    return ExposureStatus(programmed=False, reason=reason, message=message, code=code)


_LATE: Final = ExposureStatus(
    programmed=False, reason="Unconfirmed", message="Envoy has not confirmed the configuration", code="DRTP-5002"
)


def blame(
    rendered: Rendered, previous: Rendered | None, expected: Mapping[str, str], answers: Answers
) -> dict[str, ExposureStatus]:
    """Return the status of every exposure that Envoy does not serve as rendered; the others are programmed."""
    missing = unconfirmed(expected, answers.versions)
    old_clusters = previous.clusters if previous is not None else {}
    statuses: dict[str, ExposureStatus] = {}
    for service, plan in rendered.plans.items():
        is_http = plan.protocol is Protocol.HTTP
        new_cluster = old_clusters.get(service) != rendered.clusters[service]
        needed = {LDS_STAT, CDS_STAT} | ({RDS_STAT} if is_http else set())
        if (why := answers.refused.get(plan.listener or HTTP_LISTENER)) is not None:
            statuses[service] = _refused(why)
        elif is_http and RDS_STAT in missing & answers.rejected:
            statuses[service] = _refused("the routes were rejected")
        elif new_cluster and CDS_STAT in missing & answers.rejected:
            statuses[service] = _refused("the clusters were rejected")
        elif not is_http and not answers.refused and LDS_STAT in missing & answers.rejected:
            statuses[service] = _refused("the listeners were rejected")
        elif needed & (missing - answers.rejected) or (service in answers.warming and service not in old_clusters):
            statuses[service] = _LATE
    return statuses
