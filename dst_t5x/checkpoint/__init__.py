"""Delta checkpoints of T5X runs: what is in them, packing, reading, export."""
