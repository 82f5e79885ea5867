"""Why batches, packs and pools stand where they stand: sentences made of facts, decided on nothing."""
