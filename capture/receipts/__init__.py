"""What a node gets back from the log: beacons for OPEN, receipts before its spool lets go.

`view` asks the log and verifies what it says, `desk` keeps count of what is owed to the node.
"""
