"""T5X in several processes of this machine."""
