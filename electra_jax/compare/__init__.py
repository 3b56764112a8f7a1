"""Compare pre-training objectives at equal FLOPs: plan, work, records, results and report."""
