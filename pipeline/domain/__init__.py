"""Pure words: ids, money, tiers, states and their edges, reasons, limits, errors."""
