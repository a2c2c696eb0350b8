"""Trained stages: found, loaded, merged with LoRAs, and begun from."""
