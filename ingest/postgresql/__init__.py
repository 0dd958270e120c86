"""What every store on PostgreSQL stands on: connections, transactions, errors, layouts, checks."""
