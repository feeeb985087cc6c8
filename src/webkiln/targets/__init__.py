"""Targets: their limits, legalisation, and the tools that build for them."""
