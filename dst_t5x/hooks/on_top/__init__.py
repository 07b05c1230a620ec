"""A method on top of any configuration of T5X: hosts/on_top_t5x.gin.

`gin_bindings` looks at what a configuration binds for T5X's `train`, `evaluate`
or `infer`, and puts our hooks around it: `initializer`, which begins at the
seed and wraps the model's optimizer, the checks around the trainer, and
`user_checkpoints`, which say where the seed lies.
"""
