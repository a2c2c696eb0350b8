"""Stages of others, made from their files."""
