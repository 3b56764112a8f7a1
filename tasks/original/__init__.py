"""The rules of the original code where this project's differ, faults included; `choice` hands them to the tasks."""
