"""Optimisation rules and the state tree."""
