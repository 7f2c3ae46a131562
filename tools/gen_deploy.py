"""Writes the kustomize tree in deploy/ from drtp_controller.manifests, or with --check says whether it is up to date.

Rules: ``base`` and ``overlays`` hold generated files only; an operator's own overlay lives elsewhere and names ours.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drtp_controller.manifests import files

DEPLOY = Path(__file__).parents[1] / "deploy"


def main() -> int:
    """Write the tree, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check = parser.parse_args().check
    wanted = {DEPLOY / name: content for name, content in files().items()}
    present = {p for folder in ("base", "overlays") for p in (DEPLOY / folder).rglob("*") if p.is_file()}
    wrong = sorted(p for p, content in wanted.items() if p not in present or p.read_text() != content)
    extra = sorted(present - wanted.keys())
    if check:
        for path in (*wrong, *extra):
            print(f"deploy/{path.relative_to(DEPLOY)} is not what gen_deploy.py writes: run it", file=sys.stderr)
        return 1 if wrong or extra else 0
    for path in extra:
        path.unlink()
    for path in wrong:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
