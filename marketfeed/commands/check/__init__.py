"""`marketfeed check`: what an engine publishes, and what can be made of it."""
