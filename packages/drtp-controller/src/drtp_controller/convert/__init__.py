"""``drtp convert``: the first draft's manifests in, valid ones out, and a warning for everything that was changed.

What lives here: `reading` makes documents of text, `ours` and `foreign` mend documents kind by kind, `checking` holds
the result to the definitions, `core` puts it together. Rules: pure; whatever the input is, the outcome is a
`Conversion` or a `DrtpError`; nothing is dropped or added without a warning. What must not enter: files, an API.
"""

from __future__ import annotations

from drtp_controller.convert.core import Conversion, Options, convert

__all__ = ["Conversion", "Options", "convert"]
