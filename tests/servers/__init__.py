"""Real servers for tests: what they are made of, how they run, and the fixtures that lend them."""
