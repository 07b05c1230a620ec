"""The demonstration: German number words → English, with a bundled seed."""
