"""What twistd asks for, and the tree of services that it gets."""
