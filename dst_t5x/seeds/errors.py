"""The errors of seeds, told apart by class."""


class SeedError(ValueError):
  """A seed cannot be read or written, or does not fit what it is for."""


class SeedNotFoundError(SeedError):
  """No seed lies at the given place."""


class NotThisLayoutError(SeedError):
  """What lies at the given place is not of the layout it was opened as."""
