"""Write reports of runs: one HTML file each, which can be archived, mailed and printed."""
