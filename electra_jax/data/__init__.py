"""Make batches on the host: cached blocks, packed rows, length buckets and the iterators over them."""
