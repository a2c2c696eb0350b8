"""What golden files are made of: inputs and weights from formulas, without PyTorch."""
