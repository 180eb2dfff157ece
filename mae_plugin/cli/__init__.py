"""The command line: arguments, configs with their overrides, console output and errors."""
