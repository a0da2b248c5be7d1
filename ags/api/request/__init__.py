"""Reading a request: its headers, its body, its parameters, and what they refer to."""
