"""Kubernetes' rule language, CEL, as far as definitions of kinds use it: parsed, checked, compiled to closures, run.

What lives here: `compiler` makes programs of expressions, `rules` those of a schema, and evaluates them for objects.
Rules: no I/O; nothing here knows a kind. Why our own and not a library: a rule takes microseconds instead of
a millisecond on every write, types are checked when a definition is taken, and Kubernetes' own functions exist.
What must not enter: requests, storage, the meaning of any rule.
"""
