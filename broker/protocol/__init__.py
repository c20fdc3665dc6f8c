"""The wire contract, shared with the device: topics, messages, codec, error codes."""
