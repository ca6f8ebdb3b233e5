"""Where the processes of a sweep run: one module a launcher, each with the same `connect`."""
