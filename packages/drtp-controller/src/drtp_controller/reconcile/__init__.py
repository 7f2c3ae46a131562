"""The controller's shell: reflectors feed caches, keys feed a work queue, planners decide, differences are written.

Rules:
- Level-triggered: a reconcile looks at the whole present, never at the event that woke it.
- Only differences are written; a quiet cloud causes no writes.
What must not enter: decisions that a planner could make.
"""
