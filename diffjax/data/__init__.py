"""Records, data sources, the embedded emoji data set, and the iterators over batches."""
