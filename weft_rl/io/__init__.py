"""Files and terminals: untrusted input, escaped text, progress logs."""
