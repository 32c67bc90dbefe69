"""A conversation with one client: requests in, replies and changes of subscription out."""
