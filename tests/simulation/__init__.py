"""Many schedules of many actors on the real code, one step at a time."""
