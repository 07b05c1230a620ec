"""Where seeds come from: one module for every layout of checkpoints.

`finding` says which layout lies at a place, and `source` what a layout can do.
Use them through `dst_t5x.seeds`.
"""
