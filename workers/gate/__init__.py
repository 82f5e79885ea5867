"""The accuracy gate: whether a variant of a model may stand in for its reference, and with how sure a proof."""
