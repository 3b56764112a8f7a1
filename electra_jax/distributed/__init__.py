"""Run several processes as one: choose a leader, agree on decisions, and stop together."""
