"""Contract suites for plugin authors, chaos relay, fake clock and fixtures that start a whole cloud."""
