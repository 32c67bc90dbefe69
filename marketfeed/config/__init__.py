"""What the daemon is told to do: options, settings, and the kinds that the file declares."""
