"""How good pictures are, in numbers: plain NumPy in float64, no network and no device."""
