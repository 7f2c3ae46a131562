"""Bringing a rendered configuration to Envoy's directory, in an order that is valid at every moment.

Rules:
- What is referred to comes first: clusters, routes, listeners. What is no longer referred to goes last, in a
  second round, once Envoy has confirmed the first: until then a visitor may still be routed to it.
- A file is replaced by renaming over it, which is also what Envoy watches for; an unchanged file is not touched.
- :func:`first_round` and :func:`second_round` decide; :class:`Directory` writes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from drtp_api.errors import DrtpError
from drtp_gateway_envoy.render import CDS, ConfigFile, Rendered, assemble

__all__ = ["Directory", "first_round", "second_round"]

FOLDERS: Final = ("cds", "rds", "lds")


def first_round(old: Rendered | None, new: Rendered) -> list[ConfigFile]:
    """Return the files of the new configuration in writing order; clusters that only the old one has stay for now."""
    kept = dict(old.clusters) if old is not None else {}
    # In the order of names, so that a first round that removes nothing writes the final file.
    merged = dict(sorted((kept | dict(new.clusters)).items()))
    return [assemble(CDS, merged.values()), new.routes, new.listener_file]


def second_round(new: Rendered) -> list[ConfigFile]:
    """Return what to write once Envoy has confirmed the first round: the clusters without those no longer used."""
    return [new.cluster_file]


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
