"""The tasks that need more than a network and a loss, each made from its config."""
