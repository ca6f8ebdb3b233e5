"""The planner: memory and time of a run."""
