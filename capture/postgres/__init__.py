"""PostgreSQL capture: the codec (pure) and the network ring around it."""
