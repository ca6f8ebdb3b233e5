"""Files and terminals: untrusted input, atomic output, escaped text, progress logs."""
