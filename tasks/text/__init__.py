"""Classify texts and pairs and predict values for them, as in GLUE."""
