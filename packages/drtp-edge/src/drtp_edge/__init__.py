"""The DRTPServer daemon: visitor listeners, tunnel listeners, access control, PROXY protocol, drain, metrics."""
