"""Checkpoints of others for the networks of DDPM, improved DDPM and ADM."""
