"""The spool: on the node's disk, what a worker recorded and the bus has not acknowledged yet."""
