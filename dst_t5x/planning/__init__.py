"""What a run will need on a TPU slice, worked out without one."""
