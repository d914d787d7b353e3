"""`tmp-redirect scan` and `tmp-redirect scan-logs`: what would be put into system temp, and what was."""
