"""Deltas: what they are, how to take, write, read, apply and combine them."""

from dst_t5x.delta.application import apply, revert, swap
from dst_t5x.delta.composition import compose
from dst_t5x.delta.difference import diff
from dst_t5x.delta.file.container import read, sections, write
from dst_t5x.delta.overlaps import overlap
from dst_t5x.delta.resident import Resident
from dst_t5x.delta.types import (
  DeltaEntry,
  DeltaError,
  DeltaFileError,
  DeltaInfo,
  DtypeMismatchError,
  InfoError,
  NonFiniteValueError,
  NotAppliedError,
  PositionError,
  ResultMismatchError,
  ShapeMismatchError,
  SubsetDelta,
  TooManyDifferencesError,
  UnknownParameterError,
  WrongSeedError,
)

__all__ = [
  'DeltaEntry',
  'DeltaError',
  'DeltaFileError',
  'DeltaInfo',
  'DtypeMismatchError',
  'InfoError',
  'NonFiniteValueError',
  'NotAppliedError',
  'PositionError',
  'Resident',
  'ResultMismatchError',
  'ShapeMismatchError',
  'SubsetDelta',
  'TooManyDifferencesError',
  'UnknownParameterError',
  'WrongSeedError',
  'apply',
  'compose',
  'diff',
  'overlap',
  'read',
  'revert',
  'sections',
  'swap',
  'write',
]
