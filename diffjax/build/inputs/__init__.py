"""What a stage reads: records, columns, texts and vectors, made from a config."""
