"""The parts that networks are built of."""
