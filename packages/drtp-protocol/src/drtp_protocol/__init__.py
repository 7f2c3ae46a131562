"""DRTP/1 as a sans-IO state machine: framing, multiplexing, flow control, authentication transcript."""
