"""Bringing a rendered configuration to Envoy's directory, in an order that is valid at every moment.

Rules:
- What is referred to comes first: endpoints, clusters, routes, listeners. What is no longer referred to goes last, in a
  second round, once Envoy has confirmed the first: until then a visitor may still be routed to it.
- A file is replaced by renaming over it, which is also what Envoy watches for; an unchanged file is not touched.
- :func:`first_round` and :func:`second_round` decide; :class:`Directory` writes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from drtp_api.errors import DrtpError
from drtp_gateway_envoy.render import CDS, ConfigFile, Rendered, assemble

__all__ = ["Directory", "first_round", "second_round"]

FOLDERS = ("eds", "cds", "rds", "lds")


def first_round(old: Rendered | None, new: Rendered) -> list[ConfigFile]:
    """Return the files of the new configuration in writing order; clusters of the old one stay for now."""
    kept = dict(old.clusters) if old is not None else {}
    # The union keeps the order of names, so that a first round that removes nothing writes the final file.
    merged = dict(sorted((kept | dict(new.clusters)).items()))
    return [
        *(plan.endpoints for plan in new.plans.values()),
        assemble(CDS, merged.values()),
        new.routes,
        new.listener_file,
    ]


def second_round(versions: Mapping[str, str], new: Rendered) -> tuple[list[ConfigFile], list[str]]:
    """Return the final clusters file and the endpoint files to remove, given the version of every written file."""
    used = {plan.endpoints.path for plan in new.plans.values()}
    return [new.cluster_file], [path for path in versions if path.startswith("eds/") and path not in used]


@attrs.define
class Directory:
    """Envoy's configuration directory, and which version of each file stands in it."""

    root: Path
    versions: dict[str, str] = attrs.field(factory=dict)

    def prepare(self) -> None:
        """Make the directory, empty of what an earlier run left.

        Raises:
            DrtpError: DRTP-1006.
        """
        try:
            for folder in FOLDERS:
                path = self.root / folder
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                for file in path.iterdir():
                    file.unlink()
        except OSError as error:
            raise DrtpError("DRTP-1006", f"cannot write {self.root}: {error.strerror or error}") from error
        self.versions.clear()

    def write(self, files: Iterable[ConfigFile]) -> list[ConfigFile]:
        """Write the files that changed, in the order given, and return them.

        Raises:
            DrtpError: DRTP-1006.
        """
        changed = [file for file in files if self.versions.get(file.path) != file.version]
        for file in changed:
            self.replace(file.path, file.content)
            self.versions[file.path] = file.version
        return changed

    def replace(self, path: str, content: bytes) -> None:
        """Replace one file atomically.

        Raises:
            DrtpError: DRTP-1006.
        """
        target = self.root / path
        try:
            # Not synced to the disk: after a crash of the machine everything is rendered anew.
            fd, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise DrtpError("DRTP-1006", f"cannot write {target}: {error.strerror or error}") from error

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files that Envoy no longer reads."""
        for path in paths:
            self.versions.pop(path, None)
            with contextlib.suppress(OSError):
                (self.root / path).unlink()
