"""The delta's file format, byte by byte; FORMAT.md specifies it."""
