"""Starts, watches and stops T5X runs: on one machine, or on Cloud TPU."""
