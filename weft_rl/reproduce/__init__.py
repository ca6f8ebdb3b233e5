"""Tables and figures of the WeFT paper."""
