"""What plain requests get."""
