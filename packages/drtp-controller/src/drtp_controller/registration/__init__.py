"""The registration API: how agents and their commands meet the control plane.

Rules:
- Rules and answers are in ``registrar.py``, free of HTTP; ``app.py`` maps them to routes.
- Every refusal is a coded error of the table; nothing an agent sends causes a 5xx.
What must not enter: planners of its own - it asks the controller's.
"""
