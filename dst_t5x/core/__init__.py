"""The method, framework-free: read `selective` first."""
