"""Loads and saves the autoencoders of others."""
