"""`marketfeed watch`: what is published, in a terminal."""
