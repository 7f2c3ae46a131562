"""What datumctl asks of a plugin before it runs it (plugin contract, API version 1).

Rules: no import of ours or of a third party; datumctl waits for this on every completion.
What must not live here: anything else.
"""

from __future__ import annotations

VERSION = "0.1.0"

MANIFEST = (
    '{"name":"serve","version":"v' + VERSION + '","description":"Expose a local service through Datum Cloud",'
    '"min_datumctl_version":"v0.18.0","api_version":1,"min_api_version":1}'
)
