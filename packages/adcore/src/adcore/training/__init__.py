"""Training: the plan, one plain loop, schedules, checkpoints."""
