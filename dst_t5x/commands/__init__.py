"""The subcommands of `dst-t5x`, one module each.

`dst-t5x --help` imports every module here for its first line, so that a module
imports click alone at its top and everything heavy (JAX, TensorFlow) inside
the command's function.
"""
