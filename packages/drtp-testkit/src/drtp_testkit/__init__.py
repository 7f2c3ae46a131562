"""What tests of DRTP and of its plugins need: contract suites, builders, a clock to turn by hand, a hostile network.

Rules:
- Nothing in production imports this package.
- A plugin's author inherits a suite of ``drtp_testkit.contracts`` and says how to make the plugin; that is all.
"""
