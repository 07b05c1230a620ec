"""The seed that comes with the package, and the script that makes it."""
