"""What flags and gin files say of a run, read without running it."""
