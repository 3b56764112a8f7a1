"""What is timed here, how, and with which results: see RESULTS.md."""
