"""What a network learns from: times, losses, weightings."""
