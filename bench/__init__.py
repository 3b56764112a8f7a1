"""Time parts of the project; RESULTS.md has the methods and results."""
