"""`marketfeed bench`: a load of known size, and what became of it."""
