"""The station on the line: a server that scores images with an exported model, and keeps what people say of them."""
