"""Speech features: the HuBERT network, its windows and its run over long audio."""
