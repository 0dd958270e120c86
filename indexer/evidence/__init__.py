"""Taking one session out of a deployment as an evidence bundle."""
