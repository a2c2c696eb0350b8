"""Others' networks, samplers and metrics, which the golden files hold ours to."""
