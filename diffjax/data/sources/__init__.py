"""Data sources, which all have the methods of `record.RecordSource`."""
