"""The commit of T5X that the tests ran with, and that other hosts get."""

T5X_COMMIT = 'cc342d4'
