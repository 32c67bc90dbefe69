"""`marketfeed status`: whether a daemon is well, and what is wrong, in a terminal."""
