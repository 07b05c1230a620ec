"""Tasks for seqio: importing a module of this package registers its tasks."""
