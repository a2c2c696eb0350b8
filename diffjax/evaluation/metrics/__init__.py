"""Numbers of sets of features: the mathematics alone, in float64 on this machine."""
