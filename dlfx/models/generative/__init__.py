"""Networks that generate: generators and critics, encoders and decoders, flows, denoisers."""
