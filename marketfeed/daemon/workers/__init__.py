"""Several processes behind one port: a parent that starts them and speaks for them, and what each of them is told."""
