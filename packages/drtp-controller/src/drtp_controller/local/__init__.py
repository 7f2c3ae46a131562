"""``drtp local``: a whole cloud on one machine, in the foreground.

Rules:
- The same controller, registration API and edges as in production; only the Kubernetes API is embedded.
- Everything it starts it ends; everything it writes is below the state directory.
What must not enter: shortcuts that a real deployment does not have.
"""
