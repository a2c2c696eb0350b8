"""What a run says of itself: lines, TensorBoard events, progress, seconds."""
