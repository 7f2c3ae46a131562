"""The controller's brains: observed objects in, desired objects out.

Rules:
- No I/O, no clock, no randomness: the present and the probes are passed in.
- Every planner is idempotent: planned again on its own result it returns the same result.
What must not enter: asyncio, sockets, a Kubernetes client.
"""
