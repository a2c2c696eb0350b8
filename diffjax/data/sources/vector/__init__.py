"""Drawings as SVG, turned into pixels."""
