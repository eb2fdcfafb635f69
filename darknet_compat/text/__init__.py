"""Texts, symbol by symbol: what a network with [rnn], [gru], [lstm] or [crnn] reads and writes."""
