"""Real servers for tests, as operators group them: a cluster, and a master that sentinels watch. Nothing here waits for
the reactor: a test calls it as it is, or in a thread where clients of its own are to go on meanwhile.
"""
