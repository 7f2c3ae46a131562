"""The entry point: answers datumctl's questions before anything heavy is imported, then hands over.

Rules: the manifest comes before every other argument; nothing is imported at the top but constants.
What must not live here: options and commands.
"""

from __future__ import annotations

import sys

from datumctl_serve.manifest import MANIFEST


def main() -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:]
    if "--plugin-manifest" in arguments:
        sys.stdout.write(MANIFEST + "\n")
        return 0
    if arguments[:1] == ["__complete"]:
        from datumctl_serve.completion import complete

        sys.stdout.write(complete(arguments[1:]))
        return 0
    from datumctl_serve.cli import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
