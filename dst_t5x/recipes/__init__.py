"""What flags and gin files say of a run, read in one place for all hosts."""
