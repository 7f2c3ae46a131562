"""What the parts of DRTP agree on: resources, plugin hooks, grants, error codes, the Kubernetes client protocol and the data plane."""
