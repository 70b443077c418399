"""What is installed: units, packages."""
