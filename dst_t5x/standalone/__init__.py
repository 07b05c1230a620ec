"""The runner without T5X: network, data, training, evaluation, decoding."""
