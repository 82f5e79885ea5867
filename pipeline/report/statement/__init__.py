"""A tenant's statement of a month: one page, as HTML or PDF."""
