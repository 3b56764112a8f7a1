"""Read raw text: files, embedded text, TensorFlow Datasets, the original's TFRecords."""
