"""Planners, reconcilers, the registration API, the embedded Kubernetes API and the operator command drtp."""
