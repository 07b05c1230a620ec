"""Starts, watches and stops T5X runs elsewhere: see README.md here."""
