"""Dynamic subset tuning for T5-family models."""
