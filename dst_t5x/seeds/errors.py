"""What every layout raises."""


class SeedError(ValueError):
  """A seed that cannot be read or written, or does not fit."""
