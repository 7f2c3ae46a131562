"""What the parts of DRTP agree on: resources, hooks, grants, error codes, the Kubernetes client, the data plane."""
