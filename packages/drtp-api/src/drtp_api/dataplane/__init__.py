"""The data plane: engines that drive sockets, carriers that tunnels run over, and the tunnel itself.

Rules:

- Everything here runs in one thread on one asyncio loop and never blocks.
- Decisions about the protocol belong to ``drtp_protocol``; this package moves bytes.

What must not live here: control-plane objects, grants, access lists, or anything that knows Kubernetes.
"""
