"""Finding the batch that a variant runs best with on this device."""
