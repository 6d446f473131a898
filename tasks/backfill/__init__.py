"""A resumable run over a corpus: source, pack, ledger, sink, run."""
