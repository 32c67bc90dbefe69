"""The process: its port, memory, files, garbage and logs."""
