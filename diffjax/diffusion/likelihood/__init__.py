"""How likely the data is under the model."""
