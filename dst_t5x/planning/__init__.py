"""What a run will need on a TPU slice, found out without one."""
