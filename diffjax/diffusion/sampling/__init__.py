"""From noise to data: samplers, guidance, thresholds."""
