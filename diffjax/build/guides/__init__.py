"""What guides a stage while it draws: CLIPs, classifiers, weaker versions of itself."""
