"""The gateway: speaks the clients' protocols, records both directions, appends to the bus."""
