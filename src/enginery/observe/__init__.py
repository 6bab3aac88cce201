"""Observation: the only logging set-up."""
