"""Pages about runs: one HTML file each, which can be kept, mailed and printed."""
