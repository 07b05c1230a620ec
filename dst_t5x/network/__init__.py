"""T5 1.1 with T5X's parameter tree: the network, its loss, its decoding."""
