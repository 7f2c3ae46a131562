"""Writes deploy/ and the guide's tables of rights, or with --check says whether they are up to date.

Rules:
- ``base`` and ``overlays`` hold generated files only; an operator's own overlay lives elsewhere and names ours.
- The guide is written by hand but for what stands between the two marks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drtp_controller.manifests import files
from drtp_controller.rights import Component, Right, rights_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs/operations/install.md"
BEGIN = "<!-- rights: written by tools/gen_deploy.py from drtp_controller/rights.py -->\n"
END = "<!-- end of rights -->\n"


def guide(present: str) -> str:
    """Return the guide with its tables as the rights are."""
    head, _, rest = present.partition(BEGIN)
    _, _, tail = rest.partition(END)
    tables = "".join(f"\n### `{component}`\n\n{_table(rights_of(component))}" for component in Component)
    return f"{head}{BEGIN}{tables}\n{END}{tail}"


def _table(rights: tuple[Right, ...]) -> str:
    rows = ["| where | what | verbs | why: it |", "|---|---|---|---|"]
    for right in rights:
        where = f"`{right.namespace}`" if right.namespace else "the cluster"
        what = ", ".join(f"`{resource}`" for resource in right.resources)
        group = f" ({right.group})" if right.group else ""
        names = f", only {' and '.join(f'`{n}`' for n in right.names)}" if right.names else ""
        rows.append(f"| {where} | {what}{group}{names} | {', '.join(right.verbs)} | {right.why} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Write the tree, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check = parser.parse_args().check
    wanted = {DEPLOY / name: content for name, content in files().items()}
    present = {p for folder in ("base", "overlays") for p in (DEPLOY / folder).rglob("*") if p.is_file()}
    extra = sorted(present - wanted.keys())
    wanted[GUIDE] = guide(GUIDE.read_text())
    present.add(GUIDE)
    wrong = sorted(p for p, content in wanted.items() if p not in present or p.read_text() != content)
    if check:
        for path in (*wrong, *extra):
            print(f"{path.relative_to(ROOT)} is not what gen_deploy.py writes: run it", file=sys.stderr)
        return 1 if wrong or extra else 0
    for path in extra:
        path.unlink()
    for path in wrong:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
