"""What tests share: real servers and real processes on loopback, and waiting without luck."""
