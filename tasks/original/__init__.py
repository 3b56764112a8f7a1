"""Provide the original code's rules where this project's differ, faults included; `choice` hands them to the tasks."""
