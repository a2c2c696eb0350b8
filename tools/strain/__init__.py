"""Damages, attacks and watches what runs."""
