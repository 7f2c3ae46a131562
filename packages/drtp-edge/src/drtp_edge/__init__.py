"""The DRTPServer daemon: visitor listeners, tunnel listeners, access control, PROXY protocol, drain, metrics."""

__version__ = "0.1.0"
